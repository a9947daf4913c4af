"""A motion or a clip brought to a length: looped, played there and back, held, or stretched."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError
from .editing import loop
from .motion import Motion
from .sequence import rows_at

Way = Literal["loop", "ping-pong", "hold", "stretch"]


def fit(motion: Motion, frames: int, way: Way = "loop") -> Motion:
    """The motion with exactly `frames` frames; a longer one is cut, unless it is stretched.

    loop: repeated without a seam (its end is crossfaded into its start, as in `editing.loop`). ping-pong: forwards and
    backwards in turn. hold: the last frame stays. stretch: played faster or slower, from the first to the last frame.
    InputError: fewer than 1 frame, or another way.
    """
    if way == "loop" and len(motion) < frames:
        motion = loop(motion)
    return replace(motion, latents=rows_at(motion.latents, positions(len(motion), frames, way)))


def positions(count: int, frames: int, way: Way = "loop") -> Tensor:
    """For each of `frames` frames, its place (frames,), float64, in a clip of `count` frames; whole but for stretch."""
    if frames < 1:
        raise InputError(f"At least 1 frame is needed, not {frames}.")
    if way not in get_args(Way):
        raise InputError(f"A length cannot be fitted by {way!r}: use {', '.join(get_args(Way))}.")
    at = torch.arange(frames, dtype=torch.float64)
    if way == "stretch":
        return at * ((count - 1) / max(1, frames - 1))
    if way == "hold":
        return at.clamp(max=count - 1)
    if way == "loop":
        return at % count
    there_and_back = max(1, 2 * count - 2)  # neither end is shown twice
    at = at % there_and_back
    return torch.minimum(at, there_and_back - at)


def frames_of(seconds: float, fps: float) -> int:
    """Frames that cover so many seconds, at least 1."""
    return max(1, math.ceil(seconds * fps - 1e-6))


def frames_at(frames: Iterable[Tensor], places: Sequence[int], keep: int = 256) -> Iterator[Tensor]:
    """The frames of a clip at these places, in this order; frames that are not there are the last one.

    frames: can be iterated more than once, and is read anew wherever the places lead back. keep: frames in memory.
    """
    reading, position, last = iter(frames), 0, None
    for start in range(0, len(places), keep):
        part = places[start : start + keep]
        if min(part) < position:
            reading, position = iter(frames), 0
        wanted, found = set(part), {}
        while position <= max(part) and (frame := next(reading, None)) is not None:
            last = frame
            if position in wanted:
                found[position] = frame
            position += 1
        if last is None:
            raise InputError("The clip has no frames: choose another.")
        yield from (found.get(place, last) for place in part)
