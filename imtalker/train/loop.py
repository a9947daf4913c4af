"""The training loop, on Lightning Fabric: takes any task, stops at any moment and resumes exactly.

Batches and everything random in a step follow from seed, step and process alone, so a checkpoint needs no random
states and no position in the data besides the step number.
"""

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import InputError
from ..media.atomic import whole_file
from ..media.tensors import read_pickle
from .runtime import all_mean, make_fabric, seed_of, stop_signals

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("imtalker")

# batches(step, process, processes): the batches of this process, one for each step, starting at `step`
Batches = Callable[[int, int, int], Iterator[Any]]


class Task(Protocol):
    """What is trained; the loop needs nothing else from it."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Everything that training changes, by name; the loop moves it to the device and saves it in checkpoints."""

    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimisers by name, at the rates that the schedule scales."""

    def losses(self, batch: Any) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """Yields, for each optimiser in turn, its name and its weighted losses of a batch, scalars by name.

        The loop steps the optimiser before it takes the next pair. Every process must reach the same weights.
        """


@dataclass(frozen=True)
class Settings:
    """When to stop, and the schedule: the optimisers' rates are scaled from 1 down to `end` along half a cosine."""

    steps: int | None = None
    minutes: float | None = None  # over all runs together; the first limit reached counts
    warmup: int = 0  # steps over which the rates rise from 0
    end: float = 1.0
    clip: float | None = None  # largest norm of an optimiser's gradients
    ema: float = 0.0  # decay of the averaged weights; smaller at first: (1 + step) / (10 + step)
    averaged: tuple[str, ...] = ()  # names of the modules to average
    seed: int = 0
    save_seconds: float = 60.0
    log_seconds: float = 10.0

    def __post_init__(self):
        if self.steps is None and self.minutes is None:
            raise InputError("Choose how long to train: give a number of steps, or minutes.")


@dataclass(frozen=True)
class Outcome:
    """How a run ended; losses are means since the previous log line."""

    step: int
    finished: bool  # False if it was stopped and can be resumed
    losses: dict[str, float]


