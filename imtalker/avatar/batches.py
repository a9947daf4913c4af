"""Batches of drawn people for the avatar: every number in them follows from one seed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..drawn.people import Look, looks
from ..drawn.portraits import MOTION, MOTION_SIZE, draw_with_layers, eyes_and_mouth, follow, of_parts, positions

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
    source_layers: Tensor  # (P,S,S): what is seen where
    frames: Tensor  # (P*D,3,S,S)
    motion: Tensor  # (P*D,16)
    layers: Tensor  # (P*D,S,S)

    def near(self, *parts: str) -> Tensor:
        """(P*D,1,S,S): 1 at some parts of the frames ("eye", "mouth", "glasses"), 0 elsewhere."""
        found = of_parts(self.layers, *parts).float()[:, None]
        return torch.nn.functional.max_pool2d(found, AROUND, stride=1, padding=AROUND // 2)

    @property
    def drivers(self) -> int:
        return len(self.frames) // len(self.sources)


@dataclass(frozen=True)
class Cells:
    """Where cells of driving frames are in their source, at one level: Q of them, row-major, of all frames the same."""

    asked: Tensor  # (Q,)
    index: Tensor  # (B,Q), cells of the source
    seen: Tensor  # (B,Q): 1 where the source shows it, or for eyes and mouth another part of them
    moving: Tensor  # (B,Q): 1 where it is seen elsewhere
    features: Tensor  # (B,Q): 1 where it is of eyes or mouth


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
    return pairs(look, source_motion, motion, size)


def pairs(look: Look, source_motion: Tensor, motion: Tensor, size: int) -> Drawn:
    """Looks (P) with a source's motion (P,16) and those of some frames each (P*D,16)."""
    repeated = look.repeat_interleave(len(motion) // len(source_motion))
    sources, source_layers = draw_with_layers(look, source_motion, size)
    frames, layers = draw_with_layers(repeated, motion, size)
    return Drawn(repeated, sources, source_motion, source_layers, frames, motion, layers)


def cells(batch: Drawn, side: int, count: int | None = None, preferred: float = 1.0) -> Cells:
    """The true flow of frames from their sources, of cells of a level of some side: of all, or of `count` at random,
    those of eyes and mouth `preferred` times as often. A cell is what its middle pixel shows."""
    step = batch.layers.shape[-1] // side
    middle = slice(step // 2, None, step)
    layer = batch.layers[:, middle, middle].flatten(1)
    features = eyes_and_mouth(layer)
    asked = torch.arange(side**2, device=layer.device)
    if count is not None and count < len(asked):
        asked = torch.multinomial(1 + (preferred - 1) * features.float().mean(0), count)
    points = positions(len(layer), batch.layers.shape[-1], layer.device)[:, :, middle, middle].flatten(2)[:, :, asked]
    layer, features = layer[:, asked], features[:, asked]
    source_motion, source_layers = (
        x.repeat_interleave(batch.drivers, dim=0) for x in (batch.source_motion, batch.source_layers)
    )
    target, found = follow(batch.look, batch.motion, source_motion, points, layer, source_layers)
    column, row = ((target + 1) * side / 2).long().clamp(0, side - 1).unbind(-1)
    index = row * side + column
    # a shut mouth hides the teeth, but they are to be looked for there
    seen = ((layer == found) | features & eyes_and_mouth(found)).float()
    moving = seen * (index != asked)
    return Cells(asked, index, seen, moving, features.float())
