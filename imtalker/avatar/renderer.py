"""Trains the avatar's renderer on drawn portraits, whose true motion is its motion latent.

Trained on images alone, a renderer of this kind ignores its driver: averages explain the images long before the
attention, uniform at first, points anywhere. So there are three stages, each with a gate that stops a dead run:

1. motion: the motion encoder reads the drawings' motion off their images.
2. attention: adapter, motion decoder and transfer learn where each cell of a frame comes from, which the drawings
   know. Nothing is rendered, so this is cheap.
3. pictures: everything but the motion encoder, by pixels, their gradients, and still the attention.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..drawn.head import MOTION_SIZE
from ..errors import InputError
from ..models.config import RendererConfig
from ..models.renderer import Renderer
from ..train.initialise import new_renderer, standardise, standardise_layers, start_as_identity
from ..train.loop import Settings, Task, Training
from ..weights.checkpoints import load_renderer, save_weights
from .batches import HELD_OUT, draw_batch
from .renderer_tasks import (
    AttentionTask,
    MotionTask,
    PictureTask,
    batch_seeds,
    folded_copy,
    freeze_norms,
    held_out_psnr,
)

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
SHARES = {"motion": 0.2, "attention": 0.25, "pictures": 0.55}  # of the training minutes
MIN_EXPLAINED = 0.8  # gate of stage 1: share of each motion value's variance
MIN_LEAD_NATS = 0.5  # gate of stage 2: lead of moving cells with their own driver over another's
MIN_LEAD_DB = 1.0  # gate of stage 3: lead of frames with their own driver over another's
GATE_FROM = 0.1  # share of stage 3 after which its gate applies
GATE_SECONDS = 120.0  # between two checks of it
CALIBRATION, CALIBRATED_ON = 20, 16  # batches, and people in each, that the norms' statistics are measured on


@dataclass
class RendererRecipe:
    """Trains a renderer in `folder`; running the same recipe again resumes it. A batch is `people` x `drivers` frames.

    A gate that is not passed raises InputError, or only logs a warning if not `gated`. start: an avatar's renderer file
    to start from instead of random weights. stages: the names of SHARES to run; the minutes are split among them.
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
        """Trains and returns the renderer's file, in float16; None if training was stopped before its end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.renderer = self._starting_renderer().to(self.fabric.device)
        trainers = {"motion": self.train_motion, "attention": self.train_attention, "pictures": self.train_pictures}
        for name, train in trainers.items():
            if name in self.stages and not train():
                return None
        path = self.folder / "renderer.safetensors"
        if self.fabric.global_rank == 0:
            save_weights(self.renderer, path, torch.float16)
        return path

    def _starting_renderer(self) -> Renderer:
        if self.start is None:
            return new_renderer(self.config)
        renderer = load_renderer(self.start)
        if renderer.config != self.config:
            raise InputError(
                f"{self.start} is not of the avatar's size ({renderer.config}): start from an avatar's "
                f"renderer.safetensors."
            )
        return renderer.requires_grad_(True).train()

    def train_motion(self) -> bool:
        """Stage 1; False if it was stopped."""
        task = MotionTask(self.renderer, 5 * self.people)
        encoder = self.renderer.motion_encoder
        if self.start is None:
            images, motion = task.examples(HELD_OUT, 64)
            standardise_layers(encoder, lambda: encoder(images), 0.3 * motion.std(0))

        def watch(step: int, means: dict[str, float]) -> None:
            explained = "  ".join(f"{name} {share:.2f}" for name, share in task.explained_variance().items())
            log.info("explained variance: %s", explained)

        if not self._train("motion", task, encoder, watch):
            return False
        poor = [f"{name} {share:.2f}" for name, share in task.explained_variance().items() if share < MIN_EXPLAINED]
        self._gate(not poor, f"the motion encoder explains too little of {', '.join(poor)}; it needs {MIN_EXPLAINED}")
        return True

    def train_attention(self) -> bool:
        """Stage 2; False if it was stopped."""
        task = AttentionTask(self.renderer, self.people + 1, 3 * self.drivers)
        if self.start is None:
            self._standardise_latents()

        def watch(step: int, means: dict[str, float]) -> None:
            log.info("own driver leads others' by %.2f nats on turning heads, by %.2f on still ones", *task.leads())

        if not self._train("attention", task, task.parts, watch):
            return False
        lead, _ = task.leads()
        self._gate(
            lead >= MIN_LEAD_NATS,
            f"the attention does not follow the driver: it leads by {lead:.2f} nats and needs {MIN_LEAD_NATS}",
        )
        return True

    def train_pictures(self) -> bool:
        """Stage 3; False if it was stopped."""
        if self.start is None:
            start_as_identity(self.renderer.synthesis)
        freeze_norms(self.renderer, CALIBRATED_ON, CALIBRATION)
        task = PictureTask(self.renderer, self.people, self.drivers)

        dead = ""

        def watch(step: int, means: dict[str, float]) -> bool:
            nonlocal dead
            with training.averaged():
                renderer = folded_copy(self.renderer)
            own, others, own_face, others_face = held_out_psnr(renderer, 8, 4)
            log.info(
                "held-out people: %.2f dB, with others' drivers %.2f; eyes and mouth %.2f, with others' %.2f",
                *(own, others, own_face, others_face),
            )
            if training.share > GATE_FROM and own - others < MIN_LEAD_DB:
                dead = f"the frames do not follow their driver: {own:.2f} dB, {others:.2f} dB with others' drivers"
            # only the first process watches: when it stops, all do
            return bool(dead) and self.gated

        training = self._training("pictures", task, watch, GATE_SECONDS)
        finished = self._finish(training, self.renderer)
        self._gate(not dead, dead)
        return finished

    def _standardise_latents(self) -> None:
        """Gives identity vectors and adapted latents deviation 1, the latter from motion more than from identity."""
        renderer = self.renderer
        batch = draw_batch(HELD_OUT, 16, 8, self.config.input_size, self.fabric.device)
        standardise(renderer.identity_encoder.mlp.last, lambda: renderer.identity_encoder(batch.sources)[1])
        with torch.no_grad():
            identity = renderer.identity_encoder(batch.sources)[1].repeat_interleave(8, dim=0)
            renderer.adapter.in_layer.weight[:, : self.config.motion_size].mul_(4)
        standardise(renderer.adapter.mlp.last, lambda: renderer.adapter(batch.motion, identity))

    def _train(self, name: str, task: Task, module: nn.Module, watch: Callable) -> bool:
        return self._finish(self._training(name, task, watch), module)

    def _training(self, name: str, task: Task, watch: Callable | None, log_seconds: float = 30.0) -> Training:
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
        return Training(task, batch_seeds, self.folder / f"{name}.ckpt", settings, self.fabric, facts, watch)

    def _finish(self, training: Training, module: nn.Module) -> bool:
        """Runs the training and leaves the averaged weights in the module; False if it was stopped."""
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
        log.warning("Continuing, but %s.", message)
