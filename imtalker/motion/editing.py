"""Motion edited as an animator would: made stronger, calmer, faster, cut, turned round, looped and joined.

Each function but `idle`, which makes one, takes a `Motion` and gives another; where a setting changes nothing it gives
the very same one. Latents are blended linearly, as `Motion.at_fps` does.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from scipy import fft
from torch import Tensor

from ..errors import InputError
from .match import Side, check_match
from .motion import Motion
from .sequence import resample_rows, rows_at

log = logging.getLogger("imtalker")

QUICKEST, SLOWEST, SHARPNESS = 12.0, 1.0, 8  # of smoothing: Hz at amount 0 and 1, and how steep its edge is
LOOP_SECONDS = (0.2, 0.6)  # shortest and longest crossfade of a loop


def strengthen(motion: Motion, strength: float, centre: Tensor | None = None) -> Motion:
    """Moves `strength` times as far from `centre` (1,size), usually the source's own latent, as before.

    0 stands still at the centre, 1 changes nothing, 2 exaggerates. None: around the motion's mean. InputError where the
    centre is of another size.
    """
    if strength == 1:
        return motion
    centre = motion.latents.mean(0, keepdim=True) if centre is None else centre.to(motion.latents)
    check_match(Side("the source", size=centre.shape[1]), Side("the motion", size=motion.latents.shape[1]))
    return replace(motion, latents=centre + strength * (motion.latents - centre))


def smooth(motion: Motion, amount: float) -> Motion:
    """Takes the quick movements out: those above 12 - 11 x `amount` Hz, `amount` 0..1, with a sharp edge.

    Speech moves the lips at up to about 6 Hz: up to 0.5 it is spared and only jitter goes; 1 leaves the head's sway.
    It does not lag, and keeps the length and the mean (the ends are mirrored).
    """
    if amount == 0:
        return motion
    cutoff = QUICKEST - (QUICKEST - SLOWEST) * amount
    frequency = torch.arange(len(motion)) * motion.fps / (2 * len(motion))  # of each coefficient, in Hz
    gain = 1 / (1 + (frequency.double() / cutoff) ** SHARPNESS)
    waves = fft.dct(motion.latents.cpu().double().numpy(), axis=0, norm="ortho")
    calm = fft.idct(waves * gain[:, None].numpy(), axis=0, norm="ortho")
    return replace(motion, latents=torch.from_numpy(calm).to(motion.latents))


def trim(motion: Motion, start_seconds: float = 0.0, end_seconds: float | None = None) -> Motion:
    """The part from `start_seconds` to `end_seconds` (None, or past the end: to the end), rounded to whole frames.

    InputError where nothing is left.
    """
    start = max(0, round(start_seconds * motion.fps))
    end = len(motion) if end_seconds is None else min(len(motion), round(end_seconds * motion.fps))
    if (start, end) == (0, len(motion)):
        return motion
    if start >= end:
        until = "its end" if end_seconds is None else f"{end_seconds:g} s"
        raise InputError(
            f"Nothing is left of the motion from {start_seconds:g} s to {until}: it is {motion.seconds:.2f} s long."
        )
    return replace(motion, latents=motion.latents[start:end])


def stretch(motion: Motion, speed: float) -> Motion:
    """The same movement `speed` times as fast at the same frame rate, so 1 / `speed` as long."""
    if speed == 1:
        return motion
    if not speed > 0:
        raise InputError(f"The speed must be above 0, not {speed:g}: use 0.5 for half, 2 for twice as fast.")
    return replace(motion, latents=resample_rows(motion.latents, motion.fps * speed, motion.fps))


def reverse(motion: Motion) -> Motion:
    """The last frame first."""
    return replace(motion, latents=motion.latents.flip(0))


def loop(motion: Motion) -> Motion:
    """A motion whose first frame follows its last one as any frame follows another, to be played round and round.

    The last 0.2 to 0.6 seconds are laid over the first and crossfaded into them, so the loop is shorter by these. Where
    the seam falls, the loop goes on as the motion itself did; of all overlaps in that range the calmest seam is taken,
    against the largest step of its loop. A motion of less than three frames is left as it is; a wild one of
    less than ten may keep a larger step at its seam.
    """
    longest = min(round(LOOP_SECONDS[1] * motion.fps), (len(motion) - 1) // 2)
    if longest < 1:
        return motion
    shortest = min(max(1, round(LOOP_SECONDS[0] * motion.fps)), (longest + 1) // 2)
    return replace(motion, latents=best_seam(overlap_ends(motion.latents, o) for o in range(shortest, longest + 1)))


def best_seam(loops: Iterable[Tensor]) -> Tensor:
    return min(loops, key=_seam)


def overlap_ends(rows: Tensor, overlap: int) -> Tensor:
    start, middle, end = rows.split([overlap, len(rows) - 2 * overlap, overlap])
    return torch.cat([_crossfade(end, start), middle])


def _seam(rows: Tensor) -> float:
    """The step from the last row to the first, as a share of the largest step inside."""
    largest = rows.diff(dim=0).norm(dim=1).max()
    return float((rows[0] - rows[-1]).norm() / largest.clamp_min(1e-9))


def join(motions: Sequence[Motion], crossfade_seconds: float = 0.4) -> Motion:
    """One after the other, at the first one's frame rate, each crossfaded into the next over `crossfade_seconds`.

    Every joint shortens the whole by its crossfade, which is at most half of the shorter neighbour (a warning says so).
    InputError where the motions are of different generations or sizes.
    """
    first, *others = motions
    whole, before = first.latents, len(first)
    for number, other in enumerate(others, 2):
        _check_match(first, other)
        rows = other.at_fps(first.fps).latents.to(whole)
        overlap, most = round(crossfade_seconds * first.fps), min(before, len(rows)) // 2
        if overlap > most:
            log.warning(
                "The crossfade into motion %d is %.2f s, not %.2f s: half of the shorter motion is the most.",
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
    """Both at once: `share` of the second, 1 - `share` of the first, latent by latent.

    share: 0..1, one number, or a curve (N,) that is spread over the length. Lasts as long as the first, at its frame
    rate: a longer second is cut, a shorter one is held at its last latent. InputError as for `join`.
    """
    _check_match(first, second)
    other = second.at_fps(first.fps, len(first)).latents.to(first.latents)
    curve = torch.as_tensor(share, dtype=torch.float32).reshape(-1, 1)
    spread = rows_at(curve, torch.linspace(0, len(curve) - 1, len(first), dtype=torch.float64))
    return replace(first, latents=first.latents.lerp(other, spread.to(first.latents)))


def _check_match(first: Motion, other: Motion) -> None:
    sides = zip(("one motion", "another"), (first, other))
    check_match(
        *(Side(name, motion.generation, motion.latents.shape[1]) for name, motion in sides),
        "join and mix only motions made with the same models.",
    )


def _crossfade(before: Tensor, after: Tensor) -> Tensor:
    """From rows (n,C) to others in a raised cosine, whose slope is 0 at both ends."""
    place = (torch.arange(len(before), dtype=torch.float64) + 1) / (len(before) + 1)
    weight = 0.5 - 0.5 * (math.pi * place).cos()
    return before.lerp(after, weight.to(before)[:, None])
