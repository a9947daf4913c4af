"""What some drawn people have and others have not: glasses, beards, earrings, a bun, a collar, lines of age.

Every part is there for everybody, invisible (opacity 0) on those who have not got it, so layers keep their numbers.
"""

import functools
from typing import Protocol

import torch
from torch import Tensor

from .people import Appearance
from .shapes import Layer, box, ellipse, lit, per_portrait, plain


class Head(Protocol):
    """What is needed of the head that wears something: `drawn.head.Head`."""

    people: Appearance

    def on_face(self, u: Tensor | float, v: Tensor | float, lift: float = 0.0) -> dict: ...

    def on_canvas(self, x: float = 0.0, y: float = 0.0, follow: float = 0.0) -> dict: ...


def glasses(head: Head) -> list[Layer]:
    """Two rims and the bridge between them."""
    people = head.people
    wide, high = per_portrait(people.eye_size + 0.035), per_portrait(people.eye_size + 0.03)
    glasses = functools.partial(Layer, part="glasses", paint=plain(people.glasses_colour), opacity=people.glasses)

    def rim(x: Tensor, y: Tensor) -> Tensor:
        edge = ellipse(x, y, wide, high).lerp(box(x, y, wide, 0.86 * high, 0.05), per_portrait(people.square))
        return edge.abs() - per_portrait(people.rim)

    rims = [glasses(**head.on_face(side * people.eye_distance, -0.035, lift=0.05), cover=rim) for side in (-1, 1)]
    reach = per_portrait(people.eye_distance - people.eye_size - 0.02).clamp_min(0.02)
    return [*rims, glasses(**head.on_face(0, -0.05, lift=0.06), cover=lambda x, y: box(x, y, reach, 0.009, 0.005))]


def beard(head: Head, face: Layer) -> Layer:
    """Chin, jaw and upper lip; the mouth is drawn over it."""

    def cover(x: Tensor, y: Tensor) -> Tensor:
        jaw = 0.30 - 1.9 * x.square() - y
        return torch.minimum(jaw, ellipse(x, y - 0.235, 0.17, 0.075))

    return Layer(
        **head.on_face(0, 0, depth=0.07, flat=True),
        cover=cover,
        paint=lit(head.people.hair * 0.9, 0.10),
        opacity=head.people.beard,
        softness=0.03,
        clip=face,
    )


def lines(head: Head, face: Layer) -> Layer:
    """Folds from the nose to the corners of the mouth, and under the eyes."""
    people = head.people

    def cover(x: Tensor, y: Tensor) -> Tensor:
        fold = ellipse(x.abs(), y - 0.27, 0.20, 0.16).abs() - 0.003
        fold = torch.maximum(fold, torch.maximum(y - 0.25, 0.13 - y))
        bag = ellipse(x.abs() - per_portrait(people.eye_distance), y + 0.045, 0.12, 0.125).abs() - 0.003
        return torch.minimum(fold, torch.maximum(bag, 0.045 - y))

    return Layer(
        **head.on_face(0, 0, depth=0.07, flat=True),
        cover=cover,
        paint=plain(people.skin * torch.tensor([0.72, 0.62, 0.60]).to(people.skin)),
        opacity=(1.4 * people.age - 0.6).clamp(0, 0.7),
        softness=0.008,
        clip=face,
        solid=False,
    )


def earrings(head: Head) -> list[Layer]:
    """One below either ear."""
    people = head.people
    return [
        Layer(
            **head.on_face(side * (people.face_width + 0.02), 0.055 + people.ear_size, depth=0.02, flat=True),
            cover=lambda x, y: ellipse(x, y, 0.022, 0.026),
            paint=lit(people.metal, 0.3),
            opacity=people.earrings,
        )
        for side in (-1, 1)
    ]


def bun(head: Head) -> Layer:
    """A ball of hair on top of the head, seen from the front."""
    people = head.people
    return Layer(
        **head.on_face(0, -0.47 - people.hair_volume, depth=-0.16, flat=True),
        cover=lambda x, y: ellipse(x, y, 0.15, 0.13),
        paint=lit(people.hair * 0.9, 0.5),
        opacity=people.bun,
    )


def collar(head: Head, shirt: Layer) -> Layer:
    """A band of another colour around the neck."""
    return Layer(
        **head.on_canvas(0, 0.52, follow=0.65),
        cover=lambda x, y: box(x, y, 0.18, 0.26, 0.12),
        paint=lit(head.people.trim, 0.10),
        opacity=head.people.collar,
        clip=shirt,
    )
