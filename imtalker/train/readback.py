"""Motion read back from pictures of drawn heads: what a model is judged by.

The head's position and angles are those whose drawing comes nearest; mouth and eyes are then read where that head has
them, by the colours that every drawing shares. `gaze_x` to `mouth_open` grow with the motion without being in its
units, so they are to be correlated with it.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from .people import Look
from .portraits import EYE_WHITE, MOTION, MOTION_SIZE, MOUTH, PUPIL, TONGUE, draw, draw_with_layers, numbers, positions

HEAD = ("yaw", "pitch", "roll", "x", "y", "scale")
READINGS = (*HEAD, "gaze_x", "gaze_y", "blink", "mouth_open")
SIDE, STEPS, RATE = 48, 80, 0.1  # of the search for the head
NEAR = 0.1  # how far a colour may be off, in 0..1


def read(pictures: Tensor, look: Look, head: Tensor | None = None) -> dict[str, Tensor]:
    """Pictures (B,3,S,S), 0..1, of the people of `look` -> numbers (B,) for each name in READINGS.

    head: motions (B,16) with the head's values where these are known; looking for them takes nearly all the time.
    """
    head = find_head(pictures, look) if head is None else head
    open_head = head.clone()
    open_head[:, MOTION.index("mouth_open")] = 1
    size = pictures.shape[-1]
    seen = draw_with_layers(look, open_head, size)[1]
    eyes, mouth = (
        torch.isin(seen, torch.tensor(numbers(part), device=seen.device)).float() for part in ("eye", "mouth")
    )
    dark, white, throat = (_like(pictures, colours) for colours in ((PUPIL,), (EYE_WHITE,), (MOUTH, TONGUE)))
    x, y = positions(len(pictures), size, pictures.device).unbind(1)
    (dark_x, dark_y), (eye_x, eye_y) = _middle(dark * eyes, x, y), _middle((dark + white) * eyes, x, y)
    readings = dict(zip(MOTION, head.unbind(1)))
    return {name: readings[name] for name in HEAD} | {
        "gaze_x": dark_x - eye_x,
        "gaze_y": eye_y - dark_y,
        "blink": -(white * eyes).sum((1, 2)) / eyes.sum((1, 2)).clamp_min(1),
        "mouth_open": (throat * mouth).sum((1, 2)) / mouth.sum((1, 2)).clamp_min(1),
    }


def find_head(pictures: Tensor, look: Look) -> Tensor:
    """Motions (B,16) of which only the head's values are to be relied on; the others help to find these."""
    target = F.interpolate(pictures, size=(SIDE, SIDE), mode="area")
    with torch.inference_mode(False), torch.enable_grad():
        target = target.clone()
        motion = torch.zeros(len(pictures), MOTION_SIZE, device=pictures.device)
        motion[:, MOTION.index("mouth_open")] = 0.2  # shut, it would have no slope
        motion.requires_grad_(True)
        optimizer = torch.optim.Adam([motion], RATE)
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = RATE * (1 - 0.9 * step / STEPS)
            error = (draw(look, motion, SIDE) - target).square().mean((1, 2, 3)).add(1e-6).sqrt()
            optimizer.zero_grad()
            error.sum().backward()
            optimizer.step()
    return motion.detach()


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


def _like(pictures: Tensor, colours: tuple[tuple[float, float, float], ...]) -> Tensor:
    """How near each pixel is to one of the colours, (B,S,S), 0..1."""
    wanted = torch.tensor(colours, device=pictures.device)[None, :, :, None, None]
    distance = (pictures[:, None] - wanted).square().sum(2).amin(1)
    return torch.exp(-distance / (2 * NEAR**2))


def _middle(weights: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    total = weights.sum((1, 2)) + 1e-3
    return (weights * x).sum((1, 2)) / total, (weights * y).sum((1, 2)) / total
