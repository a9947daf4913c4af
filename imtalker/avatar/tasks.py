"""What the stages of the avatar's renderer (avatar_renderer.py) are trained by. A batch is a seed, the rest drawn."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..drawn.people import looks
from ..drawn.portraits import MOTION, draw
from ..models.attention import to_tokens
from ..models.config import RendererConfig
from ..models.folding import fold
from ..models.renderer import Renderer
from ..train.forward import attention, render
from ..train.runtime import seed_of
from .batches import HEAD, HELD_OUT, Cells, Drawn, cells, drawn, random_motion
from .muon import Muon

RATE = 2e-3
EQUALISED = {"motion": 10.0, "attention": 5.0, "pictures": 5.0}  # so many times that for equalised layers
MOVING = 4.0  # weight of the cells that are elsewhere in the source
FEATURES = 8.0  # weight of eyes and mouth, as pixels and as cells, and of glasses as pixels
EDGES = 0.5  # weight of the pictures' gradients
# cells of a level whose attention is looked at, drawn anew each time, more at eyes and mouth
QUERIES = {"attention": 256, "pictures": 64}
ATTENDING = 0.03  # weight of the attention while pictures are learned


class MotionTask:
    """Stage 1. A batch is a seed."""

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
        pictures, motion = self.drawn(seed, self.people, still=True)
        deviation = self.deviation.to(motion)
        yield "muon", {"motion": F.smooth_l1_loss(self.encoder(pictures) / deviation, motion / deviation)}

    def drawn(self, seed: int, count: int, still: bool = False) -> tuple[Tensor, Tensor]:
        """Pictures and their motion; `still`: every other head looks straight ahead, in the middle."""
        device = self.encoder.conv1.weight.device
        motion = random_motion(count, torch.Generator().manual_seed(seed)).to(device)
        if still:
            motion[::2, HEAD] = 0
        return draw(looks(count, seed).to(device), motion, self.size), motion

    @torch.no_grad()
    def explained(self, count: int = 128) -> dict[str, float]:
        """How much of each motion value's variance is read off pictures of people never trained on; 1 is all."""
        pictures, motion = self.drawn(1, count)
        error = (self.encoder(pictures) - motion).square().mean(0) / motion.var(0).clamp_min(1e-9)
        return dict(zip(MOTION, (1 - error).tolist()))


class AttentionTask:
    """Stage 2. A batch is a seed."""

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
        batch = drawn(seed, self.people, self.drivers, size, device_of(self.renderer), still=_still(seed))
        seen, true = self.attention(batch)
        yield "muon", {f"attention{level}": missed(a, c) for level, (a, c) in enumerate(zip(seen, true))}

    def attention(self, batch: Drawn, shift: int = 0) -> tuple[list[Tensor], list[Cells]]:
        """Where some cells look at each level, and where they should; `shift`: with the drivers of others."""
        renderer = self.renderer
        _, identity = renderer.identity_encoder(batch.sources)
        repeated = identity.repeat_interleave(self.drivers, dim=0)
        reference = renderer.motion_decoder(renderer.adapter(batch.source_motion, identity))
        driving = renderer.motion_decoder(renderer.adapter(batch.motion.roll(shift, 0), repeated))
        true = asked_cells(batch, renderer.config, QUERIES["attention"])
        seen = []
        for level, some, d, r in zip(renderer.transfer.levels, true, driving, reference):
            keys = level.cross.keys(to_tokens(r)).repeat_interleave(self.drivers, dim=0)
            seen.append(attention(level.cross.queries(to_tokens(d))[:, :, some.asked], keys))
        return seen, true

    @torch.no_grad()
    def leads(self) -> tuple[float, float]:
        """By how much, in nats, moving cells are found better with their own driver than with another's: where heads
        turn, and where only eyes and mouth move."""
        found = []
        for still in (False, True):
            batch = drawn(2, 8, self.drivers, self.renderer.config.output_size, device_of(self.renderer), still)
            scores = []
            for shift in (0, 1):
                seen, true = self.attention(batch, shift)
                each = [missed(a, replace(c, seen=c.moving)) for a, c in zip(seen, true)]
                scores.append(float(sum(each) / len(each)))
            found.append(scores[1] - scores[0])
        return tuple(found)


