"""Batches of drawn people for the avatar: every number in them follows from one seed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .people import Look, looks
from .portraits import MOTION, MOTION_SIZE, draw, draw_with_layers, eyes_and_mouth, flow

# Drawn from 0 to the first number of seeds: people and motions that nothing is trained on.
HELD_OUT = 1000
SPANS = {
    **{"yaw": 0.7, "pitch": 0.6, "roll": 0.5, "x": 0.3, "y": 0.3, "scale": 0.3, "gaze_x": 1.0, "gaze_y": 1.0},
    **{"brows": 1.0, "mouth_width": 1.0, "smile": 1.0},
}
AROUND = 5  # pixels: the side of what counts as at the eyes or the mouth
CALM = 0.5  # how far the head of a source is from straight ahead, of what that of a frame is
HEAD = slice(0, 6)  # of the motion: angles and place


@dataclass(frozen=True)
class Drawn:
    """Frames of people: P people, one source and D driving frames each."""

    look: Look  # of the frames, (P*D)
    sources: Tensor  # (P,3,S,S)
    source_motion: Tensor  # (P,16)
    frames: Tensor  # (P*D,3,S,S)
    motion: Tensor  # (P*D,16)
    features: Tensor  # (P*D,1,S,S): 1 at eyes and mouth, 0 elsewhere


@dataclass(frozen=True)
class Cells:
    """Where the cells of driving frames are in their source, at one level of side N."""

    index: Tensor  # (B,N*N), row-major cells of the source
    seen: Tensor  # (B,N*N): 1 where the source shows it, or for eyes and mouth another part of them
    moving: Tensor  # (B,N*N): 1 where it is seen elsewhere
    features: Tensor  # (B,N*N): 1 where it is of eyes or mouth


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


def drawn(
    seed: int, people: int, drivers: int, size: int, device: torch.device | str = "cpu", still: bool = False
) -> Drawn:
    """People with a seed of `HELD_OUT` or more are for training. `still`: heads stay as in the source, and only eyes
    and mouths move."""
    random = torch.Generator().manual_seed(seed)
    look = looks(people, seed).to(device)
    source_motion = random_motion(people, random).to(device)
    source_motion[:, HEAD] *= CALM
    motion = random_motion(people * drivers, random).to(device)
    if still:
        motion[:, HEAD] = source_motion.repeat_interleave(drivers, dim=0)[:, HEAD]
    repeated = look.repeat_interleave(drivers)
    frames, seen = draw_with_layers(repeated, motion, size)
    features = eyes_and_mouth(seen).float()[:, None]
    around = torch.nn.functional.max_pool2d(features, AROUND, stride=1, padding=AROUND // 2)
    return Drawn(repeated, draw(look, source_motion, size), source_motion, frames, motion, around)


def cells(look: Look, source_motion: Tensor, motion: Tensor, side: int) -> Cells:
    """The true flow of frames (B) from their sources, motions (B,16) each, as cells of a level."""
    target, layer, found = (x.flatten(1, 2) for x in flow(look, motion, source_motion, side, drawing_size=2 * side))
    column, row = ((target + 1) * side / 2).long().clamp(0, side - 1).unbind(-1)
    index = row * side + column
    # a shut mouth hides the teeth, but they are to be looked for there
    features = eyes_and_mouth(layer)
    seen = ((layer == found) | features & eyes_and_mouth(found)).float()
    moving = seen * (index != torch.arange(side**2, device=index.device))
    return Cells(index, seen, moving, features.float())
