"""Edits of motion: strength, smoothing, trim, speed, reverse, loop, join and mix.

Each edit takes a `Motion` and returns a new one, or the same object if its settings change nothing. Latents are blended
linearly, as in `Motion.at_fps`.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from .inertia import Inertia
from .match import Side, check_match
from .motion import Motion
from .sequence import resample_rows, stretched

log = logging.getLogger("imtalker")

MAX_CUTOFF, MIN_CUTOFF = 12.0, 1.0  # Hz, of `smooth` at amount 0 and 1
ROLLOFF = 8  # exponent of the smoothing filter: how steep its edge is
LOOP_SECONDS = (0.2, 0.6)  # shortest and longest crossfade of a loop


def strengthen(motion: Motion, strength: float, centre: Tensor | None = None) -> Motion:
    """Scales the motion around `centre` (1,size), usually the source's own latent; None is the motion's mean.

    strength: 0 stands still at the centre, 1 changes nothing, 2 exaggerates. InputError: the centre has another size.
    """
    if strength == 1:
        return motion
    centre = motion.latents.mean(0, keepdim=True) if centre is None else centre.to(motion.latents)
    check_match(Side("the source", size=centre.shape[1]), Side("the motion", size=motion.latents.shape[1]))
    return replace(motion, latents=centre + strength * (motion.latents - centre))


def smooth(motion: Motion, amount: float) -> Motion:
    """Removes fast movement with a steep low-pass filter at 12 - 11 x `amount` Hz; amount: 0..1.

    Speech moves the lips at up to about 6 Hz: up to 0.5 only jitter is removed and lips are safe; 1 leaves slow head
    sway. Adds no lag, and keeps the length and the mean (the ends are mirrored).
    """
    if amount == 0:
        return motion
    from scipy import fft  # scipy takes half of this package's import time

    cutoff = MAX_CUTOFF - (MAX_CUTOFF - MIN_CUTOFF) * amount
    frequency = torch.arange(len(motion)) * motion.fps / (2 * len(motion))  # Hz, of each DCT coefficient
    gain = 1 / (1 + (frequency.double() / cutoff) ** ROLLOFF)
    spectrum = fft.dct(motion.latents.cpu().double().numpy(), axis=0, norm="ortho")
    smoothed = fft.idct(spectrum * gain[:, None].numpy(), axis=0, norm="ortho")
    return replace(motion, latents=torch.from_numpy(smoothed).to(motion.latents))


def trim(motion: Motion, start_seconds: float = 0.0, end_seconds: float | None = None) -> Motion:
    """Keeps `start_seconds` to `end_seconds`, rounded to whole frames; None, or past the end, is the end.

    InputError: nothing is left.
    """
    start = max(0, round(start_seconds * motion.fps))
    end = len(motion) if end_seconds is None else min(len(motion), round(end_seconds * motion.fps))
    if (start, end) == (0, len(motion)):
        return motion
    if start >= end:
        until = "its end" if end_seconds is None else f"{end_seconds:g} s"
        raise InputError(
            f"Nothing is left of the motion from {start_seconds:g} s to {until}, as it is {motion.seconds:.2f} s long: "
            "start earlier or end later."
        )
    return replace(motion, latents=motion.latents[start:end])


def stretch(motion: Motion, speed: float) -> Motion:
    """Plays the motion `speed` times as fast at the same frame rate; it becomes 1 / `speed` as long."""
    if speed == 1:
        return motion
    if not speed > 0:
        raise InputError(f"The speed must be above 0, not {speed:g}: use 0.5 for half speed, 2 for double.")
    return replace(motion, latents=resample_rows(motion.latents, motion.fps * speed, motion.fps))


def reverse(motion: Motion) -> Motion:
    """Reverses the motion."""
    return replace(motion, latents=motion.latents.flip(0))


def loop(motion: Motion) -> Motion:
    """Makes a seamless loop: the step from the last frame to the first is like the steps inside.

    The last 0.2 to 0.6 seconds are crossfaded into the first, so the loop is shorter by that much, and across the seam
    the motion continues as it originally did. Of all overlaps in that range, the one with the smoothest seam is used.
    Motions under three frames are returned as they are; a jerky one under ten frames may keep a larger step at the
    seam.
    """
    longest = min(round(LOOP_SECONDS[1] * motion.fps), (len(motion) - 1) // 2)
    if longest < 1:
        return motion
    shortest = min(max(1, round(LOOP_SECONDS[0] * motion.fps)), (longest + 1) // 2)
    return replace(motion, latents=best_seam(overlap_ends(motion.latents, o) for o in range(shortest, longest + 1)))


def best_seam(loops: Iterable[Tensor]) -> Tensor:
    """Returns the loop (T,C) whose step from last row to first is smallest, relative to the largest step inside it."""
    return min(loops, key=_seam)


def overlap_ends(rows: Tensor, overlap: int) -> Tensor:
    """Crossfades the last `overlap` rows of (T,C) into the first ones -> (T - overlap,C); T is at least 2 x overlap."""
    start, middle, end = rows.split([overlap, len(rows) - 2 * overlap, overlap])
    return torch.cat([_crossfade(end, start), middle])


def _seam(rows: Tensor) -> float:
    """Step from the last row to the first / largest step inside."""
    largest = rows.diff(dim=0).norm(dim=1).max()
    return float((rows[0] - rows[-1]).norm() / largest.clamp_min(1e-9))


def join(motions: Sequence[Motion], seconds: float = 0.4, overlap: bool = False) -> Motion:
    """Plays motions in sequence, at the first one's frame rate, without a jump between them.

    seconds: how long a join lasts; 0 cuts.
    overlap: False lets each motion start where the one before was going, and the difference fade (motion/inertia.py):
    lengths add up, so each stays on its sound. True overlaps and crossfades them, which shortens the result by the
    join, limited, with a warning, to half of the shorter motion.
    InputError: motions of different generations or sizes.
    """
    return _overlapping(motions, seconds) if overlap else _carried_on(motions, seconds)


def _carried_on(motions: Sequence[Motion], seconds: float) -> Motion:
    first, *others = motions
    length = round(seconds * first.fps)
    inertia = Inertia(length=length)
    whole = [inertia.join(first.latents)]
    for other in others:
        _check_match(first, other)
        rows = other.at_fps(first.fps).latents.to(first.latents)
        whole.append(inertia.join(rows) if length else rows)
    return replace(first, latents=torch.cat(whole))


def _overlapping(motions: Sequence[Motion], crossfade_seconds: float) -> Motion:
    first, *others = motions
    whole, before = first.latents, len(first)
    for number, other in enumerate(others, 2):
        _check_match(first, other)
        rows = other.at_fps(first.fps).latents.to(whole)
        overlap, most = round(crossfade_seconds * first.fps), min(before, len(rows)) // 2
        if overlap > most:
            log.warning(
                "The crossfade into motion %d is %.2f s, not %.2f s: it is limited to half of the shorter motion.",
                number,
                most / first.fps,
                crossfade_seconds,
            )
            overlap = most
        kept = len(whole) - overlap
        whole = torch.cat([whole[:kept], _crossfade(whole[kept:], rows[:overlap]), rows[overlap:]])
        before = len(rows)
    return replace(first, latents=whole)


def mix(first: Motion, second: Motion, share: float | Tensor = 0.5) -> Motion:
    """Mixes two motions latent by latent: 1 - `share` of the first plus `share` of the second.

    share: 0..1, one number, or a curve (N,) stretched over the duration. The result has the first one's length and
    frame rate: a longer second motion is cut, a shorter one held at its last latent. InputError as for `join`.
    """
    _check_match(first, second)
    other = second.at_fps(first.fps, len(first)).latents.to(first.latents)
    spread = stretched(share, len(first))
    return replace(first, latents=first.latents.lerp(other, spread.to(first.latents)))


def _check_match(first: Motion, other: Motion) -> None:
    sides = zip(("one motion", "another"), (first, other))
    check_match(
        *(Side(name, motion.generation, motion.latents.shape[1]) for name, motion in sides),
        "join and mix only motions made with the same models.",
    )


def _crossfade(before: Tensor, after: Tensor) -> Tensor:
    """Crossfades rows (n,C) into others along a raised cosine, which starts and ends softly."""
    position = (torch.arange(len(before), dtype=torch.float64) + 1) / (len(before) + 1)
    weight = 0.5 - 0.5 * (math.pi * position).cos()
    return before.lerp(after, weight.to(before)[:, None])
