"""Batches of drawn people to train the avatar's renderer on: every number in them follows from one seed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..drawn.head import MOTION, MOTION_SIZE
from ..drawn.people import Appearance, random_appearances
from ..drawn.portraits import draw_with_layers, part_mask, pixel_centres, track_points

HELD_OUT = 1000  # seeds below this draw people and motions that are never trained on
SPANS = {
    **{"yaw": 0.7, "pitch": 0.6, "roll": 0.5, "x": 0.3, "y": 0.3, "scale": 0.3, "gaze_x": 1.0, "gaze_y": 1.0},
    **{"brows": 1.0, "mouth_width": 1.0, "smile": 1.0},
}
MARGIN = 5  # pixels: the side of the square that counts as near a pixel
SOURCE_POSE = 0.5  # scales the head pose of sources, which face the camera more than driving frames do
HEAD_CHANNELS = slice(0, 6)  # of a motion: yaw, pitch, roll, x, y, scale


@dataclass(frozen=True)
class DrawnBatch:
    """P people with one source image and D driving frames each."""

    appearance: Appearance  # of the frames, (P*D)
    sources: Tensor  # (P,3,S,S)
    source_motion: Tensor  # (P,16)
    source_layers: Tensor  # (P,S,S): the front layer at each pixel
    frames: Tensor  # (P*D,3,S,S)
    motion: Tensor  # (P*D,16)
    layers: Tensor  # (P*D,S,S)

    def mask_near(self, *parts: str) -> Tensor:
        """(P*D,1,S,S): 1 on and around parts of the frames ("eye", "mouth", "glasses"), 0 elsewhere."""
        mask = part_mask(self.layers, *parts).float()[:, None]
        return torch.nn.functional.max_pool2d(mask, MARGIN, stride=1, padding=MARGIN // 2)

    @property
    def drivers(self) -> int:
        return len(self.frames) // len(self.sources)


@dataclass(frozen=True)
class SourceCells:
    """Where Q cells of B driving frames come from in their sources, at one attention level; cells are row-major."""

    queries: Tensor  # (Q,): cells of the frames, the same in all of them
    index: Tensor  # (B,Q): the matching cells of the sources
    visible: Tensor  # (B,Q): 1 where the source shows the same layer, or for eyes and mouth any layer of these
    moving: Tensor  # (B,Q): 1 where the visible cell lies elsewhere in the source
    facial: Tensor  # (B,Q): 1 on eyes and mouth


def random_motion(count: int, random: torch.Generator) -> Tensor:
    """(count,16) of independent values; a quarter of the mouths are shut and three quarters of the eyes open."""
    values = dict.fromkeys(MOTION, torch.zeros(count))
    for name, span in SPANS.items():
        values[name] = span * (2 * torch.rand(count, generator=random) - 1)
    for name, active in (("blink", 0.25), ("mouth_open", 0.75), ("mouth_round", 0.5)):
        values[name] = torch.rand(count, generator=random) * (torch.rand(count, generator=random) < active)
    motion = torch.zeros(count, MOTION_SIZE)
    motion[:, : len(MOTION)] = torch.stack([values[name] for name in MOTION], dim=1)
    return motion


def draw_batch(
    seed: int, people: int, drivers: int, size: int, device: torch.device | str = "cpu", still: bool = False
) -> DrawnBatch:
    """Draws a batch from its seed; training uses seeds of `HELD_OUT` or more.

    still: heads keep the pose of their source, so only eyes and mouths move.
    """
    random = torch.Generator().manual_seed(seed)
    appearance = random_appearances(people, seed).to(device)
    source_motion = random_motion(people, random).to(device)
    source_motion[:, HEAD_CHANNELS] *= SOURCE_POSE
    motion = random_motion(people * drivers, random).to(device)
    if still:
        motion[:, HEAD_CHANNELS] = source_motion.repeat_interleave(drivers, dim=0)[:, HEAD_CHANNELS]
    return draw_pairs(appearance, source_motion, motion, size)


def draw_pairs(appearance: Appearance, source_motion: Tensor, motion: Tensor, size: int) -> DrawnBatch:
    """Draws P people with the motion of their source (P,16) and of their driving frames (P*D,16)."""
    repeated = appearance.repeat_interleave(len(motion) // len(source_motion))
    sources, source_layers = draw_with_layers(appearance, source_motion, size)
    frames, layers = draw_with_layers(repeated, motion, size)
    return DrawnBatch(repeated, sources, source_motion, source_layers, frames, motion, layers)


def source_cells(batch: DrawnBatch, side: int, count: int | None = None, preference: float = 1.0) -> SourceCells:
    """The true source cells of the frames' cells at an attention level of `side` x `side` cells.

    count: draws this many cells at random, those on eyes and mouth `preference` times as often; None takes all. A cell
    stands for its middle pixel.
    """
    step = batch.layers.shape[-1] // side
    middle = slice(step // 2, None, step)
    layers = batch.layers[:, middle, middle].flatten(1)
    facial = part_mask(layers, "eye", "mouth")
    queries = torch.arange(side**2, device=layers.device)
    if count is not None and count < len(queries):
        queries = torch.multinomial(1 + (preference - 1) * facial.float().mean(0), count)
    centres = pixel_centres(len(layers), batch.layers.shape[-1], layers.device)
    points = centres[:, :, middle, middle].flatten(2)[:, :, queries]
    layers, facial = layers[:, queries], facial[:, queries]
    source_motion, source_layers = (
        x.repeat_interleave(batch.drivers, dim=0) for x in (batch.source_motion, batch.source_layers)
    )
    target, found = track_points(batch.appearance, batch.motion, source_motion, points, layers, source_layers)
    column, row = ((target + 1) * side / 2).long().clamp(0, side - 1).unbind(-1)
    index = row * side + column
    # a shut mouth hides the teeth, yet attention should look for them there
    visible = ((layers == found) | facial & part_mask(found, "eye", "mouth")).float()
    moving = visible * (index != queries)
    return SourceCells(queries, index, visible, moving, facial.float())
