"""Motion read back from pictures of drawn heads by their known colours: what a model is judged by.

Readings are not in the motion's own units: they grow with it, and are to be correlated with it.
"""

import torch
from torch import Tensor

from .people import Look
from .portraits import EYE_WHITE, MOUTH, PUPIL, TEETH, TONGUE

READINGS = ("yaw", "pitch", "roll", "gaze_x", "gaze_y", "blink", "mouth_open")
NEAR = 0.08  # how far a colour may be off, in 0..1
REACH = 0.42  # how far from the middle of the face its features are looked for, in halves of the picture's side
FIXED = {"mouth": MOUTH, "tongue": TONGUE, "teeth": TEETH, "white": EYE_WHITE, "pupil": PUPIL}
OWN = ("skin", "hair", "iris", "lips", "shirt", "background", "frames")


def read(pictures: Tensor, look: Look) -> dict[str, Tensor]:
    """Pictures (B,3,S,S), 0..1, of the people of `look` -> a number (B,) for each name in READINGS."""
    parts = _parts(pictures, look)
    side = pictures.shape[-1]
    line = (2 * torch.arange(side, device=pictures.device) + 1) / side - 1
    x, y = line.expand(side, side), line[:, None].expand(side, side)
    skin = parts["skin"]
    centre_x, centre_y = _middle(skin, x, y)
    from_x, from_y = x - centre_x[:, None, None], y - centre_y[:, None, None]
    near = torch.exp(-(from_x.square() + from_y.square()) / REACH**2)
    upper = near * torch.sigmoid(-(from_y + 0.02) / 0.03)
    lower = near * torch.sigmoid((from_y - 0.06) / 0.03)
    eyes = (parts["white"] + parts["iris"]) * upper
    eye_x, eye_y = _middle(eyes, x, y)
    mouth = (parts["mouth"] + parts["tongue"]) * lower
    left, right = (eyes * (sign * (x - eye_x[:, None, None]) > 0) for sign in (-1, 1))
    (left_x, left_y), (right_x, right_y) = _middle(left, x, y), _middle(right, x, y)
    dark = (parts["iris"] + parts["pupil"]) * upper
    gaze = []
    for one, (middle_x, middle_y) in ((left, (left_x, left_y)), (right, (right_x, right_y))):
        close = _close(x - middle_x[:, None, None], y - middle_y[:, None, None]) * (one.sum((1, 2)) > 0)[:, None, None]
        iris_x, iris_y = _middle(dark * close, x, y)
        white_x, white_y = _middle(parts["white"] * upper * close, x, y)
        gaze.append((iris_x - white_x, white_y - iris_y))
    return {
        "yaw": eye_x - centre_x,
        "pitch": centre_y - eye_y,
        "roll": torch.atan2(right_y - left_y, right_x - left_x),
        "gaze_x": (gaze[0][0] + gaze[1][0]) / 2,
        "gaze_y": (gaze[0][1] + gaze[1][1]) / 2,
        "blink": -eyes.mean((1, 2)),
        "mouth_open": mouth.mean((1, 2)),
    }


def correlation(readings: Tensor, truth: Tensor) -> float:
    """Pearson's, of two sequences (T,)."""
    a, b = readings - readings.mean(), truth - truth.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))


def _parts(pictures: Tensor, look: Look) -> dict[str, Tensor]:
    """How much each pixel has of each colour, (B,S,S), 1 in all; anything else counts as background."""
    fixed = [torch.tensor(colour, device=pictures.device).expand(len(look), 3) for colour in FIXED.values()]
    colours = torch.stack([*fixed, *(getattr(look, name).to(pictures) for name in OWN)], dim=1)
    distance = (pictures[:, None] - colours[:, :, :, None, None]).square().sum(2)
    shares = (-distance / (2 * NEAR**2)).softmax(dim=1)
    return dict(zip((*FIXED, *OWN), shares.unbind(1)))


def _middle(weights: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    total = weights.sum((1, 2)) + 1e-3
    return (weights * x).sum((1, 2)) / total, (weights * y).sum((1, 2)) / total


def _close(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(-(x.square() + y.square()) / 0.13**2)
