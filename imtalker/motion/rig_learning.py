"""A rig from a clip: motion latents and readings of the same frames, related by ridge regression."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import InputError
from .motion import Motion
from .rig import GOOD, Channel, Rig

log = logging.getLogger("imtalker")

RIDGE = 1e-4  # of the latents' mean variance; hardly matters from 1e-6 to 1e-3
SHARED = 1e-3  # of a channel's variance: two channels that always move together are not torn apart
FOLDS, BLOCK_SECONDS = 5, 2.0  # held-out frames come in blocks, because neighbours look alike
LEAST_SECONDS = 8.0


def learn(motion: Motion, readings: Mapping[str, Tensor], parts: Mapping[str, str], weights: str = "") -> Rig:
    """Learns the channels `readings` (T,) each, any unit, from the motion (T,size) of the same frames.

    Each channel's score is its correlation with the reading in blocks of frames that it was not learned from. Channels
    below GOOD, and those that never move, are kept with their score but cannot be used; the log names them.
    parts: which part each channel belongs to. InputError: lengths differ, NaN, a clip under LEAST_SECONDS.
    """
    for name, values in readings.items():
        if values.shape != (len(motion),):
            raise InputError(f"{name} has {tuple(values.shape)} readings but the motion {len(motion)} frames.")
        if not torch.isfinite(values).all():
            raise InputError(f"The readings of {name} contain NaN or infinite values: read the clip again.")
    if motion.seconds < LEAST_SECONDS:
        raise InputError(
            f"The clip shows the face for {motion.seconds:.1f} s: learn a rig from at least {LEAST_SECONDS:g} s in "
            "which it does all that the rig should know."
        )
    names = list(readings)
    given = torch.stack([readings[name].double() for name in names], dim=1)
    deviation = given.std(dim=0)
    values = (given - given.mean(dim=0)) / deviation.clamp_min(1e-9)
    latents = motion.latents.double()
    rest, latents = latents.mean(dim=0, keepdim=True), latents - latents.mean(dim=0)
    scores = _held_out(latents, values, round(BLOCK_SECONDS * motion.fps))
    scores[deviation < 1e-6] = 0
    good = scores >= GOOD
    if weak := [name for name, well in zip(names, good) if not well]:
        log.warning("These channels are not in the clip or not in the motion, and are off: %s.", ", ".join(weak))
    read_out = torch.zeros(latents.shape[1], len(names), dtype=torch.float64)
    write_in = torch.zeros(len(names), latents.shape[1], dtype=torch.float64)
    if good.any():
        read_out[:, good] = _regress(latents, values[:, good])
        write_in[good] = _writing(latents, read_out[:, good])
    low, high = given.quantile(0.02, dim=0), given.quantile(0.98, dim=0)
    # so that a channel reads 0 where its reading is 0
    rest = rest - (given.mean(dim=0) / deviation.clamp_min(1e-9)) @ write_in
    channels = tuple(
        Channel(name, parts[name], low[i].item(), high[i].item(), scores[i].item(), "readings")
        for i, name in enumerate(names)
    )
    read_out, write_in = read_out * deviation, write_in / deviation.clamp_min(1e-9)[:, None]
    return Rig(channels, read_out.float(), write_in.float(), rest.float(), motion.generation, weights)


def _regress(inputs: Tensor, outputs: Tensor) -> Tensor:
    """(T,n), (T,m) -> (n,m), so that inputs @ result is near the outputs."""
    covariance = inputs.T @ inputs
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=inputs.dtype)
    return torch.linalg.solve(covariance + ridge, inputs.T @ outputs)


def _writing(latents: Tensor, read_out: Tensor) -> Tensor:
    """What changes in a latent, on average, with each channel as it is read, while the others stay: (channels,size).

    From what is read in the latents and not from the readings, whose noise would make everything written too small.
    """
    read = latents @ read_out
    covariance = read.T @ read
    shared = SHARED * covariance.diagonal().diag()
    return torch.linalg.solve(covariance + shared, read.T @ latents)


def _held_out(latents: Tensor, values: Tensor, block: int) -> Tensor:
    """The correlation of each channel with its reading over frames that it was not learned from, (channels,)."""
    fold = torch.arange(len(latents)) // block % FOLDS
    read = torch.empty_like(values)
    for number in range(FOLDS):
        rest, held = fold != number, fold == number
        read[held] = latents[held] @ _regress(latents[rest], values[rest])
    return correlations(read, values)


def correlations(one: Tensor, other: Tensor) -> Tensor:
    """Of each column of (T,n) with the same column of the other, (n,); 0 where one of them is constant."""
    one, other = one - one.mean(dim=0), other - other.mean(dim=0)
    return (one * other).sum(dim=0) / (one.norm(dim=0) * other.norm(dim=0)).clamp_min(1e-9)
