"""Drawn portraits: cartoon heads whose motion, and whose flow between any two frames, are known exactly.

A head is a stack of layers. A layer is a shape in coordinates of its own, put on the picture by an affine map that
follows from the motion, so that where any of its points goes in another frame is known in closed form. Everything is
torch over whole batches, on any device: edges are antialiased by distance to the shape, and shading is soft.

Pictures are (B,3,S,S), RGB in 0..1.
Motions are (B,16) in the order of `MOTION`, the values behind its names being 0.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .people import Look, looks
from .shapes import Layer, box, ellipse, per_picture, plain, rotation

# Each about -1..1 with 0 neutral, but 0..1 from open to shut (blink) and from shut to wide open (mouth_open).
MOTION = (
    *("yaw", "pitch", "roll", "x", "y", "scale", "gaze_x", "gaze_y"),
    *("blink", "brows", "mouth_open", "mouth_width", "mouth_round", "smile"),
)
MOTION_SIZE = 16
DEGREES = {"yaw": 40.0, "pitch": 25.0, "roll": 25.0}  # what 1 means
TRAVEL, GROWTH = 0.12, 0.12  # what 1 of x, y and of scale means

# the same in every portrait, so that motion can be read off a picture
MOUTH, TEETH, TONGUE = (0.34, 0.05, 0.11), (0.96, 0.95, 0.93), (0.80, 0.36, 0.40)
EYE_WHITE, PUPIL = (0.97, 0.97, 0.96), (0.05, 0.05, 0.07)

ON_CPU = 8 * 128**2  # pixels drawn at once: what is worked on stays in its caches
HEAD = 0.52  # radius of the ball that the face is drawn on
ZOOM, RAISE = 1.5, 0.08  # the heads are designed smaller and lower than they are shown


def exact(function: Callable) -> Callable:
    """Geometry in the precision of its inputs, where training around it has mixed precision."""

    @functools.wraps(function)
    def without_autocast(look: Look, motion: Tensor, *args, **kwargs):
        with torch.autocast(motion.device.type, enabled=False):
            return function(look, motion, *args, **kwargs)

    return without_autocast


class Head:
    """The layers of portraits with some motion, from the background forward."""

    def __init__(self, look: Look, motion: Tensor):
        self.look, self.count = look, len(motion)
        self.m = dict(zip(MOTION, motion.unbind(1)))
        yaw, pitch, roll = (math.radians(DEGREES[name]) * self.m[name] for name in ("yaw", "pitch", "roll"))
        self.turn = yaw.sin(), yaw.cos(), pitch.sin(), pitch.cos()
        size = 1 + GROWTH * self.m["scale"]
        self.frame = size[:, None, None] * rotation(roll)
        self.centre = torch.stack([TRAVEL * self.m["x"], 0.02 - TRAVEL * self.m["y"]], dim=1)
        self.layers = self._layers()

    def _zeros(self) -> Tensor:
        return torch.zeros_like(self.m["yaw"])

    def _at(self, u, v, lift=0.0, width=1.0, height=1.0, bend=None, depth=None, flat=False):
        """Matrix, offset and bend of a layer at (u, v) of the face, `lift` above the ball or at its own `depth`."""
        u, v = self._zeros() + u, self._zeros() + v
        ball = (HEAD**2 - u**2 - v**2).clamp_min(0.04).sqrt()
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

    def _still(self, x: float = 0.0, y: float = 0.0, follow: float = 0.0):
        """A layer that does not turn with the head, and follows its position by a part."""
        offset = follow * self.centre + torch.tensor([x, y]).to(self.centre)
        return {"matrix": torch.eye(2).to(offset).expand(self.count, 2, 2), "offset": offset, "bend": self._zeros()}

    def _layers(self) -> list[Layer]:
        look = self.look
        skin, shade = look.skin, look.skin * torch.tensor([0.82, 0.74, 0.72]).to(look.skin)
        layers = [
            Layer(**self._still(), cover=lambda x, y: x * 0 - 1, paint=self._gradient(look.background)),
            Layer(
                **self._at(0, 0, depth=-0.16, flat=True),
                cover=lambda x, y: torch.minimum(
                    ellipse(
                        x,
                        y + 0.05,
                        per_picture(look.face_width + look.hair_volume + 0.03),
                        per_picture(0.44 + look.hair_volume),
                    ),
                    box(
                        x,
                        y - 0.1,
                        per_picture(look.face_width + 0.6 * look.hair_volume),
                        per_picture(0.1 + look.hair_length),
                        0.14,
                    ),
                ),
                paint=self._lit(look.hair * 0.82, 0.10),
            ),
            Layer(
                **self._still(0, 1.06, follow=0.35),
                cover=lambda x, y: ellipse(x, y, 0.74, 0.42),
                paint=self._lit(look.shirt, 0.10),
            ),
            Layer(
                **self._still(0, 0.52, follow=0.65),
                cover=lambda x, y: box(x, y, 0.135, 0.22, 0.10),
                paint=lambda x, y: shade[:, :, None, None] * (1 - 0.10 * (0.1 - y).clamp(0, 0.3)[:, None]),
            ),
        ]
        for side in (-1, 1):
            layers.append(
                Layer(
                    **self._at(side * (look.face_width + 0.015), 0.04, depth=0.02, flat=True),
                    cover=lambda x, y: ellipse(x, y, per_picture(0.62 * look.ear_size), per_picture(look.ear_size)),
                    paint=self._lit(shade, 0.06),
                )
            )
        face = Layer(
            **self._at(0, 0, depth=0.07, flat=True),
            cover=lambda x, y: _face(x, y, look),
            paint=self._skin(skin),
        )
        layers.append(face)
        for side in (-1, 1):
            layers.append(
                Layer(
                    **self._at(side * 0.21, 0.15),
                    cover=lambda x, y: ellipse(x, y, 0.055, 0.04),
                    paint=plain(look.lips),
                    opacity=look.blush,
                    softness=0.06,
                    clip=face,
                    solid=False,
                )
            )
        for side in (-1, 1):
            layers += self._eye(side, face)
        layers += self._nose(shade) + self._mouth(face)
        layers.append(self._fringe(face))
        layers += self._glasses()
        return layers

    def _eye(self, side: int, face: Layer) -> list[Layer]:
        look, m = self.look, self.m
        eye = functools.partial(Layer, part="eye")
        u, v = side * look.eye_distance, -0.045
        opened = (1 - 0.94 * m["blink"].clamp(0, 1)) * 0.74
        white = eye(
            **self._at(u, v, width=look.eye_size, height=look.eye_size * opened),
            cover=lambda x, y: ellipse(x, y, 1.0, 1.0),
            paint=lambda x, y: plain(EYE_WHITE, look.skin)(x, y) * (1 - 0.16 * (-y - 0.2).clamp(0, 1)[:, None]),
            clip=face,
        )
        gaze_x, gaze_y = 0.5 * look.eye_size * m["gaze_x"], -0.32 * look.eye_size * m["gaze_y"]
        ball = self._at(u + gaze_x, v + gaze_y, width=look.eye_size, height=look.eye_size)
        clear = lambda x, y: ellipse(x, y, 0.52, 0.52)  # noqa: E731
        return [
            white,
            eye(**ball, cover=clear, paint=plain(look.iris), clip=white),
            eye(**ball, cover=lambda x, y: ellipse(x, y, 0.28, 0.28), paint=plain(PUPIL, look.skin), clip=white),
            eye(
                **ball,
                cover=lambda x, y: ellipse(x + 0.2, y + 0.22, 0.12, 0.12),
                paint=plain((1, 1, 1), look.skin),
                clip=white,
                solid=False,
            ),
            eye(
                **self._at(u, v, width=look.eye_size, height=look.eye_size * opened),
                cover=lambda x, y: torch.maximum(
                    ellipse(x, y, 1.0, 1.0).abs() - 0.10 / per_picture(opened).clamp_min(0.2), y - 0.1
                ),
                paint=plain(look.hair * 0.5),
            ),
            eye(
                **self._at(u, v - 0.135 - 0.035 * m["brows"], bend=self._zeros() + 1.2),
                cover=lambda x, y: box(x, y - 2.4 * x**2, 0.088, per_picture(look.brow_size), 0.014),
                paint=plain(look.hair * 0.8),
            ),
        ]

    def _nose(self, shade: Tensor) -> list[Layer]:
        size = self.look.nose_size
        place = self._at(0, 0.09, lift=0.07)
        return [
            Layer(
                **place,
                cover=lambda x, y: ellipse(x, y, per_picture(size * 0.9), per_picture(size * 0.8)),
                paint=plain(shade),
                softness=0.02,
            ),
            Layer(
                **self._at(0, 0.075, lift=0.09),
                cover=lambda x, y: ellipse(x, y, per_picture(size * 0.62), per_picture(size * 0.6)),
                paint=plain((self.look.skin * 1.04).clamp(0, 1)),
                softness=0.03,
            ),
        ]

    def _mouth(self, face: Layer) -> list[Layer]:
        look, m = self.look, self.m
        mouth = functools.partial(Layer, part="mouth")
        wide = look.mouth_size * (1 + 0.25 * m["mouth_width"] - 0.42 * m["mouth_round"].clamp(0, 1))
        gap = 0.003 + 0.125 * m["mouth_open"].clamp(0, 1)
        lip = look.lip_size * (1 + 0.35 * m["mouth_round"].clamp(0, 1))
        v, bend = 0.255, 2.2 * m["smile"]
        drop = 0.45 * gap  # the jaw opens downwards
        lips = self._at(0, v + drop, lift=0.02, width=wide, height=gap + lip, bend=bend * wide**2 / (gap + lip))
        inner = wide - 0.6 * lip
        hole = self._at(0, v + drop, lift=0.02, width=inner, height=gap, bend=bend * inner**2 / gap)
        opening = mouth(**hole, cover=lambda x, y: ellipse(x, y, 1.0, 1.0), paint=plain(MOUTH, look.skin), clip=face)
        upper = self._at(0, v + drop - gap, lift=0.02, width=inner, height=0.034, bend=bend * inner**2 / 0.034)
        shown = (6 * m["mouth_open"]).clamp(0, 1)
        lower = self._at(0, v + drop + gap, lift=0.02, width=inner, height=0.05, bend=bend * inner**2 / 0.05)
        return [
            mouth(**lips, cover=lambda x, y: ellipse(x, y, 1.0, 1.0), paint=self._lips(), clip=face),
            opening,
            mouth(
                **lower,
                cover=lambda x, y: ellipse(x, y - 0.3, 0.6, 0.9),
                paint=plain(TONGUE, look.skin),
                opacity=shown,
                clip=opening,
            ),
            mouth(
                **upper,
                cover=lambda x, y: box(x, y, 0.72, 0.9, 0.2),
                paint=plain(TEETH, look.skin),
                opacity=shown,
                clip=opening,
            ),
        ]

    def _fringe(self, face: Layer) -> Layer:
        look = self.look

        def cover(x: Tensor, y: Tensor) -> Tensor:
            skull = ellipse(
                x, y + 0.05, per_picture(look.face_width + 0.035), per_picture(0.44 + 0.7 * look.hair_volume)
            )
            side = x / per_picture(look.face_width)
            line = per_picture(look.fringe) + 0.05 * (side - per_picture(look.parting)).abs() + 0.22 * side**4
            return torch.maximum(skull, y - line)

        return Layer(**self._at(0, 0, depth=0.10, flat=True), cover=cover, paint=self._lit(look.hair, 0.14))

    def _glasses(self) -> list[Layer]:
        look = self.look
        glasses = functools.partial(Layer, part="glasses")
        layers = [
            glasses(
                **self._at(side * look.eye_distance, -0.035, lift=0.05),
                cover=lambda x, y: (
                    ellipse(x, y, per_picture(look.eye_size + 0.035), per_picture(look.eye_size + 0.03)).abs() - 0.011
                ),
                paint=plain(look.frames),
                opacity=look.glasses,
            )
            for side in (-1, 1)
        ]
        bridge = glasses(
            **self._at(0, -0.05, lift=0.06),
            cover=lambda x, y: box(
                x, y, per_picture(look.eye_distance - look.eye_size - 0.02).clamp_min(0.02), 0.009, 0.005
            ),
            paint=plain(look.frames),
            opacity=look.glasses,
        )
        return [*layers, bridge]

    def _gradient(self, colour: Tensor) -> Callable:
        return lambda x, y: (colour[:, :, None, None] * (1 - 0.06 * y - 0.04 * x)[:, None]).clamp(0, 1)

    def _lit(self, colour: Tensor, amount: float) -> Callable:
        """Light from the top left."""
        return lambda x, y: (colour[:, :, None, None] * (1 - amount * (1.2 * x + 1.5 * y).clamp(-1, 1))[:, None]).clamp(
            0, 1
        )

    def _skin(self, colour: Tensor) -> Callable:
        def paint(x: Tensor, y: Tensor) -> Tensor:
            a, b = per_picture(self.look.face_width), per_picture(self.look.face_height)
            rim = ((x / a).square() + (y / b).square()).clamp(0, 1.2)
            light = 1.03 - 0.09 * (x / a) - 0.05 * (y / b) - 0.10 * rim**3
            tint = torch.stack([light, light - 0.03 * rim**3, light - 0.04 * rim**3], dim=1)
            return (colour[:, :, None, None] * tint).clamp(0, 1)

        return paint

    def _lips(self) -> Callable:
        return lambda x, y: self.look.lips[:, :, None, None] * (1 + 0.10 * y.clamp(-1, 1))[:, None]


def draw(look: Look, motion: Tensor, size: int) -> Tensor:
    """Looks (B) with motions (B,16) -> pictures (B,3,size,size), RGB in 0..1."""
    return draw_with_layers(look, motion, size)[0]


def compile_drawing() -> None:
    """From now on pictures are drawn in a third of the time, after a minute of compiling for every size of batch; it
    takes what torch.compile does: a C++ compiler, or Triton on a GPU."""
    global _compose
    _compose = torch.compile(_compose, dynamic=False)


@exact
def draw_with_layers(look: Look, motion: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """`draw`, and which layer is seen at each pixel, (B,size,size)."""
    at_once = max(1, ON_CPU // size**2) if motion.device.type == "cpu" else len(motion)
    parts = (slice(start, start + at_once) for start in range(0, len(motion), at_once))
    pictures, seen = zip(*(_compose(look[part], motion[part], size) for part in parts))
    return torch.cat(pictures), torch.cat(seen)


def eyes_and_mouth(seen: Tensor) -> Tensor:
    """Where the layers of `draw_with_layers` are those of eyes or mouth, (B,size,size), True or False."""
    return of_parts(seen, "eye", "mouth")


def of_parts(seen: Tensor, *parts: str) -> Tensor:
    """The same for any parts, see `numbers`."""
    return torch.isin(seen, torch.tensor(numbers(*parts), device=seen.device))


@functools.cache
def numbers(*parts: str) -> list[int]:
    """The numbers of the layers of some parts: "eye" (both), "mouth", "glasses"."""
    layers = Head(looks(1, seed=0), torch.zeros(1, MOTION_SIZE)).layers
    return [number for number, layer in enumerate(layers) if layer.part in parts]


@exact
def flow(
    look: Look, driving: Tensor, source: Tensor, size: int, drawing_size: int = 128
) -> tuple[Tensor, Tensor, Tensor]:
    """For each cell of a driving frame, where the source frame shows the same point of the same thing.

    Two motions (B,16) -> positions (B,size,size,2) as grid_sample takes them (x, y in -1..1, corners not aligned);
    the layer that the driving frame shows, (B,size,size); and the one the source frame shows there, -1 outside. The
    point itself is seen where both are the same.
    """
    layer = draw_with_layers(look, driving, size)[1]
    seen = draw_with_layers(look, source, drawing_size)[1]
    points = positions(len(look), size, driving.device).flatten(2)
    target, found = follow(look, driving, source, points, layer.flatten(1), seen)
    return target.unflatten(1, (size, size)), layer, found.view_as(layer)


@exact
def follow(
    look: Look, driving: Tensor, source: Tensor, points: Tensor, layer: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor]:
    """`flow` of some points (B,2,N) of driving frames, as `positions` has them, from drawings made before.

    layer (B,N): what the driving frames show there; seen (B,S,S): the layers of the sources. Returns where the sources
    show the same, (B,N,2), and their layers there, (B,N), -1 outside.
    """
    target = torch.zeros_like(points)
    for number, (here, there) in enumerate(zip(Head(look, driving).layers, Head(look, source).layers)):
        if here.solid:
            target = torch.where((layer == number)[:, None], there.placed(here.own(points)), target)
    target = (target - torch.tensor([0.0, RAISE]).to(target)[:, None]) * ZOOM
    side = seen.shape[-1]
    pixel = ((target + 1) * side / 2).long().clamp(0, side - 1)
    found = seen.flatten(1).gather(1, pixel[:, 1] * side + pixel[:, 0])
    inside = (target.abs() <= 1).all(dim=1)
    return target.transpose(1, 2), torch.where(inside, found, -1)


def positions(count: int, size: int, device: torch.device) -> Tensor:
    """The centres of a picture's pixels in the coordinates that heads are designed in, (count,2,size,size)."""
    line = (2 * torch.arange(size, device=device) + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x / ZOOM, y / ZOOM + RAISE]).expand(count, -1, -1, -1)


def _compose(look: Look, motion: Tensor, size: int) -> tuple[Tensor, Tensor]:
    head = Head(look, motion)
    grid = positions(head.count, size, head.centre.device)
    picture = torch.zeros(head.count, 3, size, size, device=grid.device)
    seen = torch.zeros(head.count, size, size, dtype=torch.long, device=grid.device)
    covered = {}
    for number, layer in enumerate(head.layers):
        own = layer.own(grid)
        alpha = layer.alpha(own, 2 / size / ZOOM)
        if layer.clip is not None:
            alpha = alpha * covered[id(layer.clip)]
        covered[id(layer)] = alpha
        colour = layer.paint(*own.unbind(1))
        picture = picture + alpha[:, None] * (colour - picture)
        if layer.solid:
            seen = torch.where(alpha > 0.5, number, seen)
    return picture, seen


def _face(x: Tensor, y: Tensor, look: Look) -> Tensor:
    height = per_picture(look.face_height)
    width = per_picture(look.face_width) * (1 - per_picture(look.jaw) * (y / height).clamp(0, 1).square())
    return ellipse(x, y, width, height)
