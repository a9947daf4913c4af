"""Stretches of a driving clip that do not show the face: the motion stands still there."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from .motion import Motion

log = logging.getLogger("imtalker")


def hold(blocks: Iterable[Motion], hidden: Sequence[range]) -> Iterator[Motion]:
    """Replaces the latents of hidden frames by the last latent before them, at the start by the first one after them.

    blocks: a motion in parts, in order. hidden: ranges of frames, counted from the first part on; a warning names them.
    Blocks at the start without a shown frame wait for the first that has one.
    """
    start, waiting, last = 0, 0, None
    for motion in blocks:
        if hidden and not start:
            _warn(hidden, motion.fps)
        frames = range(start, start + len(motion))
        start = frames.stop
        shown = torch.tensor([not any(frame in stretch for stretch in hidden) for frame in frames])
        if last is None and not shown.any():
            waiting += len(motion)
            continue
        if last is None:
            last = motion.latents[int(shown.nonzero()[0])]
        if waiting or not shown.all():
            rows = torch.cat([last[None], motion.latents])
            # row 0 is the last latent shown before this block
            source = torch.where(shown, torch.arange(1, len(motion) + 1), 0).cummax(0).values
            motion = replace(motion, latents=torch.cat([last.expand(waiting, -1), rows[source]]))
            waiting = 0
        last = motion.latents[-1]
        yield motion


def _warn(hidden: Sequence[range], fps: float) -> None:
    stretches = ", ".join(
        f"{frames.start + 1} to {frames.stop} ({frames.start / fps:.1f} to {frames.stop / fps:.1f} s)"
        for frames in hidden[:5]
    )
    more = f" and {len(hidden) - 5} more stretches" if len(hidden) > 5 else ""
    log.warning("No face was found in frames %s%s: the motion stands still there.", stretches, more)


def first_needed(frame: int, hidden: Sequence[range]) -> int:
    """The first frame that has to be encoded for the held motion from `frame` on."""
    stretch = next((stretch for stretch in hidden if frame in stretch), None)
    return frame if stretch is None else max(0, stretch.start - 1)
