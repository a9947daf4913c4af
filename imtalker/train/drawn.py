"""Batches of drawn people for the avatar: every number in them follows from one seed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .people import Look, looks
from .portraits import MOTION, MOTION_SIZE, draw, draw_with_layers, eyes_and_mouth, flow

# Drawn from 0 to the first number of seeds: people and motions that nothing is trained on.
HELD_OUT = 1000
SPANS = {
    **{"yaw": 0.7, "pitch": 0.7, "roll": 0.6, "x": 0.5, "y": 0.4, "scale": 0.5, "gaze_x": 1.0, "gaze_y": 1.0},
    **{"brows": 1.0, "mouth_width": 1.0, "smile": 1.0},
}
FEATURES = 4.0  # weight of eyes and mouth in a picture's loss
AROUND = 5  # pixels: how far around eyes and mouth that weight reaches


@dataclass(frozen=True)
class Drawn:
    """Frames of people: P people, one source and D driving frames each."""

    look: Look  # of the frames, (P*D)
    sources: Tensor  # (P,3,S,S)
    source_motion: Tensor  # (P,16)
    frames: Tensor  # (P*D,3,S,S)
    motion: Tensor  # (P*D,16)
    weights: Tensor  # (P*D,1,S,S), more at eyes and mouth, mean 1


@dataclass(frozen=True)
class Cells:
    """Where the cells of driving frames are in their source, at one level of side N."""

    index: Tensor  # (B,N*N), row-major cells of the source
    seen: Tensor  # (B,N*N): 1 where the source shows it
    moving: Tensor  # (B,N*N): 1 where it is seen elsewhere


def random_motion(count: int, random: torch.Generator) -> Tensor:
    """(count,16), each value by itself; a quarter of the mouths shut, three quarters of the eyes open."""
    values = dict.fromkeys(MOTION, torch.zeros(count))
    for name, span in SPANS.items():
        values[name] = span * (2 * torch.rand(count, generator=random) - 1)
    for name, active in (("blink", 0.25), ("mouth_open", 0.75), ("mouth_round", 0.5)):
        values[name] = torch.rand(count, generator=random) * (torch.rand(count, generator=random) < active)
    motion = torch.zeros(count, MOTION_SIZE)
    motion[:, : len(MOTION)] = torch.stack([values[name] for name in MOTION], dim=1)
    return motion


def drawn(seed: int, people: int, drivers: int, size: int, device: torch.device | str = "cpu") -> Drawn:
    """People with a seed of `HELD_OUT` or more are for training."""
    random = torch.Generator().manual_seed(seed)
    look = looks(people, seed).to(device)
    source_motion = random_motion(people, random).to(device)
    motion = random_motion(people * drivers, random).to(device)
    repeated = look.repeat_interleave(drivers)
    frames, seen = draw_with_layers(repeated, motion, size)
    features = eyes_and_mouth(seen).float()[:, None]
    around = torch.nn.functional.max_pool2d(features, AROUND, stride=1, padding=AROUND // 2)
    weights = 1 + (FEATURES - 1) * around
    return Drawn(repeated, draw(look, source_motion, size), source_motion, frames, motion, weights / weights.mean())


def cells(look: Look, source_motion: Tensor, motion: Tensor, side: int) -> Cells:
    """The true flow of frames (B) from their sources, motions (B,16) each, as cells of a level."""
    target, seen = flow(look, motion, source_motion, side, drawing_size=2 * side)
    column, row = ((target + 1) * side / 2).long().clamp(0, side - 1).unbind(-1)
    index = (row * side + column).flatten(1)
    seen = seen.flatten(1).float()
    return Cells(index, seen, seen * (index != torch.arange(side**2, device=index.device)))
