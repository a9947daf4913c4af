"""The avatar's renderer: trained on drawn portraits, whose true motion is its motion latent.

Naive training does not follow its driver: pictures are explained long before the attention, at first uniform, says
anything. So there are three stages, each with a gate that stops a run that is dead:

1. motion: the motion encoder reads the drawings' motion off their pictures.
2. attention: adapter, motion decoder and transfer learn where each cell of a frame comes from, which the drawings
   know. Nothing is rendered, so this is cheap.
3. pictures: all but the motion encoder, by pixels, their gradients, and still the attention.
"""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..drawn.portraits import MOTION_SIZE
from ..errors import InputError
from ..models.config import RendererConfig
from ..models.renderer import Renderer
from ..train.initialise import new_renderer, settle, shallow, standardise
from ..train.loop import Settings, Task, Training
from ..weights.checkpoints import load_renderer, save_weights
from .batches import HELD_OUT, drawn
from .tasks import AttentionTask, MotionTask, PictureTask, batches, distances, freeze_norms, ready

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("imtalker")

CONFIG = RendererConfig(
    "v2",
    input_size=128,
    channels=(64, 64, 32, 16),
    attention_levels=3,
    motion_size=MOTION_SIZE,
    identity_size=64,
    motion_channels=(8, 16, 32, 48, 64, 96, 128, 128),  # halved down to one cell: a mean over cells forgets positions
    heads=2,
)
SHARES = {"motion": 0.2, "attention": 0.25, "pictures": 0.55}  # of the minutes
EXPLAINED = 0.8  # of each motion value's variance, before the motion encoder is good enough
LEAD = 0.5  # nats by which moving cells are found better with their own driver than with another's
FOLLOWED = 1.0  # dB by which frames are nearer with their own driver than with another's
EARLY = 0.1  # share of the last stage by which that must be so
JUDGED = 120.0  # seconds between two looks at that
CALIBRATION, CALIBRATED_ON = 20, 16  # batches, and people in each, that the norms' statistics are taken from


@dataclass
class RendererRecipe:
    """Trains in `folder`, where the same recipe goes on; `people` with `drivers` frames each are a batch.

    Where a gate is not passed InputError says so; without `gated` only the log does. `start`: the file of an avatar's
    renderer to go on from, in place of random weights. `stages`: names of SHARES, the minutes are theirs.
    """

    folder: Path
    minutes: float
    fabric: "Fabric"
    people: int = 6
    drivers: int = 2
    gated: bool = True
    config: RendererConfig = CONFIG
    start: Path | None = None
    stages: tuple[str, ...] = tuple(SHARES)

    def run(self) -> Path | None:
        """The trained renderer's file, in float16, or None where training was stopped before its end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.renderer = self._begin().to(self.fabric.device)
        for name in SHARES:
            if name in self.stages and not getattr(self, name)():
                return None
        path = self.folder / "renderer.safetensors"
        if self.fabric.global_rank == 0:
            save_weights(self.renderer, path, torch.float16)
        return path

    def _begin(self) -> Renderer:
        if self.start is None:
            return new_renderer(self.config)
        renderer = load_renderer(self.start)
        if renderer.config != self.config:
            raise InputError(f"{self.start} is a renderer of another size than the avatar's: {renderer.config}")
        return renderer.requires_grad_(True).train()

    def motion(self) -> bool:
        task = MotionTask(self.renderer, 5 * self.people)
        if self.start is None:
            pictures, motion = task.drawn(HELD_OUT, 64)
            settle(self.renderer.motion_encoder, lambda: self.renderer.motion_encoder(pictures), 0.3 * motion.std(0))

        def watch(step: int, means: dict[str, float]) -> None:
            log.info("explained: %s", "  ".join(f"{name} {share:.2f}" for name, share in task.explained().items()))

        if not self._train("motion", task, self.renderer.motion_encoder, watch):
            return False
        poor = [f"{name} {share:.2f}" for name, share in task.explained().items() if share < EXPLAINED]
        self._gate(not poor, f"the motion encoder explains too little of {', '.join(poor)}; {EXPLAINED} is wanted")
        return True

    def attention(self) -> bool:
        task = AttentionTask(self.renderer, self.people + 1, 3 * self.drivers)
        if self.start is None:
            self._spread()

        def watch(step: int, means: dict[str, float]) -> None:
            told = "own driver ahead of others' by %.2f nats where heads turn, by %.2f where they do not"
            log.info(told, *task.leads())

        if not self._train("attention", task, task.parts, watch):
            return False
        lead, _ = task.leads()
        self._gate(lead >= LEAD, f"the attention does not follow the driver: {lead:.2f} nats, {LEAD} are wanted")
        return True

    def pictures(self) -> bool:
        if self.start is None:
            shallow(self.renderer.synthesis)
        freeze_norms(self.renderer, CALIBRATED_ON, CALIBRATION)
        task = PictureTask(self.renderer, self.people, self.drivers)

        dead = ""

        def watch(step: int, means: dict[str, float]) -> bool:
            nonlocal dead
            with training.averaged():
                renderer = ready(self.renderer)
            own, others, features, misled = distances(renderer, 8, 4)
            told = "held out: %.2f dB, with others' drivers %.2f; eyes and mouth %.2f, with others' %.2f"
            log.info(told, own, others, features, misled)
            if training.share > EARLY and own - others < FOLLOWED:
                dead = f"frames do not follow their driver: {own:.2f} dB, with others' {others:.2f} dB"
            # only the first process is asked: where it stops, all do
            return bool(dead) and self.gated

        training = self._training("pictures", task, watch, JUDGED)
        finished = self._finish(training, self.renderer)
        self._gate(not dead, dead)
        return finished

    def _spread(self) -> None:
        """Identity vectors and adapted latents vary by 1 from the start, the latter more by motion than by identity."""
        renderer = self.renderer
        batch = drawn(HELD_OUT, 16, 8, self.config.input_size, self.fabric.device)
        standardise(renderer.identity_encoder.mlp.last, lambda: renderer.identity_encoder(batch.sources)[1])
        with torch.no_grad():
            identity = renderer.identity_encoder(batch.sources)[1].repeat_interleave(8, dim=0)
            renderer.adapter.in_layer.weight[:, : self.config.motion_size].mul_(4)
        standardise(renderer.adapter.mlp.last, lambda: renderer.adapter(batch.motion, identity))

    def _train(self, name: str, task: Task, module: nn.Module, watch) -> bool:
        return self._finish(self._training(name, task, watch), module)

    def _training(self, name: str, task: Task, watch, log_seconds: float = 30.0) -> Training:
        settings = Settings(
            minutes=self.minutes * SHARES[name] / sum(SHARES[stage] for stage in self.stages),
            warmup=60,
            end=0.02,
            clip=1.0,
            ema=0.998,
            averaged=tuple(task.modules()),
            log_seconds=log_seconds,
        )
        facts = {"stage": name, "config": str(self.config), "people": self.people, "drivers": self.drivers}
        facts["start"] = str(self.start)
        return Training(task, batches, self.folder / f"{name}.ckpt", settings, self.fabric, facts, watch)

    def _finish(self, training: Training, module: nn.Module) -> bool:
        """Trains; afterwards the module has its averaged weights."""
        finished = training.run().finished
        with training.averaged():
            weights = copy.deepcopy(module.state_dict())
        module.load_state_dict(weights)
        return finished

    def _gate(self, passed: bool, message: str) -> None:
        if passed:
            return
        if self.gated:
            raise InputError(f"Stopped: {message}.")
        log.warning("Going on, but %s.", message)