class PictureTask:
    """Stage 3. A batch is a seed."""

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
        batch = drawn(seed, self.people, self.drivers, size, device_of(self.renderer), still=_still(seed))
        true = asked_cells(batch, self.renderer.config, QUERIES["pictures"])
        frames, seen = frames_of(self.renderer, batch, asked=[each.asked for each in true])
        error = frames - batch.frames
        weights = 1 + (FEATURES - 1) * batch.near("eye", "mouth", "glasses")
        weights = weights / weights.mean()
        across = (error.diff(dim=3).abs() * weights[..., 1:]).mean()
        down = (error.diff(dim=2).abs() * weights[..., 1:, :]).mean()
        looked = sum(missed(a, c) for a, c in zip(seen, true)) / len(seen)
        yield (
            "muon",
            {
                "pixels": (error.abs() * weights).mean(),
                "edges": EDGES * (across + down),
                "attention": ATTENDING * looked,
            },
        )


def frames_of(renderer: Renderer, batch: Drawn, motion: Tensor | None = None, asked: Sequence[Tensor] | None = None):
    """The frames of a batch as the renderer makes them, with its motion or another (B,16); see `render` of forward.py
    for `asked`."""
    features, identity = renderer.identity_encoder(batch.sources)
    features = tuple(x.repeat_interleave(batch.drivers, dim=0) for x in features)
    identity, source_motion = (x.repeat_interleave(batch.drivers, dim=0) for x in (identity, batch.source_motion))
    driving = batch.motion if motion is None else motion
    return render(renderer, features, identity, source_motion, driving, asked)


@torch.no_grad()
def distances(renderer: Renderer, people: int, drivers: int, seed: int = 3) -> list[float]:
    """PSNR in dB of frames of held-out people with their own drivers and with others', and both again at eyes and
    mouth, the head being moved by its own driver each time."""
    batch = drawn(seed, people, drivers, renderer.config.output_size, device_of(renderer))
    others = batch.motion.roll(drivers + 1, 0)
    features = others.clone()
    features[:, HEAD] = batch.motion[:, HEAD]
    near = batch.near("eye", "mouth")
    everywhere = torch.ones_like(near)
    asked = (batch.motion, everywhere), (others, everywhere), (batch.motion, near), (features, near)
    return [psnr(frames_of(renderer, batch, motion), batch.frames, where) for motion, where in asked]


def missed(attention: Tensor, cells: Cells) -> Tensor:
    """Negative log-likelihood, in nats, of the true cells by attention (B,queries,cells).

    Moving ones are weighted more, and those of eyes and mouth.
    """
    weights = cells.seen * (1 + (MOVING - 1) * cells.moving + (FEATURES - 1) * cells.features)
    found = attention.gather(2, cells.index[..., None]).squeeze(-1)
    return -((found + 1e-6).log() * weights).sum() / weights.sum().clamp_min(1)


def asked_cells(batch: Drawn, config: RendererConfig, count: int) -> list[Cells]:
    """So many cells of each attention level: the attention is looked at only there."""
    return [cells(batch, config.side(level), count, FEATURES) for level in range(config.attention_levels)]


def psnr(frames: Tensor, truth: Tensor, where: Tensor | None = None) -> float:
    """Mean over pictures (B,3,S,S), in dB; of some pixels where a mask (B,1,S,S) says which."""
    error = (frames - truth).square().mean(1, keepdim=True)
    where = torch.ones_like(error) if where is None else where
    return float((-10 * ((error * where).sum((1, 2, 3)) / where.sum((1, 2, 3)).clamp_min(1)).log10()).mean())


@torch.no_grad()
def freeze_norms(renderer: Renderer, people: int, batches: int) -> None:
    """Puts the renderer in evaluation mode, the statistics of its norms taken from so many batches of people.

    Normalised by a batch of few people, a picture's colours are only told relative to theirs.
    """
    renderer.train()
    for number in range(batches):
        seed = HELD_OUT + seed_of(4, number)
        frames_of(renderer, drawn(seed, people, 1, renderer.config.output_size, device_of(renderer)))
    renderer.eval()


def ready(renderer: Renderer) -> Renderer:
    """A copy as it is used: in evaluation mode, folded."""
    return fold(copy.deepcopy(renderer).eval())


def _still(seed: int) -> bool:
    """In every other batch: what turning heads do to a picture hides what eyes and mouths do."""
    return seed % 2 == 0


def device_of(renderer: Renderer) -> torch.device:
    return renderer.motion_decoder.const.device


def batches(step: int, process: int, processes: int) -> Iterator[int]:
    """Seeds of `HELD_OUT` or more."""
    while True:
        yield HELD_OUT + seed_of(step, process)
        step += 1
