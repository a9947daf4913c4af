"""Sampling motion: windows with context, audio guidance, Euler steps (spec: Motion generator 4 and 5)."""

import functools
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .errors import InputError


class Flow(Protocol):
    """A network that predicts the velocity of motion, such as `models.flow.FlowTransformer`."""

    context: int  # frames of earlier motion in front of the window
    condition: Callable[[Tensor], Tensor]
    time: Callable[[Tensor], Tensor]

    def fixed_input(self, reference: Tensor) -> Tensor: ...

    def velocity(self, x: Tensor, fixed: Tensor, condition: Tensor) -> Tensor: ...

    def replayed(self, function: Callable[..., Tensor], inputs: Sequence[Tensor], settings: Hashable) -> Tensor: ...


@dataclass(frozen=True)
class Frames:
    """Sampled frames with their conditions, one row per frame."""

    motion: Tensor  # (n,motion_size)
    speech: Tensor  # (n,condition_size), the projected audio
    control: Tensor  # (n,condition_size), the sum of the projected controls

    @classmethod
    def blank(cls, count: int, motion_size: int, condition_size: int, like: Tensor) -> "Frames":
        """Zeros: the context of the first window."""
        return cls(*(like.new_zeros(count, size) for size in (motion_size, condition_size, condition_size)))

    def rows(self, rows: slice) -> "Frames":
        return Frames(self.motion[rows], self.speech[rows], self.control[rows])

    def followed_by(self, other: "Frames") -> "Frames":
        return Frames(*(torch.cat([getattr(self, name), getattr(other, name)]) for name in vars(self)))


def stream_noise(window: int, size: int, seed: int) -> Iterator[Tensor]:
    """Starting noise (window,size), window by window; drawn on the CPU so that every device gets the same.

    A long clip starts with the noise of a short one with the same seed. With fresh noise, the step from window to
    window is 0.97 to 1.08 times the steps inside; with one noise for all, the motion repeats every 2 s (correlation .99
    against 0 to .31, with untrained weights: `python -m benchmarks.joins`).
    """
    random = torch.Generator("cpu").manual_seed(seed)
    while True:
        yield torch.randn(window, size, generator=random)


def draw_noise(windows: int, window: int, size: int, seed: int) -> Tensor:
    """The noise of the first `windows` windows, (windows,window,size)."""
    return torch.stack(list(itertools.islice(stream_noise(window, size, seed), windows)))


def pad_rows(rows: Tensor, count: int) -> Tensor:
    """(T,C) -> (count,C): repeats the last row, or cuts the surplus."""
    rows = rows[:count]
    return torch.cat([rows, rows[-1:].expand(count - len(rows), -1)])


def integrate(
    flow: Flow,
    noise: Tensor,
    context: Tensor,
    reference: Tensor,
    with_audio: Tensor,
    without: Tensor,
    cfg: float,
    nfe: int,
) -> Tensor:
    """One window: Euler steps from `noise` (window,motion) at t = 0 to motion at t = 1, on nfe points (nfe - 1 steps).

    `context` (context,motion) stays fixed in front; `with_audio` and `without` (context+window,condition_size) are the
    conditions of the two halves of the guidance.
    """
    steps = functools.partial(_euler_steps, flow, cfg, nfe)
    return flow.replayed(steps, (noise, context, reference, with_audio, without), (cfg, nfe))


def _euler_steps(
    flow: Flow,
    cfg: float,
    nfe: int,
    noise: Tensor,
    context: Tensor,
    reference: Tensor,
    with_audio: Tensor,
    without: Tensor,
) -> Tensor:
    """The steps of `integrate`. They may be recorded, so no value may be read on the CPU or decide what happens."""
    guided = cfg != 1
    # both halves in one batch; what stays the same over the steps is computed once
    condition = flow.condition(torch.stack([with_audio, without] if guided else [with_audio]))
    fixed = flow.fixed_input(reference)
    times = torch.linspace(0, 1, nfe, device=noise.device, dtype=torch.float32)
    x = noise
    for step, time in zip(times.diff().to(x), flow.time(times[:-1].to(x))):
        velocity = flow.velocity(torch.cat([context, x])[None], fixed, condition + time)
        v = velocity[1] + cfg * (velocity[0] - velocity[1]) if guided else velocity[0]
        x = x + step * v
    return x


def sample_window(
    flow: Flow,
    noise: Tensor,
    before: Frames,
    speech: Tensor,
    control: Tensor,
    reference: Tensor,
    cfg: float,
    nfe: int,
) -> Frames:
    """One whole window after the frames `before` (flow.context of them), from `noise` (window,motion).

    speech, control: (n,condition_size); up to the window's end the last row is repeated. `reference` (1,motion) is the
    source's motion.
    """
    speech, control = (pad_rows(rows, len(noise)) for rows in (speech, control))
    # guidance keeps the audio of the context in both halves
    context = before.speech + before.control
    with_audio, without = torch.cat([context, speech + control]), torch.cat([context, control])
    motion = integrate(flow, noise, before.motion, reference, with_audio, without, cfg, nfe)
    return Frames(motion, speech, control)


def sample_windows(
    flow: Flow,
    conditions: Iterable[tuple[Tensor, Tensor]],
    reference: Tensor,
    noise: Iterable[Tensor],
    cfg: float,
    nfe: int,
) -> Iterator[Tensor]:
    """Yields motion (n,motion) for each window of `conditions`, which may be a stream.

    conditions: projected audio and controls of each window, (n,condition_size) each, n below a whole window only at the
    end. reference (1,motion): the source's motion. noise: (window,motion) each.
    """
    before = None
    for (speech, control), start in zip(conditions, noise):
        if before is None:
            before = Frames.blank(flow.context, start.shape[1], speech.shape[1], start)
        frames = sample_window(flow, start, before, speech, control, reference, cfg, nfe)
        yield frames.motion[: len(speech)]
        before = frames.rows(slice(-flow.context, None))


def check_settings(cfg: float, nfe: int) -> None:
    """Raises InputError for settings that cannot be sampled with."""
    if nfe < 2:
        raise InputError(f"Sampling needs at least 2 points in time (1 step), not {nfe}.")
    if not abs(cfg) < float("inf"):
        raise InputError(f"The guidance (cfg) must be a number, not {cfg}.")
