"""Sampling motion: windows with context, audio guidance, Euler steps (spec: Motion generator 4 and 5)."""

import functools
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .errors import InputError


class Flow(Protocol):
    """What is integrated here: a network that gives the velocity of motion, as `models.flow.FlowTransformer` does."""

    context: int  # frames of earlier motion in front of the window
    condition: Callable[[Tensor], Tensor]
    time: Callable[[Tensor], Tensor]

    def fixed_input(self, reference: Tensor) -> Tensor: ...

    def velocity(self, x: Tensor, fixed: Tensor, condition: Tensor) -> Tensor: ...

    def replayed(self, function: Callable[..., Tensor], inputs: Sequence[Tensor], settings: Hashable) -> Tensor: ...


def stream_noise(window: int, size: int, seed: int) -> Iterator[Tensor]:
    """Starting noise (window,size) for one window after the other, drawn on the CPU so that every device gets the same.

    The first windows of a long clip are those of a short one with the same seed. Fresh noise joins windows at 0.97 to
    1.08 of the speed inside them; one noise for all repeats every 2 s (correlation .99 against 0 to .31 with made-up
    weights: `python -m benchmarks.joins`).
    """
    random = torch.Generator("cpu").manual_seed(seed)
    while True:
        yield torch.randn(window, size, generator=random)


def draw_noise(windows: int, window: int, size: int, seed: int) -> Tensor:
    """The noise of so many windows, (windows,window,size)."""
    return torch.stack(list(itertools.islice(stream_noise(window, size, seed), windows)))


def pad_rows(rows: Tensor, count: int) -> Tensor:
    """(T,C) -> (count,C): the last row repeated, or the surplus cut."""
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
    """The steps of `integrate`. They are recorded: no value may go to the CPU, nor decide what is done."""
    guided = cfg != 1
    # both halves in one batch; what no step changes is computed once
    condition = flow.condition(torch.stack([with_audio, without] if guided else [with_audio]))
    fixed = flow.fixed_input(reference)
    times = torch.linspace(0, 1, nfe, device=noise.device, dtype=torch.float32)
    x = noise
    for step, time in zip(times.diff().to(x), flow.time(times[:-1].to(x))):
        velocity = flow.velocity(torch.cat([context, x])[None], fixed, condition + time)
        v = velocity[1] + cfg * (velocity[0] - velocity[1]) if guided else velocity[0]
        x = x + step * v
    return x


def sample_windows(
    flow: Flow,
    conditions: Iterable[tuple[Tensor, Tensor]],
    reference: Tensor,
    noise: Iterable[Tensor],
    cfg: float,
    nfe: int,
) -> Iterator[Tensor]:
    """Motion window by window: yields (n,motion) for each pair of `conditions`, which may come as a stream.

    A pair is the projected audio and the sum of the projected controls of one window, each (n,condition_size), n being
    less than a window only at the end. `reference` (1,motion) is the source's motion, `noise` (window,motion) each.
    """
    context, past = flow.context, None
    for (audio, other), start in zip(conditions, noise):
        now_audio, now_other = (pad_rows(x, len(start)) for x in (audio, other))
        if past is None:
            past = start.new_zeros(context, start.shape[1])
            past_audio, past_other = (x.new_zeros(context, x.shape[1]) for x in (audio, other))
        # guidance keeps the audio of the context in both halves
        behind = past_audio + past_other
        with_audio = torch.cat([behind, now_audio + now_other])
        without = torch.cat([behind, now_other])
        motion = integrate(flow, start, past, reference, with_audio, without, cfg, nfe)
        yield motion[: len(audio)]
        past, past_audio, past_other = motion[-context:], now_audio[-context:], now_other[-context:]


def check_settings(cfg: float, nfe: int) -> None:
    """Raises InputError for settings no sampling can be done with."""
    if nfe < 2:
        raise InputError(f"Sampling needs at least 2 points in time (1 step), not {nfe}.")
    if not abs(cfg) < float("inf"):
        raise InputError(f"The guidance (cfg) must be a number, not {cfg}.")
