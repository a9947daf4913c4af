"""Drawn portraits: cartoon heads whose motion, and whose optical flow between any two frames, are known exactly.

Everything is torch over whole batches, on any device: edges are antialiased by the distance to the shape, and shading
is soft. Images are (B,3,S,S), RGB in 0..1. Motions are (B,16), see head.py.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from .head import MOTION_SIZE, Head
from .people import Appearance, random_appearances

PIXELS_ON_CPU = 8 * 128**2  # drawn at a time on a CPU, so that the working set fits its caches
ZOOM, RAISE = 1.5, 0.08  # heads are designed smaller and lower than they are shown


def full_precision(function: Callable) -> Callable:
    """Runs geometry in the precision of its inputs, even inside mixed-precision training."""

    @functools.wraps(function)
    def without_autocast(appearance: Appearance, motion: Tensor, *args, **kwargs):
        with torch.autocast(motion.device.type, enabled=False):
            return function(appearance, motion, *args, **kwargs)

    return without_autocast


def draw(appearance: Appearance, motion: Tensor, size: int) -> Tensor:
    """Draws B people with their motions (B,16): images (B,3,size,size), RGB in 0..1."""
    return draw_with_layers(appearance, motion, size)[0]


def compile_drawing() -> None:
    """Compiles the drawing: three times as fast, after a minute of compiling for each batch size.

    Needs what torch.compile needs: a C++ compiler, or Triton on a GPU.
    """
    global _compose
    _compose = torch.compile(_compose, dynamic=False)


@full_precision
def draw_with_layers(appearance: Appearance, motion: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Like `draw`, and also returns the index of the front layer at each pixel, (B,size,size)."""
    count = max(1, PIXELS_ON_CPU // size**2) if motion.device.type == "cpu" else len(motion)
    parts = (slice(start, start + count) for start in range(0, len(motion), count))
    images, layers = zip(*(_compose(appearance[part], motion[part], size) for part in parts))
    return torch.cat(images), torch.cat(layers)


def part_mask(layers: Tensor, *parts: str) -> Tensor:
    """Marks where the front layers, as `draw_with_layers` returns them, belong to one of the parts of `part_layers`."""
    return torch.isin(layers, torch.tensor(part_layers(*parts), device=layers.device))


@functools.cache
def part_layers(*parts: str) -> list[int]:
    """The indices of the layers that belong to the parts: "eye" (both eyes), "mouth", "glasses"."""
    layers = Head(random_appearances(1, seed=0), torch.zeros(1, MOTION_SIZE)).layers
    return [index for index, layer in enumerate(layers) if layer.part in parts]


@full_precision
def track_points(
    appearance: Appearance, driving: Tensor, source: Tensor, points: Tensor, layers: Tensor, source_layers: Tensor
) -> tuple[Tensor, Tensor]:
    """Finds where the source frame shows the points that driving frames show: the true optical flow.

    driving, source: motions (B,16). points (B,2,N): canvas positions in the driving frames, as `pixel_centres` returns
    them; layers (B,N): the driving frames' front layers there; source_layers (B,S,S): the source frames' front layers.
    Returns positions (B,N,2) as grid_sample takes them (x, y in -1..1, corners not aligned), and the source's front
    layers there, (B,N), -1 outside the image. A point is visible in the source where these equal `layers`.
    """
    target = torch.zeros_like(points)
    for index, (here, there) in enumerate(zip(Head(appearance, driving).layers, Head(appearance, source).layers)):
        if here.solid:
            target = torch.where((layers == index)[:, None], there.to_canvas(here.to_own(points)), target)
    target = (target - torch.tensor([0.0, RAISE]).to(target)[:, None]) * ZOOM
    side = source_layers.shape[-1]
    pixel = ((target + 1) * side / 2).long().clamp(0, side - 1)
    found = source_layers.flatten(1).gather(1, pixel[:, 1] * side + pixel[:, 0])
    inside = (target.abs() <= 1).all(dim=1)
    return target.transpose(1, 2), torch.where(inside, found, -1)


def pixel_centres(count: int, size: int, device: torch.device) -> Tensor:
    """The canvas positions of the pixels of a size x size image, (count,2,size,size)."""
    line = (2 * torch.arange(size, device=device) + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x / ZOOM, y / ZOOM + RAISE]).expand(count, -1, -1, -1)


def _compose(appearance: Appearance, motion: Tensor, size: int) -> tuple[Tensor, Tensor]:
    head = Head(appearance, motion)
    grid = pixel_centres(head.count, size, head.centre.device)
    image = torch.zeros(head.count, 3, size, size, device=grid.device)
    front = torch.zeros(head.count, size, size, dtype=torch.long, device=grid.device)
    coverage = {}
    for index, layer in enumerate(head.layers):
        own = layer.to_own(grid)
        alpha = layer.alpha(own, 2 / size / ZOOM)
        if layer.clip is not None:
            alpha = alpha * coverage[id(layer.clip)]
        coverage[id(layer)] = alpha
        colour = layer.paint(*own.unbind(1))
        image = image + alpha[:, None] * (colour - image)
        if layer.solid:
            front = torch.where(alpha > 0.5, index, front)
    return image, front
