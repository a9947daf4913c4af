"""Finds the drawn heads of `imtalker/drawn` in a picture: a small network of our own, so no detector is needed.

It learns from drawn heads alone (`imtalker/avatar/finder.py`) and is meant to find nothing else.
"""

import functools
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .crop import CROP_SCALE, Box, Crop, apply_crop

WEIGHTS = Path(__file__).parents[1] / "avatar" / "finder.safetensors"

STRIDE = 8  # pixels from cell to cell
USUAL_SIDE = 48.0  # pixels: predicted sizes are relative to it
LONG_SIDES = (64, 96, 144, 216, 324)  # a picture is searched at these sizes: heads of a tenth of it or more are found
LIKELY, SURE = 0.3, 0.38  # least scores for a second look, and of a head
CLOSE_UP, CLOSE_SIDE = 96, 60.0  # pixels of the picture of a second look, and of the head's square in it
OVERLAP = 0.3  # of two heads, above which the surer one is kept


class Finder(nn.Module):
    """Pictures (B,3,H,W) in 0..1 -> (B,4,H/8,W/8): logit, shift x and y in cells, and log size of a head's square."""

    def __init__(self):
        super().__init__()
        widths, dilations = (3, 16, 24, 32), (1, 2, 4, 1)
        layers = [nn.Conv2d(a, b, 5 if a == 3 else 3, 2, 2 if a == 3 else 1) for a, b in zip(widths, widths[1:])]
        layers += [nn.Conv2d(32, 32, 3, padding=dilation, dilation=dilation) for dilation in dilations]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Conv2d(32, 4, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        cells = 2 * pictures - 1
        for layer in self.layers:
            found = F.silu(layer(cells))
            cells = cells + found if found.shape == cells.shape else found
        return self.head(cells)


@functools.cache
def load_finder() -> Finder:
    from safetensors.torch import load_file

    finder = Finder()
    finder.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return finder.eval().requires_grad_(False)


@torch.inference_mode()
def drawn_heads(image: Tensor, finder: Finder | None = None) -> list[Box]:
    """The drawn heads in a picture (H,W,3), RGB, 0..1, on the CPU, as boxes like SFD's, best score first.

    1.6 x a box is the square in which the head would be drawn.
    """
    finder = finder or load_finder()
    image = image[..., :3].float()
    height, width = image.shape[:2]
    found = []
    for side in LONG_SIDES:
        scale = side / max(height, width)
        size = [max(STRIDE, round(length * scale)) for length in (height, width)]
        small = F.interpolate(image.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)
        found += _boxes(finder(small)[0], width / size[1], height / size[0])
    seen = [_look_again(image, box, finder) for box in _apart(found)]
    return _apart([box for box in seen if box and box.score >= SURE])


def _look_again(image: Tensor, box: Box, finder: Finder) -> Box | None:
    """The head near `box` as the network sees it at the size that it knows best."""
    size = CLOSE_UP / CLOSE_SIDE * CROP_SCALE * box.side
    (x, y), ratio = box.center, size / CLOSE_UP
    corner = x - size / 2, y - size / 2
    close = apply_crop(image[None], Crop(*corner, size, *image.shape[:2]), CLOSE_UP)
    boxes = _boxes(finder(close.permute(0, 3, 1, 2))[0], ratio, ratio, corner)
    return min(boxes, key=lambda other: math.dist(other.center, box.center), default=None)


def _boxes(cells: Tensor, across: float, down: float, corner: tuple[float, float] = (0.0, 0.0)) -> list[Box]:
    """The boxes in the network's answer (4,h,w) for what begins at `corner` and was `across` x `down` times larger."""
    score = cells[0].sigmoid()
    top = F.max_pool2d(score[None], 3, 1, 1)[0]
    boxes = []
    for row, column in ((score >= LIKELY) & (score == top)).nonzero().tolist():
        _, dx, dy, size = cells[:, row, column].tolist()
        x, y = STRIDE * (column + 0.5 + dx), STRIDE * (row + 0.5 + dy)
        half = USUAL_SIDE * math.exp(size) / CROP_SCALE / 2
        left, top_edge = corner[0] + (x - half) * across, corner[1] + (y - half) * down
        boxes.append(
            Box(left, top_edge, left + 2 * half * across, top_edge + 2 * half * down, float(score[row, column]))
        )
    return boxes


def _apart(boxes: list[Box]) -> list[Box]:
    """The boxes, surest first, without those that overlap a surer one."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(_overlap(box, other) < OVERLAP for other in kept):
            kept.append(box)
    return kept


def _overlap(a: Box, b: Box) -> float:
    """The shared area over the smaller one's."""
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(0.0, width) * max(0.0, height) / min(a.area, b.area)
