"""Who a drawn portrait shows: colours, sizes and accessories, drawn at random from a seed."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

SKINS = (
    (0.98, 0.85, 0.74),
    (0.95, 0.77, 0.63),
    (0.88, 0.67, 0.50),
    (0.76, 0.54, 0.38),
    (0.59, 0.40, 0.28),
    (0.43, 0.29, 0.21),
)
HAIRS = (
    *((0.16, 0.12, 0.11), (0.33, 0.20, 0.13), (0.55, 0.33, 0.17), (0.85, 0.66, 0.36), (0.66, 0.28, 0.14)),
    *((0.72, 0.72, 0.75), (0.86, 0.42, 0.55), (0.28, 0.42, 0.68), (0.25, 0.55, 0.50)),
)
IRISES = ((0.30, 0.19, 0.12), (0.22, 0.42, 0.62), (0.26, 0.48, 0.32), (0.45, 0.38, 0.20), (0.38, 0.46, 0.52))
SHIRTS = (
    (0.20, 0.36, 0.58),
    (0.70, 0.25, 0.25),
    (0.24, 0.50, 0.38),
    (0.92, 0.72, 0.28),
    (0.48, 0.34, 0.60),
    (0.90, 0.90, 0.88),
)
FRAMES = (
    *((0.15, 0.13, 0.14), (0.55, 0.18, 0.16), (0.20, 0.28, 0.45)),
    *((0.36, 0.22, 0.12), (0.72, 0.58, 0.28), (0.52, 0.54, 0.58)),
)
METALS = ((0.90, 0.76, 0.36), (0.84, 0.84, 0.88))
GREY = (0.80, 0.80, 0.82)
BACKGROUNDS = (
    (0.78, 0.86, 0.90),
    (0.95, 0.87, 0.76),
    (0.82, 0.88, 0.78),
    (0.88, 0.82, 0.90),
    (0.62, 0.72, 0.80),
    (0.94, 0.80, 0.78),
)


@dataclass(frozen=True)
class Appearance:
    """What B people look like: colours (B,3) in 0..1, everything else (B,)."""

    skin: Tensor
    hair: Tensor
    iris: Tensor
    lips: Tensor
    shirt: Tensor
    background: Tensor
    glasses_colour: Tensor
    face_width: Tensor
    face_height: Tensor
    jaw: Tensor  # how much the face narrows towards the chin
    eye_size: Tensor
    eye_distance: Tensor
    brow_size: Tensor
    nose_size: Tensor
    mouth_size: Tensor
    lip_size: Tensor
    ear_size: Tensor
    hair_volume: Tensor
    hair_length: Tensor
    fringe: Tensor  # how far the hair comes down the forehead
    parting: Tensor  # where the fringe parts, in half widths of the face
    glasses: Tensor  # 0 or 1
    blush: Tensor
    age: Tensor  # 0..1: lines, and grey hair from 0.6 on
    beard: Tensor  # opacity
    curls: Tensor  # height of the waves in the hair's outline
    bun: Tensor  # 0 or 1
    square: Tensor  # glasses: 0 round to 1 rectangular
    rim: Tensor  # half the thickness of the glasses' frame
    earrings: Tensor  # 0 or 1
    metal: Tensor  # (B,3): their colour
    collar: Tensor  # 0 or 1
    trim: Tensor  # (B,3): its colour
    stripes: Tensor  # how much darker the shirt's stripes are
    background_shade: Tensor  # (B,3): the colour that the background fades to
    background_angle: Tensor  # in this direction, radians
    glow: Tensor  # how much lighter it is behind the head

    def __len__(self) -> int:
        return len(self.skin)

    def __getitem__(self, index) -> "Appearance":
        """The people selected by an index tensor or a slice."""
        return Appearance(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> "Appearance":
        return Appearance(*(getattr(self, f.name).to(device) for f in fields(self)))

    def repeat_interleave(self, times: int) -> "Appearance":
        """Repeats each person `times` times in a row."""
        return Appearance(*(getattr(self, f.name).repeat_interleave(times, dim=0) for f in fields(self)))


def random_appearances(count: int, seed: int) -> Appearance:
    """Makes up `count` people; the same seed gives the same people."""
    random = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=random)

    def colour(palette: tuple, spread: float) -> Tensor:
        picked = torch.tensor(palette)[torch.randint(len(palette), (count,), generator=random)]
        return (picked + spread * (2 * torch.rand(count, 3, generator=random) - 1)).clamp(0.03, 0.98)

    def some(share: float) -> Tensor:
        return (torch.rand(count, generator=random) < share).float()

    skin = colour(SKINS, 0.02)
    rosy = skin * torch.tensor([0.86, 0.52, 0.52]) + torch.tensor([0.06, 0.0, 0.01])
    people = dict(
        skin=skin,
        hair=colour(HAIRS, 0.03),
        iris=colour(IRISES, 0.03),
        lips=(rosy + 0.04 * (2 * torch.rand(count, 3, generator=random) - 1)).clamp(0, 1),
        shirt=colour(SHIRTS, 0.05),
        background=colour(BACKGROUNDS, 0.04),
        glasses_colour=colour(FRAMES, 0.03),
        face_width=uniform(0.36, 0.42),
        face_height=uniform(0.46, 0.52),
        jaw=uniform(0.10, 0.34),
        eye_size=uniform(0.105, 0.130),
        eye_distance=uniform(0.165, 0.190),
        brow_size=uniform(0.014, 0.030),
        nose_size=uniform(0.040, 0.062),
        mouth_size=uniform(0.150, 0.185),
        lip_size=uniform(0.022, 0.036),
        ear_size=uniform(0.07, 0.10),
        hair_volume=uniform(0.03, 0.13),
        hair_length=uniform(-0.15, 0.55),
        fringe=uniform(-0.36, -0.22),
        parting=uniform(-0.7, 0.7),
        glasses=some(0.25),
        blush=uniform(0.0, 0.5),
        age=uniform(0.0, 1.0),
        beard=some(0.15) * uniform(0.25, 0.6),
        curls=some(0.3) * uniform(0.004, 0.012),
        bun=some(0.15),
        square=uniform(0.0, 1.0),
        rim=uniform(0.010, 0.014),
        earrings=some(0.2),
        metal=colour(METALS, 0.03),
        collar=some(0.5),
        trim=colour(SHIRTS, 0.05),
        stripes=some(0.3) * uniform(0.1, 0.3),
        background_angle=uniform(-math.pi, math.pi),
        glow=uniform(0.0, 0.12),
    )
    grey = ((people["age"] - 0.6) / 0.4).clamp(0, 0.85)[:, None]
    people["hair"] = people["hair"].lerp(torch.tensor(GREY), grey)
    people["background_shade"] = people["background"] * uniform(0.8, 1.0)[:, None]
    return Appearance(**people)
