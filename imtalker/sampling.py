"""Sampling motion: windows with context, audio guidance, Euler steps (spec: Motion generator 4 and 5)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .errors import InputError
from .models.flow import FlowTransformer


def draw_noise(windows: int, window: int, size: int, seed: int) -> Tensor:
    """Starting noise (windows,window,size), fresh for each window, drawn on the CPU so that every device gets the same.

    The first windows of a long clip are those of a short one with the same seed.
    """
    random = torch.Generator("cpu").manual_seed(seed)
    return torch.stack([torch.randn(window, size, generator=random) for _ in range(windows)])


def pad_rows(rows: Tensor, count: int) -> Tensor:
    """(T,C) -> (count,C): the last row repeated, or the surplus cut."""
    rows = rows[:count]
    return torch.cat([rows, rows[-1:].expand(count - len(rows), -1)])


def integrate(
    flow: FlowTransformer,
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
    flow: FlowTransformer, audio: Tensor, other: Tensor, reference: Tensor, noise: Tensor, cfg: float, nfe: int
) -> Iterator[Tensor]:
    """Motion window by window: yields (frames,motion), together as many frames as the conditions have.

    `audio` and `other` (T,condition_size) are the projected audio and the sum of the projected controls, `reference`
    (1,motion) the source's motion, `noise` (windows,window,motion).
    """
    window, context = noise.shape[1], flow.context
    frames = len(audio)
    past = noise.new_zeros(context, noise.shape[2])
    past_audio, past_other = (x.new_zeros(context, x.shape[1]) for x in (audio, other))
    for number, start in enumerate(range(0, frames, window)):
        now_audio, now_other = (pad_rows(x[start:], window) for x in (audio, other))
        # guidance keeps the audio of the context in both halves
        behind = past_audio + past_other
        with_audio = torch.cat([behind, now_audio + now_other])
        without = torch.cat([behind, now_other])
        motion = integrate(flow, noise[number], past, reference, with_audio, without, cfg, nfe)
        yield motion[: frames - start]
        past, past_audio, past_other = motion[-context:], now_audio[-context:], now_other[-context:]


def check_settings(cfg: float, nfe: int) -> None:
    """Raises InputError for settings no sampling can be done with."""
    if nfe < 2:
        raise InputError(f"Sampling needs at least 2 points in time (1 step), not {nfe}.")
    if not abs(cfg) < float("inf"):
        raise InputError(f"The guidance (cfg) must be a number, not {cfg}.")
