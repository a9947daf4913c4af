"""The layers of a drawn head, placed by its motion.

A head is a stack of layers. Each layer is a shape in its own coordinates, mapped onto the canvas by an affine transform
that follows from the motion, so where any of its points goes in another frame is known in closed form.

Motions are (B,16): the values named in `MOTION`, then zeros.
"""

import functools
import math
from typing import TypedDict

import torch
from torch import Tensor

from . import wear
from .people import Appearance
from .shapes import Layer, backdrop, box, ellipse, lit, per_portrait, plain, rotation, rounded, striped, waves

# Each about -1..1 with 0 neutral, except 0..1 for blink (open to shut) and mouth_open (shut to wide open).
MOTION = (
    *("yaw", "pitch", "roll", "x", "y", "scale", "gaze_x", "gaze_y"),
    *("blink", "brows", "mouth_open", "mouth_width", "mouth_round", "smile"),
)
MOTION_SIZE = 16
DEGREES = {"yaw": 40.0, "pitch": 25.0, "roll": 25.0}  # the angle at a value of 1
TRAVEL, GROWTH = 0.12, 0.12  # shift at an x or y of 1, and relative growth at a scale of 1

# the same in every portrait, so that motion can be read off an image
MOUTH, TEETH, TONGUE = (0.34, 0.05, 0.11), (0.96, 0.95, 0.93), (0.80, 0.36, 0.40)
EYE_WHITE, PUPIL = (0.97, 0.97, 0.96), (0.05, 0.05, 0.07)

BALL_RADIUS = 0.52  # of the ball that the face is drawn on
OPENING = 0.74  # height of an open eye over its width
EASE = 0.25  # a neutral mouth curves up as one does that smiles this much: straight lips look cross


class Placement(TypedDict):
    """How a layer is mapped onto the canvas; see `Layer`."""

    matrix: Tensor  # (B,2,2)
    offset: Tensor  # (B,2)
    bend: Tensor  # (B,)


