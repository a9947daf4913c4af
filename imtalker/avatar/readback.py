"""Motion read back from pictures of drawn heads: what a model is judged by.

The head's position and angles are those whose drawing comes nearest; mouth and eyes are then read where that head has
them, by their colours. `gaze_x` to `mouth_open` grow with the motion without being in its units, so they are to be
correlated with it, those of the gaze where eyes are open.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..drawn.people import Look
from ..drawn.portraits import (
    EYE_WHITE,
    MOTION,
    MOTION_SIZE,
    MOUTH,
    PUPIL,
    TONGUE,
    Head,
    draw,
    draw_with_layers,
    of_parts,
    positions,
)

HEAD = ("yaw", "pitch", "roll", "x", "y", "scale")
READINGS = (*HEAD, "gaze_x", "gaze_y", "blink", "mouth_open")
STARTS = (-0.4, 0.0, 0.4)  # of yaw: from one alone, some heads are not found
COARSE, FINE = (24, 60, 0.1, 0.3), (48, 80, 0.04, 0.1)  # side, steps, rate, and the part of it that is left in the end
NEAR = 0.1  # how far a colour may be off, in 0..1


def read(pictures: Tensor, look: Look, head: Tensor | None = None) -> dict[str, Tensor]:
    """Pictures (B,3,S,S), 0..1, of the people of `look` -> numbers (B,) for each name in READINGS.

    head: motions (B,16) with the head's values where these are known; looking for them takes nearly all the time.
    """
    head = find_head(pictures, look) if head is None else head
    readings = dict(zip(MOTION, head.unbind(1)))
    gaze_x, gaze_y, white = _eyes(pictures, look, head)
    open_head = head.clone()
    open_head[:, MOTION.index("mouth_open")] = 1
    seen = draw_with_layers(look, open_head, pictures.shape[-1])[1]
    mouth = of_parts(seen, "mouth").float()
    throat = _like(pictures, MOUTH, TONGUE)
    return {name: readings[name] for name in HEAD} | {
        "gaze_x": gaze_x,
        "gaze_y": gaze_y,
        "blink": -white,
        "mouth_open": (throat * mouth).sum((1, 2)) / mouth.sum((1, 2)).clamp_min(1),
    }


def _eyes(pictures: Tensor, look: Look, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where iris and pupil are in the eyes, to the right and up, of half an eye's width each; and the share of the eyes
    that is white. All (B,)."""
    wide_open = head.clone()
    wide_open[:, MOTION.index("blink")] = 0
    layers = [layer for layer in Head(look, wide_open).layers if layer.part == "eye"]
    dark, white = _like(pictures, PUPIL, look.iris), _like(pictures, EYE_WHITE)
    grid = positions(len(pictures), pictures.shape[-1], pictures.device)
    found = []
    for eye in (layers[0], layers[len(layers) // 2]):  # what is white in the one eye and in the other
        own = eye.own(grid)
        inside = eye.alpha(own, pixel=1e-3)
        x, y = own.unbind(1)
        (dark_x, dark_y), (eye_x, eye_y) = _middle(dark * inside, x, y), _middle((dark + white) * inside, x, y)
        size = (dark * inside).sum((1, 2)) + 1e-3  # an eye turned away is small, or not to be seen
        shown = (white * inside).sum((1, 2)) / inside.sum((1, 2)).clamp_min(1)
        found.append(torch.stack([(dark_x - eye_x) * size, (eye_y - dark_y) * size, size, shown]))
    x, y, size, shown = torch.stack(found).sum(0)
    return x / size, y / size, shown / 2


def find_head(pictures: Tensor, look: Look) -> Tensor:
    """Motions (B,16) of which only the head's values are to be relied on; the others help to find these."""
    count, starts = len(pictures), len(STARTS)
    several = torch.arange(count, device=pictures.device).repeat(starts)
    with torch.inference_mode(False), torch.enable_grad():
        motion = torch.zeros(starts * count, MOTION_SIZE, device=pictures.device)
        motion[:, MOTION.index("yaw")] = torch.tensor(STARTS, device=pictures.device).repeat_interleave(count)
        motion[:, MOTION.index("mouth_open")] = 0.2  # shut, it would have no slope
        motion, error = _nearer(pictures[several], look[several], motion, *COARSE)
        best = error.view(starts, count).argmin(0)
        return _nearer(pictures, look, motion.view(starts, count, -1)[best, several[:count]], *FINE)[0]


def _nearer(
    pictures: Tensor, look: Look, motion: Tensor, side: int, steps: int, rate: float, end: float
) -> tuple[Tensor, Tensor]:
    """Motions (B,16) whose drawings are nearer to the pictures, and how far these are then, (B,)."""
    target = F.interpolate(pictures.clone(), size=(side, side), mode="area")
    motion = motion.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([motion], rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - (1 - end) * step / steps)
        error = (draw(look, motion, side) - target).square().mean((1, 2, 3)).add(1e-6).sqrt()
        optimizer.zero_grad()
        error.sum().backward()
        optimizer.step()
    return motion.detach(), error.detach()


def correlation(readings: Tensor, truth: Tensor) -> float:
    """Pearson's, over all numbers of both; 0 where one of them does not change."""
    a, b = (x.flatten() - x.mean() for x in (readings, truth))
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))


def by_lag(readings: Tensor, truth: Tensor, lags: Iterable[int]) -> dict[int, float]:
    """`correlation` of readings (...,T) that come so many frames after the truth, or before where a lag is negative."""
    found = {}
    for lag in lags:
        here, there, count = max(0, lag), max(0, -lag), truth.shape[-1] - abs(lag)
        found[lag] = correlation(readings[..., here : here + count], truth[..., there : there + count])
    return found


def _like(pictures: Tensor, *colours: Tensor | tuple[float, float, float]) -> Tensor:
    """How near each pixel is to one of the colours, each (3,) or for every picture (B,3): (B,S,S), 0..1."""
    each = [torch.as_tensor(colour, device=pictures.device).expand(len(pictures), 3) for colour in colours]
    wanted = torch.stack(each, dim=1)[..., None, None]
    distance = (pictures[:, None] - wanted).square().sum(2).amin(1)
    return torch.exp(-distance / (2 * NEAR**2))


def _middle(weights: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    total = weights.sum((1, 2)) + 1e-3
    return (weights * x).sum((1, 2)) / total, (weights * y).sum((1, 2)) / total
