"""A silence gate: the mouth rests where a sound is quiet, such as between two speakers' turns."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..media.audio import Audio
from .motion import Motion
from .rig import Rig

FADE = 0.12  # seconds in which the mouth goes to rest, and comes back before the sound
SHORTEST = 0.25  # seconds; between words the mouth does not rest
QUIETEST = -120.0  # dB, of digital silence


def gate(
    motion: Motion, rig: Rig, audio: Audio, level: float = -40.0, own: Tensor | None = None, loud: bool = False
) -> Motion:
    """The motion with a mouth that rests where the sound is below `level`, in dB of full scale.

    own: the latent (1,size) whose mouth is the mouth at rest, usually `Source.motion`; None is the rig's own rest.
    loud: rests where the sound is not below the level instead: give the other speaker's track.
    After the sound's end it is quiet. InputError: the rig has no mouth, or belongs to other weights.
    """
    rest = rig.rest if own is None else own
    still = replace(motion, latents=rest.to(motion.latents).expand(len(motion), -1))
    return rig.combine(motion, still, ["mouth"], resting(audio, motion.fps, len(motion), level, loud))


def resting(audio: Audio, fps: float, frames: int, level: float, loud: bool = False) -> Tensor:
    """How much the mouth rests in each frame, (frames,), 0..1: 1 in quiet stretches of at least SHORTEST seconds."""
    return resting_at(loudness(audio, fps, frames), fps, level, loud)


def resting_at(levels: Tensor, fps: float, level: float, loud: bool = False) -> Tensor:
    """`resting` for frames whose loudness (frames,), in dB of full scale, is known."""
    from scipy import ndimage  # scipy takes half of this package's import time

    quiet = (levels < level).numpy() != loud
    quiet = ndimage.binary_opening(quiet, structure=np.ones(max(1, round(SHORTEST * fps))))
    if quiet.all():
        return torch.ones(len(levels))
    # the fade lies in the quiet, so that the mouth is free whenever there is sound
    away = torch.from_numpy(ndimage.distance_transform_edt(quiet)).float()
    return 0.5 - 0.5 * (math.pi * (away / (FADE * fps)).clamp(max=1)).cos()


def loudness(audio: Audio, fps: float, frames: int) -> Tensor:
    """The level of each frame in dB of full scale (root mean square of all channels), (frames,); QUIETEST past it."""
    power = audio.waveform.square().mean(dim=0)
    total = torch.cat([power.new_zeros(1), power.cumsum(0, dtype=torch.float64)])
    edges = (torch.arange(frames + 1, dtype=torch.float64) * audio.sample_rate / fps).round().long()
    edges = edges.clamp(max=len(power))
    count = edges.diff()
    mean = total[edges].diff() / count.clamp_min(1)
    return 10 * mean.clamp_min(10 ** (QUIETEST / 10)).log10()
