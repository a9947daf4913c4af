"""Idle motion: a portrait that stays alive while it says nothing."""

from collections.abc import Callable
from dataclasses import replace

import torch

from .errors import InputError
from .media.audio import FPS, SAMPLE_RATE
from .models.generator import Generator
from .models.renderer import Source
from .motion.control import Control, merge
from .motion.editing import LOOP_SECONDS, best_seam, overlap_ends
from .motion.inertia import FRAMES
from .motion.keyframes import to_control
from .motion.motion import Motion
from .motion.presets import POSE_PRESETS, expand

IDLE_SECONDS = (0.4, 600.0)  # shortest and longest


def idle(
    generator: Generator,
    source: Source,
    seconds: float = 4.0,
    sway: float = 0.5,
    looped: bool = True,
    seed: int = 0,
    control: Control | None = None,
    progress: Callable[[], None] | None = None,
) -> Motion:
    """Motion of a silent portrait: what the generator makes of silence; it blinks only if the generator does.

    seconds: 0.4 to 600, rounded to whole frames; a looped motion is just as long.
    sway: 0..1, size of a gentle sway around facing the camera; 0 leaves the pose to the generator.
    looped: the last frame leads back to the first, as in `loop`.
    control: overrides the sway in the parts it has.
    progress: called after each window.
    Raises InputError for other values, and if source and generator do not belong together.
    """
    low, high = IDLE_SECONDS
    if not low <= seconds <= high:
        raise InputError(f"An idle motion can be {low:g} to {high:g} seconds long, not {seconds:g}.")
    if not 0 <= sway <= 1:
        raise InputError(f"The sway must be between 0 and 1, not {sway:g}.")
    frames, sampled = round(seconds * FPS), idle_frames(seconds, looped)
    swaying = [head_sway(frames, sampled, sway)] if sway else []
    steering = swaying + ([] if control is None else [control])
    silence = generator.encode_audio(torch.zeros(1, sampled * SAMPLE_RATE // FPS), SAMPLE_RATE)
    blocks = []
    for block in generator.stream(silence, source, merge(steering) if steering else None, seed=seed):
        blocks.append(block.latents)
        if progress:
            progress()
    motion = replace(block, latents=torch.cat(blocks))
    if not looped:
        return motion
    motion = replace(motion, latents=motion.latents[FRAMES:])  # a loop does not come back to the portrait's pose
    shortest, longest = round(LOOP_SECONDS[0] * FPS), min(len(motion) - frames, frames - 1)
    ends = range(shortest, longest + 1)
    return replace(motion, latents=best_seam(overlap_ends(motion.latents[: frames + end], end) for end in ends))


def idle_frames(seconds: float, looped: bool) -> int:
    """Frames that `idle` samples; a loop needs more: the way from the portrait's pose, and those crossfaded into it."""
    return round(seconds * FPS) + (FRAMES + round(LOOP_SECONDS[1] * FPS) if looped else 0)


def head_sway(period: int, frames: int, amount: float) -> Control:
    """The preset "Idle sway", `period` frames long and repeated to `frames`; `amount` 0..1 scales its size.

    If `period` is too short for the preset, the sway gets smaller rather than faster.
    """
    preset, seconds = POSE_PRESETS["idle_sway"], period / FPS
    curves = expand(preset, seconds, amount * min(1, seconds / preset.length))
    once = to_control({"version": 1, "channels": curves}, seconds).pose
    return Control(pose=once[torch.arange(frames) % period], fps=float(FPS))