class Training:
    """One training run and its checkpoint.

    file: the checkpoint, written atomically every `save_seconds` and at the end; training resumes from it if it exists.
    facts: settings that must match to resume (sizes, data, rates), plain values by name; InputError names one that
    differs. watch: called in the first process with step and mean losses at every log line; returning True stops the
    training.
    """

    def __init__(
        self,
        task: Task,
        batches: Batches,
        file: str | Path,
        settings: Settings,
        fabric: "Fabric | None" = None,
        facts: Mapping[str, Any] | None = None,
        watch: Callable[[int, dict[str, float]], bool | None] | None = None,
    ):
        self.task, self.batches, self.file, self.settings = task, batches, Path(file), settings
        self.fabric = fabric or make_fabric("cpu")
        self.facts, self.watch = dict(facts or {}), watch
        self.modules = dict(task.modules())
        for module in self.modules.values():
            module.to(self.fabric.device)
        self.optimizers = {name: self.fabric.setup_optimizers(each) for name, each in task.optimizers().items()}
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self.step, self.seconds = 0, 0.0
        self.average = {name: value.detach().clone().float() for name, value in self._averaged_tensors()}
        if self.file.exists():
            self.load()

    def run(self) -> Outcome:
        """Trains until a limit, Ctrl-C or SIGTERM; the checkpoint then holds the state after the last step."""
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices), stop_signals() as stopped:
            return self._run(stopped)

    def _run(self, stopped: threading.Event) -> Outcome:
        rank, count = self.fabric.global_rank, self.fabric.world_size
        started = time.monotonic() - self.seconds
        saved = logged = time.monotonic()
        sums, since, means = {}, self.step, {}
        batches = self.batches(self.step, rank, count)
        stop = False
        while not stop and self.share < 1:
            torch.manual_seed(seed_of(self.settings.seed, self.step, rank))
            self._set_rates()
            for name, value in self._one_step(next(batches)).items():
                sums[name] = sums.get(name, 0) + value
            self.step += 1
            stop, self.seconds = self._agree(stopped.is_set(), time.monotonic() - started)
            now, last = time.monotonic(), stop or self.share >= 1
            if last or now - logged > self.settings.log_seconds:
                means = {name: (value / (self.step - since)).item() for name, value in sums.items()}
                self._log(means, (self.step - since) / max(now - logged, 1e-9))
                if self.watch and rank == 0 and self.watch(self.step, means):
                    stopped.set()
                logged, since, sums = now, self.step, {}
            if last or now - saved > self.settings.save_seconds:
                self.save()
                saved = now
        return Outcome(self.step, self.share >= 1, means)

    def _one_step(self, batch: Any) -> dict[str, Tensor]:
        losses = self.task.losses(self.fabric.to_device(batch))
        values = {}
        while True:
            with self.fabric.autocast():
                name, parts = next(losses, (None, {}))
            if name is None:
                break
            optimizer = self.optimizers[name]
            optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(torch.stack([part.float() for part in parts.values()]).sum())
            self._share_gradients(optimizer)
            if self.settings.clip:
                limit = {"max_norm": self.settings.clip, "error_if_nonfinite": False}
                self.fabric.clip_gradients(nn.Module(), optimizer, **limit)
            optimizer.step()
            values |= {part: value.detach().float() for part, value in parts.items()}
        self._share_statistics()
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for name, value in self._averaged_tensors():
            self.average[name].lerp_(value.detach().float(), 1 - decay)
        return values

    @property
    def share(self) -> float:
        """The share of the training that is done, 0..1."""
        settings = self.settings
        parts = [self.step / settings.steps] if settings.steps else []
        return min(1.0, max(parts + ([self.seconds / (60 * settings.minutes)] if settings.minutes else [])))

    def _set_rates(self) -> None:
        warm = min(1.0, (self.step + 1) / self.settings.warmup) if self.settings.warmup else 1.0
        end = self.settings.end
        factor = warm * (end + (1 - end) * (1 + math.cos(math.pi * self.share)) / 2)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    # several processes: gradients are averaged here instead of by DDP, so a task may use its modules in any way

    def _share_gradients(self, optimizer: Optimizer) -> None:
        if self.fabric.world_size > 1:
            everything = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
            all_mean(self.fabric, [gradient for gradient in everything if gradient is not None])

    def _share_statistics(self) -> None:
        """Averages the running statistics of batch norms over all processes."""
        if self.fabric.world_size > 1:
            kept = [value for module in self.modules.values() for value in _buffers(module)]
            all_mean(self.fabric, [value for value in kept if value.is_floating_point()])

    def _agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        """Whether any process is to stop, and one clock for all."""
        if self.fabric.world_size == 1:
            return stop, seconds
        both = self.fabric.all_reduce(torch.tensor([float(stop), seconds], dtype=torch.float64), reduce_op="max")
        return bool(both[0] > 0), both[1].item()

    def _log(self, means: dict[str, float], rate: float) -> None:
        if not all(map(math.isfinite, means.values())):
            raise InputError(
                f"A loss is no longer a number at step {self.step}: lower the learning rate or clip gradients; "
                f"{self.file} holds an earlier step."
            )
        if self.fabric.global_rank == 0:
            parts = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
            log.info("step %d  %s  %.3g steps/s  %.0f %%", self.step, parts, rate, 100 * self.share)

    # averaged weights and checkpoints

    def _averaged_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for module in self.settings.averaged:
            for name, parameter in self.modules[module].named_parameters():
                if parameter.requires_grad:
                    yield f"{module}.{name}", parameter

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the context the modules hold their averaged weights, for measuring and saving."""
        own = {name: value.detach().clone() for name, value in self._averaged_tensors()}
        try:
            self._put(self.average)
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._averaged_tensors():
            parameter.copy_(values[name])

    def save(self) -> None:
        """Writes the checkpoint, in the first process. InputError if a weight is not finite; the old file stays."""
        if self.fabric.global_rank != 0:
            return
        weights = {name: module.state_dict() for name, module in self.modules.items()}
        broken = [key for state in weights.values() for key, value in state.items() if not value.isfinite().all()]
        if broken:
            raise InputError(
                f"{broken[0]} is no longer a number at step {self.step}: lower the learning rate or clip gradients; "
                f"{self.file} holds an earlier step."
            )
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "facts": self.facts,
            "modules": weights,
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "average": self.average,
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        with whole_file(self.file) as temporary:
            torch.save(state, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # or a power cut could leave the new name with an empty file

    def load(self) -> None:
        """Restores the state of the checkpoint. InputError if it is not one, or its facts differ."""
        state = read_pickle(self.file)
        if not isinstance(state, dict) or not {"step", "modules", "optimizers", "facts"} <= state.keys():
            raise InputError(f"{self.file} is not a training checkpoint: choose another name for the output.")
        differ = [name for name in (*self.facts, *state["facts"]) if self.facts.get(name) != state["facts"].get(name)]
        if differ:
            name = differ[0]
            raise InputError(
                f"{self.file} was started with {name} {state['facts'].get(name)!r}, this run has "
                f"{self.facts.get(name)!r}: use the same, or delete the file to start over."
            )
        # copies: the tensors map a file that will be replaced
        state = _copied(state)
        self.step, self.seconds = state["step"], state["seconds"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.average = {name: value.to(self.fabric.device) for name, value in state["average"].items()}
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.fabric.global_rank == 0:
            log.info("Resuming at step %d of %s.", self.step, self.file)


def _buffers(module: nn.Module) -> Iterator[Tensor]:
    """The persistent buffers."""
    parameters = {name for name, _ in module.named_parameters()}
    return (value for name, value in module.state_dict().items() if name not in parameters)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
