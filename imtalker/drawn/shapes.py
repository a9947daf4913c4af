"""Shapes, and how they are put on a picture: the parts of drawn portraits (portraits.py).

x and y of a shape are (B,S,S), in the shape's own coordinates; sizes are numbers, or one for each picture as (B,1,1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """A shape put on the picture: position = matrix @ (x, y - bend x^2) + offset for its own coordinates (x, y)."""

    matrix: Tensor  # (B,2,2)
    offset: Tensor  # (B,2)
    bend: Tensor  # (B,)
    cover: Callable[[Tensor, Tensor], Tensor]  # own x, y (B,S,S) -> distance to the edge, negative inside
    paint: Callable[[Tensor, Tensor], Tensor]  # own x, y -> colour (B,3,S,S), or (B,3,1,1)
    opacity: Tensor | float = 1.0
    softness: float = 0.0  # width of the edge beyond a pixel, in own units
    clip: "Layer | None" = None  # nothing is seen outside this one
    solid: bool = True  # whether the flow follows this layer
    part: str = ""  # "eye", "mouth" or "glasses" where it belongs to one

    def own(self, positions: Tensor) -> Tensor:
        """Positions (B,2,S,S) on the picture -> in the layer's own coordinates."""
        shape = positions.shape
        x, y = (torch.linalg.inv(self.matrix) @ (positions.flatten(2) - self.offset[:, :, None])).unbind(1)
        return torch.stack([x, y + self.bend[:, None] * x.square()], dim=1).view(shape)

    def placed(self, own: Tensor) -> Tensor:
        """The inverse of `own`."""
        x, y = own.flatten(2).unbind(1)
        flat = torch.stack([x, y - self.bend[:, None] * x.square()], dim=1)
        return (self.matrix @ flat + self.offset[:, :, None]).view(own.shape)

    def alpha(self, own: Tensor, pixel: float) -> Tensor:
        """How much of each pixel the layer covers but for its clip, (B,S,S); `pixel` is the side of one."""
        width = pixel / self.matrix.det().abs().sqrt().clamp_min(1e-3)[:, None, None] + self.softness
        return (0.5 - self.cover(*own.unbind(1)) / width).clamp(0, 1) * per_picture(self.opacity)


def per_picture(value: Tensor | float) -> Tensor | float:
    """A number for each picture, (B,), as (B,1,1)."""
    return value[:, None, None] if isinstance(value, Tensor) else value


def plain(colour: Tensor | tuple, like: Tensor | None = None) -> Callable:
    values = colour if isinstance(colour, Tensor) else torch.tensor(colour).to(like)[None]
    return lambda x, y: values[:, :, None, None]


def rotation(angle: Tensor) -> Tensor:
    """Positive turns the top of the head to the picture's right."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)


def ellipse(x: Tensor, y: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """About the distance to an ellipse with half axes a and b, exact at the edge."""
    px, py = x / a, y / b
    radius = (px.square() + py.square() + 1e-8).sqrt()
    slope = ((px / a).square() + (py / b).square() + 1e-8).sqrt() / radius
    return (radius - 1) / slope


def box(x: Tensor, y: Tensor, a: Tensor | float, b: Tensor | float, corner: float) -> Tensor:
    """Distance to a box with half sides a and b and round corners."""
    dx, dy = x.abs() - a + corner, y.abs() - b + corner
    outside = (dx.clamp_min(0).square() + dy.clamp_min(0).square() + 1e-12).sqrt()
    return outside + torch.maximum(dx, dy).clamp_max(0) - corner