class Head:
    """The layers of B portraits with given motions (B,16), from back to front."""

    def __init__(self, people: Appearance, motion: Tensor):
        self.people, self.count = people, len(motion)
        self.values = dict(zip(MOTION, motion.unbind(1)))
        yaw, pitch, roll = (math.radians(DEGREES[name]) * self.values[name] for name in ("yaw", "pitch", "roll"))
        self.turn = yaw.sin(), yaw.cos(), pitch.sin(), pitch.cos()
        size = 1 + GROWTH * self.values["scale"]
        self.frame = size[:, None, None] * rotation(roll)
        self.centre = torch.stack([TRAVEL * self.values["x"], 0.02 - TRAVEL * self.values["y"]], dim=1)
        self.layers = self._layers()

    def _zeros(self) -> Tensor:
        return torch.zeros_like(self.values["yaw"])

    def on_face(
        self,
        u: Tensor | float,
        v: Tensor | float,
        lift: float = 0.0,
        width: Tensor | float = 1.0,
        height: Tensor | float = 1.0,
        bend: Tensor | None = None,
        depth: float | None = None,
        flat: bool = False,
    ) -> Placement:
        """Places a layer at (u, v) of the face, `lift` above the ball or at `depth`; `flat`: no foreshortening."""
        u, v = self._zeros() + u, self._zeros() + v
        ball = (BALL_RADIUS**2 - u**2 - v**2).clamp_min(0.04).sqrt()
        z = ball + lift if depth is None else self._zeros() + depth
        sin_yaw, cos_yaw, sin_pitch, cos_pitch = self.turn
        x = u * cos_yaw + z * sin_yaw
        y = v * cos_pitch - (z * cos_yaw - u * sin_yaw) * sin_pitch
        if flat:
            narrow, short = torch.ones_like(x), torch.ones_like(x)
        else:
            narrow = (cos_yaw - u / ball * sin_yaw).clamp(0.25, 1.3)
            short = (cos_pitch + v / ball * sin_pitch).clamp(0.4, 1.3)
        local = torch.diag_embed(torch.stack([narrow * width, short * height], dim=1))
        offset = self.centre + (self.frame @ torch.stack([x, y], dim=1)[:, :, None])[:, :, 0]
        return {"matrix": self.frame @ local, "offset": offset, "bend": self._zeros() if bend is None else bend}

    def on_canvas(self, x: float = 0.0, y: float = 0.0, follow: float = 0.0) -> Placement:
        """Places a layer that does not turn with the head and moves by a share, `follow`, of the head's shift."""
        offset = follow * self.centre + torch.tensor([x, y]).to(self.centre)
        return {"matrix": torch.eye(2).to(offset).expand(self.count, 2, 2), "offset": offset, "bend": self._zeros()}

    def _layers(self) -> list[Layer]:
        people = self.people
        skin, shade = people.skin, people.skin * torch.tensor([0.82, 0.74, 0.72]).to(people.skin)
        layers = [
            Layer(
                **self.on_canvas(),
                cover=lambda x, y: x * 0 - 1,
                paint=backdrop(people.background, people.background_shade, people.background_angle, people.glow),
            ),
            wear.bun(self),
            Layer(
                **self.on_face(0, 0, depth=-0.16, flat=True),
                cover=lambda x, y: (
                    torch.minimum(
                        ellipse(
                            x,
                            y + 0.05,
                            per_portrait(people.face_width + people.hair_volume + 0.03),
                            per_portrait(0.44 + people.hair_volume),
                        ),
                        box(
                            x,
                            y - 0.1,
                            per_portrait(people.face_width + 0.6 * people.hair_volume),
                            per_portrait(0.1 + people.hair_length),
                            0.14,
                        ),
                    )
                    + waves(x, y, people.curls)
                ),
                paint=lit(people.hair * 0.82, 0.10),
            ),
            shirt := Layer(
                **self.on_canvas(0, 1.06, follow=0.35),
                cover=lambda x, y: ellipse(x, y, 0.74, 0.42),
                paint=striped(people.shirt, people.stripes),
            ),
            wear.collar(self, shirt),
            Layer(
                **self.on_canvas(0, 0.52, follow=0.65),
                cover=lambda x, y: box(x, y, 0.135, 0.22, 0.10),
                paint=lambda x, y: shade[:, :, None, None] * (1 - 0.10 * (0.1 - y).clamp(0, 0.3)[:, None]),
            ),
        ]
        for side in (-1, 1):
            layers.append(
                Layer(
                    **self.on_face(side * (people.face_width + 0.015), 0.04, depth=0.02, flat=True),
                    cover=lambda x, y: ellipse(
                        x, y, per_portrait(0.62 * people.ear_size), per_portrait(people.ear_size)
                    ),
                    paint=lit(shade, 0.06),
                )
            )
        layers += wear.earrings(self)
        face = Layer(
            **self.on_face(0, 0, depth=0.07, flat=True),
            cover=lambda x, y: face_outline(x, y, people),
            paint=rounded(skin, people.face_width, people.face_height),
        )
        layers += [face, wear.beard(self, face), wear.lines(self, face)]
        for side in (-1, 1):
            layers.append(
                Layer(
                    **self.on_face(side * 0.21, 0.15),
                    cover=lambda x, y: ellipse(x, y, 0.055, 0.04),
                    paint=plain(people.lips),
                    opacity=people.blush,
                    softness=0.06,
                    clip=face,
                    solid=False,
                )
            )
        for side in (-1, 1):
            layers += self._eye(side, face)
        layers += self._nose(shade) + self._mouth(face)
        return [*layers, self._fringe(face), *wear.glasses(self)]

    def _eye(self, side: int, face: Layer) -> list[Layer]:
        people, values = self.people, self.values
        eye = functools.partial(Layer, part="eye", clip=face)
        shut, size = values["blink"].clamp(0, 1), people.eye_size
        opened = (1 - 0.94 * shut) * OPENING
        # lids meet below the middle of the eye, in a curve
        u, v, sag = side * people.eye_distance, -0.045, 0.25 * shut
        edge = v + 0.12 * size * shut
        white = eye(
            **self.on_face(u, edge, width=size, height=size * opened, bend=sag / opened),
            cover=lambda x, y: ellipse(x, y, 1.0, 1.0),
            paint=lambda x, y: plain(EYE_WHITE, people.skin)(x, y) * (1 - 0.16 * (-y - 0.2).clamp(0, 1)[:, None]),
        )
        gaze_x, gaze_y = 0.5 * size * values["gaze_x"], -0.32 * size * values["gaze_y"]
        ball = self.on_face(u + gaze_x, v + gaze_y, width=size, height=size)
        return [
            eye(
                **self.on_face(u, v, width=size, height=OPENING * size),
                cover=lambda x, y: ellipse(x, y, 1.0, 1.0),
                paint=plain(people.skin * torch.tensor([0.94, 0.91, 0.90]).to(people.skin)),
            ),
            white,
            eye(**ball, cover=lambda x, y: ellipse(x, y, 0.52, 0.52), paint=plain(people.iris), clip=white),
            eye(**ball, cover=lambda x, y: ellipse(x, y, 0.28, 0.28), paint=plain(PUPIL, people.skin), clip=white),
            eye(
                **ball,
                cover=lambda x, y: ellipse(x + 0.2, y + 0.22, 0.12, 0.12),
                paint=plain((1, 1, 1), people.skin),
                clip=white,
                solid=False,
            ),
            eye(
                **self.on_face(u, edge, width=size, height=size, bend=sag),
                cover=lambda x, y: lash(x, y, per_portrait(opened), per_portrait(shut)),
                paint=plain(people.hair * 0.5),
            ),
            eye(
                **self.on_face(u, v - 0.135 - 0.035 * values["brows"], bend=self._zeros() + 1.2),
                cover=lambda x, y: box(x, y - 2.4 * x**2, 0.088, per_portrait(people.brow_size), 0.014),
                paint=plain(people.hair * 0.8),
            ),
        ]

    def _nose(self, shade: Tensor) -> list[Layer]:
        size = self.people.nose_size
        placement = self.on_face(0, 0.09, lift=0.07)
        return [
            Layer(
                **placement,
                cover=lambda x, y: ellipse(x, y, per_portrait(size * 0.9), per_portrait(size * 0.8)),
                paint=plain(shade * 0.8),
                softness=0.02,
            ),
            Layer(
                **self.on_face(0, 0.075, lift=0.09),
                cover=lambda x, y: ellipse(x, y, per_portrait(size * 0.62), per_portrait(size * 0.6)),
                paint=plain((self.people.skin * 1.04).clamp(0, 1)),
                softness=0.03,
            ),
        ]

    def _mouth(self, face: Layer) -> list[Layer]:
        people, values = self.people, self.values
        mouth = functools.partial(Layer, part="mouth")
        wide = people.mouth_size * (1 + 0.25 * values["mouth_width"] - 0.42 * values["mouth_round"].clamp(0, 1))
        gap = 0.003 + 0.125 * values["mouth_open"].clamp(0, 1)
        lip = people.lip_size * (1 + 0.35 * values["mouth_round"].clamp(0, 1))
        v, bend = 0.255, 2.2 * (values["smile"] + EASE)
        drop = 0.45 * gap  # the jaw opens downwards
        lips = self.on_face(0, v + drop, lift=0.02, width=wide, height=gap + lip, bend=bend * wide**2 / (gap + lip))
        inner = wide - 0.6 * lip
        hole = self.on_face(0, v + drop, lift=0.02, width=inner, height=gap, bend=bend * inner**2 / gap)
        opening = mouth(**hole, cover=lambda x, y: ellipse(x, y, 1.0, 1.0), paint=plain(MOUTH, people.skin), clip=face)
        upper = self.on_face(0, v + drop - gap, lift=0.02, width=inner, height=0.034, bend=bend * inner**2 / 0.034)
        shown = (6 * values["mouth_open"]).clamp(0, 1)
        lower = self.on_face(0, v + drop + gap, lift=0.02, width=inner, height=0.05, bend=bend * inner**2 / 0.05)
        return [
            mouth(
                **lips,
                cover=lambda x, y: ellipse(x, y, 1.0, 1.0),
                paint=lambda x, y: people.lips[:, :, None, None] * (1 + 0.10 * y.clamp(-1, 1))[:, None],
                clip=face,
            ),
            opening,
            mouth(
                **lower,
                cover=lambda x, y: ellipse(x, y - 0.3, 0.6, 0.9),
                paint=plain(TONGUE, people.skin),
                opacity=shown,
                clip=opening,
            ),
            mouth(
                **upper,
                cover=lambda x, y: box(x, y, 0.72, 0.9, 0.2),
                paint=plain(TEETH, people.skin),
                opacity=shown,
                clip=opening,
            ),
        ]

    def _fringe(self, face: Layer) -> Layer:
        people = self.people

        def cover(x: Tensor, y: Tensor) -> Tensor:
            skull = ellipse(
                x, y + 0.05, per_portrait(people.face_width + 0.035), per_portrait(0.44 + 0.7 * people.hair_volume)
            )
            side = x / per_portrait(people.face_width)
            line = per_portrait(people.fringe) + 0.05 * (side - per_portrait(people.parting)).abs() + 0.22 * side**4
            return torch.maximum(skull + waves(x, y, people.curls), y - line)

        return Layer(**self.on_face(0, 0, depth=0.10, flat=True), cover=cover, paint=lit(people.hair, 0.14))


def face_outline(x: Tensor, y: Tensor, people: Appearance) -> Tensor:
    """Signed distance to the edge of the face, in the face's own coordinates."""
    height = per_portrait(people.face_height)
    width = per_portrait(people.face_width) * (1 - per_portrait(people.jaw) * (y / height).clamp(0, 1).square())
    return ellipse(x, y, width, height)


def lash(x: Tensor, y: Tensor, opened: Tensor, shut: Tensor) -> Tensor:
    """Signed distance to the upper edge of an eye of half width 1 and half height `opened`; a thick line when shut."""
    distance = ellipse(x, y, 1.0, opened)
    band = torch.maximum(distance - 0.10, -distance - 0.10 - 2.5 * (shut - 0.8).clamp_min(0))
    return torch.maximum(band, torch.maximum(y - 0.07 - 0.06 * shut, x.abs() - 1.09))
