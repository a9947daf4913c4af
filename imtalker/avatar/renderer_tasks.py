"""The training tasks of the avatar's renderer (renderer.py), one per stage. A batch is a seed; the rest is drawn."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..drawn.head import MOTION
from ..drawn.people import random_appearances
from ..drawn.portraits import draw
from ..models.attention import to_tokens
from ..models.config import RendererConfig
from ..models.folding import fold
from ..models.renderer import Renderer
from ..train.forward import attention, render
from ..train.losses import psnr
from ..train.runtime import seed_of
from .batches import HEAD_CHANNELS, HELD_OUT, DrawnBatch, SourceCells, draw_batch, random_motion, source_cells
from .muon import Muon

RATE = 2e-3
EQUALISED = {"motion": 10.0, "attention": 5.0, "pictures": 5.0}  # learning-rate multiplier of equalised layers
MOVING = 4.0  # weight of cells that lie elsewhere in the source
FEATURES = 8.0  # weight of eyes and mouth, as pixels and as cells, and of glasses as pixels
EDGES = 0.5  # weight of image gradients
QUERIES = {"attention": 256, "pictures": 64}  # random cells per level that the attention is trained at
ATTENDING = 0.03  # weight of the attention loss in the last stage
MEASURED_SEED = 3  # of the held-out batch that `held_out_psnr` measures


class MotionTask:
    """Stage 1: the motion encoder regresses the drawings' motion."""

    def __init__(self, renderer: Renderer, people: int):
        self.encoder, self.people = renderer.motion_encoder, people
        self.size = renderer.config.input_size
        self.deviation = random_motion(4096, torch.Generator().manual_seed(0)).std(0).clamp_min(0.05)
        self.optimizer = Muon(self.encoder, RATE, EQUALISED["motion"])

    def modules(self) -> Mapping[str, nn.Module]:
        return {"motion_encoder": self.encoder}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"muon": self.optimizer}

    def losses(self, seed: int) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        images, motion = self.examples(seed, self.people, frontal=True)
        deviation = self.deviation.to(motion)
        yield "muon", {"motion": F.smooth_l1_loss(self.encoder(images) / deviation, motion / deviation)}

    def examples(self, seed: int, count: int, frontal: bool = False) -> tuple[Tensor, Tensor]:
        """Images and their motion; `frontal`: every other head is centred and faces the camera."""
        device = self.encoder.conv1.weight.device
        motion = random_motion(count, torch.Generator().manual_seed(seed)).to(device)
        if frontal:
            motion[::2, HEAD_CHANNELS] = 0
        return draw(random_appearances(count, seed).to(device), motion, self.size), motion

    @torch.no_grad()
    def explained_variance(self) -> dict[str, float]:
        """The share of each motion value's variance that is read off images of held-out people; 1 is all of it."""
        images, motion = self.examples(1, 128)
        error = (self.encoder(images) - motion).square().mean(0) / motion.var(0).clamp_min(1e-9)
        return dict(zip(MOTION, (1 - error).tolist()))


class AttentionTask:
    """Stage 2: the attention learns which source cell each cell of a frame comes from."""

    def __init__(self, renderer: Renderer, people: int, drivers: int):
        self.renderer, self.people, self.drivers = renderer, people, drivers
        self.parts = nn.ModuleList(
            [renderer.identity_encoder, renderer.adapter, renderer.motion_decoder, renderer.transfer]
        )
        self.optimizer = Muon(self.parts, RATE, EQUALISED["attention"])

    def modules(self) -> Mapping[str, nn.Module]:
        return {"parts": self.parts}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"muon": self.optimizer}

    def losses(self, seed: int) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        size = self.renderer.config.input_size
        batch = draw_batch(seed, self.people, self.drivers, size, device_of(self.renderer), _heads_still(seed))
        maps, true = self.attention(batch)
        yield "muon", {f"attention{level}": attention_nll(a, c) for level, (a, c) in enumerate(zip(maps, true))}

    def attention(self, batch: DrawnBatch, shift: int = 0) -> tuple[list[Tensor], list[SourceCells]]:
        """The attention of random cells at each level, and their true source cells; `shift`: use others' drivers."""
        renderer = self.renderer
        _, identity = renderer.identity_encoder(batch.sources)
        repeated = identity.repeat_interleave(self.drivers, dim=0)
        reference = renderer.motion_decoder(renderer.adapter(batch.source_motion, identity))
        driving = renderer.motion_decoder(renderer.adapter(batch.motion.roll(shift, 0), repeated))
        true = sample_cells(batch, renderer.config, QUERIES["attention"])
        maps = []
        for level, cells, d, r in zip(renderer.transfer.levels, true, driving, reference):
            keys = level.cross.keys(to_tokens(r)).repeat_interleave(self.drivers, dim=0)
            maps.append(attention(level.cross.queries(to_tokens(d))[:, :, cells.queries], keys))
        return maps, true

    @torch.no_grad()
    def leads(self) -> tuple[float, float]:
        """How much better, in nats, moving cells are found with their own driver than with another's.

        The first number is for turning heads, the second for heads that only move eyes and mouth.
        """
        leads = []
        for still in (False, True):
            batch = draw_batch(2, 8, self.drivers, self.renderer.config.output_size, device_of(self.renderer), still)
            scores = []
            for shift in (0, 1):
                maps, true = self.attention(batch, shift)
                each = [attention_nll(a, replace(c, visible=c.moving)) for a, c in zip(maps, true)]
                scores.append(float(sum(each) / len(each)))
            leads.append(scores[1] - scores[0])
        return tuple(leads)


