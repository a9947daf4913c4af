"""The generator's training task: flow matching on windows of motion, conditioned on speech, pose, camera and gaze."""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ..models.generator import Generator
from .data import CONDITIONS
from .lora import adapt, merge
from .losses import difference_l1

BETAS = 0.9, 0.999


class GeneratorTask:
    """A loop.Task; batches come from data.MotionWindows, and the generator is already on its device.

    The audio encoder stays frozen. lora: the rank of the change that the transformer's blocks learn, everything else
    frozen; None: transformer and condition projections are trained in full.
    """

    def __init__(self, generator: Generator, rate: float, lora: int | None = None, seed: int = 0):
        self.generator, self.lora = generator, lora
        generator.requires_grad_(False).train()  # training mode unfolds it
        generator.audio_encoder.eval()
        if lora:
            self._modules = {"lora": adapt(generator.flow, lora, seed)}
        else:
            names = "flow", *(f"{name}_projection" for name in CONDITIONS)
            self._modules = {name: getattr(generator, name).requires_grad_(True) for name in names}
        trained = [parameter for module in self._modules.values() for parameter in module.parameters()]
        self._optimizers = {"generator": Adam(trained, rate, BETAS)}

    def modules(self) -> Mapping[str, nn.Module]:
        return self._modules

    def optimizers(self) -> Mapping[str, Optimizer]:
        return self._optimizers

    def losses(self, batch: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        context = self.generator.config.context
        past, motion = batch["motion"].split([context, self.generator.config.window], dim=1)
        time = batch["time"]
        t = time[:, None, None]
        x = torch.cat([past * batch["context"][:, :, None], t * motion + (1 - t) * batch["noise"]], dim=1)
        velocity = self.generator.flow(x, time, batch["reference"], self.conditions(batch)).float()
        target = motion - batch["noise"]
        yield (
            "generator",
            {"velocity": F.l1_loss(velocity, target), "change": difference_l1(velocity, target)},
        )

    def conditions(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The sum of the projected conditions, (B,context+window,condition_size); a dropped one adds zeros."""
        keeps = batch["keep"].split(1, dim=-1)
        projections = (getattr(self.generator, f"{name}_projection") for name in CONDITIONS)
        return sum(keep * project(batch[name]) for name, project, keep in zip(CONDITIONS, projections, keeps))

    def finish(self) -> Generator:
        """The trained generator with its low-rank parts merged in; it cannot be trained further."""
        if self.lora:
            merge(self.generator.flow)
        return self.generator.eval()
