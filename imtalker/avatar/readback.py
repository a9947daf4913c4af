"""Reads motion back from images of drawn heads, to measure how well a model follows its driver.

The head's angles and position are those of the drawing that matches best; mouth and eyes are then read by colour at the
places where that head has them. `gaze_x`, `gaze_y`, `blink` and `mouth_open` grow with the motion but are not in its
units: correlate them with it, the gaze only where the eyes are open.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..drawn.head import EYE_WHITE, MOTION, MOTION_SIZE, MOUTH, PUPIL, TONGUE, Head
from ..drawn.people import Appearance
from ..drawn.portraits import draw, draw_with_layers, part_mask, pixel_centres

HEAD_NAMES = ("yaw", "pitch", "roll", "x", "y", "scale")
READINGS = (*HEAD_NAMES, "gaze_x", "gaze_y", "blink", "mouth_open")
STARTS = (-0.4, 0.0, 0.4)  # yaws to search from: a single start misses some heads
COARSE, FINE = (24, 60, 0.1, 0.3), (48, 80, 0.04, 0.1)  # side, steps, rate, and share of the rate left at the end
COLOUR_TOLERANCE = 0.1  # of RGB in 0..1


def read(images: Tensor, appearance: Appearance, head: Tensor | None = None) -> dict[str, Tensor]:
    """Reads images (B,3,S,S) in 0..1 of people of a known appearance: numbers (B,) for each name in READINGS.

    head: motions (B,16) whose head values are taken as known; the search for them takes nearly all of the time.
    """
    head = find_head(images, appearance) if head is None else head
    readings = dict(zip(MOTION, head.unbind(1)))
    gaze_x, gaze_y, white = _eyes(images, appearance, head)
    open_head = head.clone()
    open_head[:, MOTION.index("mouth_open")] = 1
    layers = draw_with_layers(appearance, open_head, images.shape[-1])[1]
    mouth = part_mask(layers, "mouth").float()
    throat = _colour_match(images, MOUTH, TONGUE)
    return {name: readings[name] for name in HEAD_NAMES} | {
        "gaze_x": gaze_x,
        "gaze_y": gaze_y,
        "blink": -white,
        "mouth_open": (throat * mouth).sum((1, 2)) / mouth.sum((1, 2)).clamp_min(1),
    }


def _eyes(images: Tensor, appearance: Appearance, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How far iris and pupil are to the right and up, in half eye widths, and the white share of the eyes; all (B,)."""
    wide_open = head.clone()
    wide_open[:, MOTION.index("blink")] = 0
    layers = [layer for layer in Head(appearance, wide_open).layers if layer.part == "eye"]
    dark, white = _colour_match(images, PUPIL, appearance.iris), _colour_match(images, EYE_WHITE)
    grid = pixel_centres(len(images), images.shape[-1], images.device)
    per_eye = []
    for eye in (layers[1], layers[len(layers) // 2 + 1]):  # the white of either eye
        own = eye.to_own(grid)
        inside = eye.alpha(own, pixel=1e-3)
        x, y = own.unbind(1)
        (dark_x, dark_y), (eye_x, eye_y) = _centroid(dark * inside, x, y), _centroid((dark + white) * inside, x, y)
        size = (dark * inside).sum((1, 2)) + 1e-3  # weight: an eye turned away is small or hidden
        shown = (white * inside).sum((1, 2)) / inside.sum((1, 2)).clamp_min(1)
        per_eye.append(torch.stack([(dark_x - eye_x) * size, (eye_y - dark_y) * size, size, shown]))
    x, y, size, shown = torch.stack(per_eye).sum(0)
    return x / size, y / size, shown / 2


def find_head(images: Tensor, appearance: Appearance) -> Tensor:
    """Finds motions (B,16) whose head values match the images; the other values only help the search."""
    count, starts = len(images), len(STARTS)
    several = torch.arange(count, device=images.device).repeat(starts)
    with torch.inference_mode(False), torch.enable_grad():
        motion = torch.zeros(starts * count, MOTION_SIZE, device=images.device)
        motion[:, MOTION.index("yaw")] = torch.tensor(STARTS, device=images.device).repeat_interleave(count)
        motion[:, MOTION.index("mouth_open")] = 0.2  # a shut mouth has no gradient
        motion, error = _refine(images[several], appearance[several], motion, *COARSE)
        best = error.view(starts, count).argmin(0)
        return _refine(images, appearance, motion.view(starts, count, -1)[best, several[:count]], *FINE)[0]


def _refine(
    images: Tensor, appearance: Appearance, motion: Tensor, side: int, steps: int, rate: float, end: float
) -> tuple[Tensor, Tensor]:
    """Fits motions (B,16) to the images by gradient descent; also returns the remaining errors, (B,)."""
    target = F.interpolate(images.clone(), size=(side, side), mode="area")
    motion = motion.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([motion], rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - (1 - end) * step / steps)
        error = (draw(appearance, motion, side) - target).square().mean((1, 2, 3)).add(1e-6).sqrt()
        optimizer.zero_grad()
        error.sum().backward()
        optimizer.step()
    return motion.detach(), error.detach()


def correlation(readings: Tensor, truth: Tensor) -> float:
    """Pearson's correlation of all numbers of both; 0 if one of them is constant."""
    a, b = (x.flatten() - x.mean() for x in (readings, truth))
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))


def by_lag(readings: Tensor, truth: Tensor, lags: Iterable[int]) -> dict[int, float]:
    """Correlation for each lag: readings (...,T) that many frames after the truth, or before it for a negative lag."""
    found = {}
    for lag in lags:
        late, early, count = max(0, lag), max(0, -lag), truth.shape[-1] - abs(lag)
        found[lag] = correlation(readings[..., late : late + count], truth[..., early : early + count])
    return found


def _colour_match(images: Tensor, *colours: Tensor | tuple[float, float, float]) -> Tensor:
    """How close each pixel is to the nearest of the colours, each (3,), or (B,3) with one per image: (B,S,S), 0..1."""
    each = [torch.as_tensor(colour, device=images.device).expand(len(images), 3) for colour in colours]
    palette = torch.stack(each, dim=1)[..., None, None]
    distance = (images[:, None] - palette).square().sum(2).amin(1)
    return torch.exp(-distance / (2 * COLOUR_TOLERANCE**2))


def _centroid(weights: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    total = weights.sum((1, 2)) + 1e-3
    return (weights * x).sum((1, 2)) / total, (weights * y).sum((1, 2)) / total