class PictureTask:
    """Stage 3: everything but the motion encoder learns by pixels, image gradients and attention."""

    def __init__(self, renderer: Renderer, people: int, drivers: int):
        self.renderer, self.people, self.drivers = renderer, people, drivers
        renderer.motion_encoder.requires_grad_(False)
        self.optimizer = Muon(renderer, RATE, EQUALISED["pictures"])

    def modules(self) -> Mapping[str, nn.Module]:
        return {"renderer": self.renderer}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"muon": self.optimizer}

    def losses(self, seed: int) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        size = self.renderer.config.output_size
        batch = draw_batch(seed, self.people, self.drivers, size, device_of(self.renderer), _heads_still(seed))
        true = sample_cells(batch, self.renderer.config, QUERIES["pictures"])
        frames, maps = render_batch(self.renderer, batch, queries=[cells.queries for cells in true])
        error = frames - batch.frames
        weights = 1 + (FEATURES - 1) * batch.mask_near("eye", "mouth", "glasses")
        weights = weights / weights.mean()
        across = (error.diff(dim=3).abs() * weights[..., 1:]).mean()
        down = (error.diff(dim=2).abs() * weights[..., 1:, :]).mean()
        nll = sum(attention_nll(a, c) for a, c in zip(maps, true)) / len(maps)
        yield (
            "muon",
            {
                "pixels": (error.abs() * weights).mean(),
                "edges": EDGES * (across + down),
                "attention": ATTENDING * nll,
            },
        )


def render_batch(
    renderer: Renderer, batch: DrawnBatch, motion: Tensor | None = None, queries: Sequence[Tensor] | None = None
) -> Tensor | tuple[Tensor, list[Tensor]]:
    """Renders the frames of a batch, with their own motion or another (B,16); `queries` as in `forward.render`."""
    features, identity = renderer.identity_encoder(batch.sources)
    features = tuple(x.repeat_interleave(batch.drivers, dim=0) for x in features)
    identity, source_motion = (x.repeat_interleave(batch.drivers, dim=0) for x in (identity, batch.source_motion))
    driving = batch.motion if motion is None else motion
    return render(renderer, features, identity, source_motion, driving, queries)


@torch.no_grad()
def held_out_psnr(renderer: Renderer, people: int, drivers: int) -> list[float]:
    """PSNR in dB of rendered frames of held-out people: four numbers.

    Of whole frames, with their own drivers and with others'; then at eyes and mouth alone, with their own drivers, and
    with eyes and mouth driven by others while the head keeps its own driver.
    """
    batch = draw_batch(MEASURED_SEED, people, drivers, renderer.config.output_size, device_of(renderer))
    others = batch.motion.roll(drivers + 1, 0)
    others_face = others.clone()
    others_face[:, HEAD_CHANNELS] = batch.motion[:, HEAD_CHANNELS]
    near = batch.mask_near("eye", "mouth")
    cases = (batch.motion, None), (others, None), (batch.motion, near), (others_face, near)
    return [psnr(render_batch(renderer, batch, motion), batch.frames, mask) for motion, mask in cases]


def attention_nll(attention: Tensor, cells: SourceCells) -> Tensor:
    """Negative log-likelihood, in nats, of the true source cells under attention (B,Q,cells).

    The mean over visible cells, with more weight on moving ones and on those of eyes and mouth.
    """
    weights = cells.visible * (1 + (MOVING - 1) * cells.moving + (FEATURES - 1) * cells.facial)
    likelihood = attention.gather(2, cells.index[..., None]).squeeze(-1)
    return -((likelihood + 1e-6).log() * weights).sum() / weights.sum().clamp_min(1)


def sample_cells(batch: DrawnBatch, config: RendererConfig, count: int) -> list[SourceCells]:
    """Draws `count` cells of each attention level, those of eyes and mouth more often."""
    return [source_cells(batch, config.side(level), count, FEATURES) for level in range(config.attention_levels)]


@torch.no_grad()
def freeze_norms(renderer: Renderer, people: int, batches: int) -> None:
    """Measures the norms' statistics over a number of batches of people, then puts the renderer in evaluation mode.

    Normalised within a batch of few people, an image's colours are known only relative to the others'.
    """
    renderer.train()
    for number in range(batches):
        seed = HELD_OUT + seed_of(4, number)
        render_batch(renderer, draw_batch(seed, people, 1, renderer.config.output_size, device_of(renderer)))
    renderer.eval()


def folded_copy(renderer: Renderer) -> Renderer:
    """A copy as it will be used: in evaluation mode, folded."""
    return fold(copy.deepcopy(renderer).eval())


def _heads_still(seed: int) -> bool:
    """True for every other batch: turning heads hide from the loss what eyes and mouths do."""
    return seed % 2 == 0


def device_of(renderer: Renderer) -> torch.device:
    return renderer.motion_decoder.const.device


def batch_seeds(step: int, process: int, processes: int) -> Iterator[int]:
    """The seeds of this process's batches from a step on, all of them `HELD_OUT` or more."""
    while True:
        yield HELD_OUT + seed_of(step, process)
        step += 1
