"""Layers, shapes and paints: what a drawn head (head.py) is made of.

Shapes and paints take x and y (B,S,S) in the layer's own coordinates; sizes are numbers, or one per portrait (B,1,1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """A shape placed on the canvas: its own point (x, y) is drawn at matrix @ (x, y - bend x^2) + offset."""

    matrix: Tensor  # (B,2,2)
    offset: Tensor  # (B,2)
    bend: Tensor  # (B,)
    cover: Callable[[Tensor, Tensor], Tensor]  # own x, y (B,S,S) -> signed distance to the edge, negative inside
    paint: Callable[[Tensor, Tensor], Tensor]  # own x, y -> colour (B,3,S,S), or (B,3,1,1)
    opacity: Tensor | float = 1.0
    softness: float = 0.0  # width of the soft edge beyond one pixel, in own units
    clip: "Layer | None" = None  # this layer shows only inside that one
    solid: bool = True  # False: highlights and blush, which optical flow ignores
    part: str = ""  # "eye", "mouth", "glasses" or none

    def to_own(self, positions: Tensor) -> Tensor:
        """Maps canvas positions (B,2,...) to the layer's own coordinates."""
        shape = positions.shape
        x, y = (torch.linalg.inv(self.matrix) @ (positions.flatten(2) - self.offset[:, :, None])).unbind(1)
        return torch.stack([x, y + self.bend[:, None] * x.square()], dim=1).view(shape)

    def to_canvas(self, own: Tensor) -> Tensor:
        """Maps own coordinates (B,2,...) to canvas positions; the inverse of `to_own`."""
        x, y = own.flatten(2).unbind(1)
        flat = torch.stack([x, y - self.bend[:, None] * x.square()], dim=1)
        return (self.matrix @ flat + self.offset[:, :, None]).view(own.shape)

    def alpha(self, own: Tensor, pixel: float) -> Tensor:
        """The layer's coverage of each pixel before clipping, (B,S,S) in 0..1; `pixel` is the side of a pixel."""
        width = pixel / self.matrix.det().abs().sqrt().clamp_min(1e-3)[:, None, None] + self.softness
        return (0.5 - self.cover(*own.unbind(1)) / width).clamp(0, 1) * per_portrait(self.opacity)


def per_portrait(value: Tensor | float) -> Tensor | float:
    """Reshapes one number per portrait, (B,), to (B,1,1) for broadcasting."""
    return value[:, None, None] if isinstance(value, Tensor) else value


def plain(colour: Tensor | tuple, like: Tensor | None = None) -> Callable:
    """A paint of one colour: (B,3), or a tuple put on the device and in the precision of `like`."""
    values = colour if isinstance(colour, Tensor) else torch.tensor(colour).to(like)[None]
    return lambda x, y: values[:, :, None, None]


def backdrop(colour: Tensor, other: Tensor, angle: Tensor, glow: Tensor) -> Callable:
    """A paint that fades from one colour (B,3) to another along `angle` (B,), in radians; `glow` (B,): light above."""

    def paint(x: Tensor, y: Tensor) -> Tensor:
        along = (0.5 + 0.5 * (x * per_portrait(angle.cos()) + y * per_portrait(angle.sin()))).clamp(0, 1)[:, None]
        light = 1 + per_portrait(glow) * torch.exp(-2 * (x.square() + (y + 0.5).square()))
        return (colour[:, :, None, None].lerp(other[:, :, None, None], along) * light[:, None]).clamp(0, 1)

    return paint


def striped(colour: Tensor, depth: Tensor) -> Callable:
    """A paint of one colour (B,3), lit from the top left, with upright stripes darker by `depth` (B,)."""
    return lambda x, y: (
        lit(colour, 0.10)(x, y) * (1 - per_portrait(depth) * (0.5 + 1.5 * (60 * x).sin()).clamp(0, 1))[:, None]
    )


def waves(x: Tensor, y: Tensor, height: Tensor) -> Tensor:
    """Curls for the edge of a shape around the origin: a signed distance to add, `height` (B,) at most."""
    return per_portrait(height) * (18 * torch.atan2(x, y)).sin()


def lit(colour: Tensor, amount: float) -> Callable:
    """A paint of one colour (B,3), lit from the top left."""
    return lambda x, y: (colour[:, :, None, None] * (1 - amount * (1.2 * x + 1.5 * y).clamp(-1, 1))[:, None]).clamp(
        0, 1
    )


def rounded(colour: Tensor, width: Tensor, height: Tensor) -> Callable:
    """A paint of one colour (B,3) shaded like a ball with half axes width and height (B,), redder towards the rim."""

    def paint(x: Tensor, y: Tensor) -> Tensor:
        a, b = per_portrait(width), per_portrait(height)
        rim = ((x / a).square() + (y / b).square()).clamp(0, 1.2)
        light = 1.03 - 0.09 * (x / a) - 0.05 * (y / b) - 0.10 * rim**3
        tint = torch.stack([light, light - 0.03 * rim**3, light - 0.04 * rim**3], dim=1)
        return (colour[:, :, None, None] * tint).clamp(0, 1)

    return paint


def rotation(angle: Tensor) -> Tensor:
    """Rotation matrices (B,2,2); a positive angle tilts the top of the head to the image's right."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)


def ellipse(x: Tensor, y: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """Approximate signed distance to an ellipse with half axes a and b; exact at the edge."""
    px, py = x / a, y / b
    radius = (px.square() + py.square() + 1e-8).sqrt()
    slope = ((px / a).square() + (py / b).square() + 1e-8).sqrt() / radius
    return (radius - 1) / slope


def box(x: Tensor, y: Tensor, a: Tensor | float, b: Tensor | float, corner: float) -> Tensor:
    """Signed distance to a box with half sides a and b and rounded corners."""
    dx, dy = x.abs() - a + corner, y.abs() - b + corner
    outside = (dx.clamp_min(0).square() + dy.clamp_min(0).square() + 1e-12).sqrt()
    return outside + torch.maximum(dx, dy).clamp_max(0) - corner
