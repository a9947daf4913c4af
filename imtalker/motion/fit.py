"""A motion or a clip brought to a length: looped, played there and back, held, or stretched."""

import itertools
import math
from collections import deque
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

    frames: can be iterated more than once, and is read anew wherever the places lead back. keep: frames in memory where
    the places fall from one to the next; elsewhere it is one.
    """
    reading, position, last, index = None, 0, None, 0  # `last` is the frame before `position`
    while index < len(places):
        stop = _end_of_fall(places, index, keep)
        if stop > index + 1:
            low = places[stop - 1]
            kept = list(part_of(frames, low, places[index] + 1)) or [_last(frames)]
            yield from (kept[min(place - low, len(kept) - 1)] for place in places[index:stop])
            reading = None
        else:
            place = places[index]
            if reading is None or place < position - 1:
                reading, position, last = part_of(frames, place, None), place, None
            while position <= place and (frame := next(reading, None)) is not None:
                last, position = frame, position + 1
            last = _last(frames) if last is None else last
            yield last
        index = stop


def _last(frames: Iterable[Tensor]) -> Tensor:
    found = deque(frames, maxlen=1)
    if not found:
        raise InputError("The clip has no frames: choose another.")
    return found[0]


def _end_of_fall(places: Sequence[int], start: int, most: int) -> int:
    """The first index after `start` at which the places do not fall, at most `most` further."""
    stop = start + 1
    while stop < min(len(places), start + most) and places[stop] < places[stop - 1]:
        stop += 1
    return stop


def part_of(frames: Iterable[Tensor], first: int, stop: int | None) -> Iterator[Tensor]:
    """The frames first..stop of a clip; a reader of video files does not convert those before."""
    if hasattr(frames, "part"):
        return frames.part(first, stop)
    return itertools.islice(iter(frames), first, stop)
