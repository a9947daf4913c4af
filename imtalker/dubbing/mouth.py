"""What the mouth does: the motion that the new speech wants, and how it takes the place of the clip's own.

With a rig the mouth's part of each latent is exchanged. Weights of which no rig knows the mouth are dubbed by a
difference: what the new speech makes of a noise, less what the clip's own sound makes of the same.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..media.audio import FPS, SAMPLE_RATE, Audio, AudioFile, mono_16k
from ..media.resampling import BlockReader
from ..models.generator import Generator, StreamedFeatures
from ..models.renderer import Source
from ..motion.inertia import FRAMES, fading
from ..motion.motion import Motion
from ..motion.rig import GOOD, Rig
from ..motion.silence import QUIETEST, resting_at
from ..rigging import check_rig

log = logging.getLogger("imtalker")

# Degrees between which a turned head fades to the frame as it is.
TURNING, TURNED = 35.0, 45.0
SETTLING = 12  # frames at the start of a sampled clip that are on their way from its first pose


@dataclass(frozen=True)
class Manner:
    """How the mouth moves.

    strength: 0..2, of its movement about its rest; 0 keeps it shut.
    gate: dB of full scale, -120..0; where the speech is quieter the mouth rests. -120: never.
    head: 0..1, how much of the head's own movement the pasted face has; 0 keeps the pose of the shot's first frame.
    cfg, nfe, seed: as for `Generator.sample`.
    """

    strength: float = 1.0
    gate: float = -50.0
    head: float = 1.0
    cfg: float | None = None
    nfe: int = 10
    seed: int = 0

    def __post_init__(self):
        for what, value, low, high in (
            ("strength", self.strength, 0, 2),
            ("gate", self.gate, QUIETEST, 0),
            ("head", self.head, 0, 1),
        ):
            if not low <= value <= high:
                raise InputError(f"The {what} must be from {low:g} to {high:g}, not {value:g}.")


class Mouth:
    """The mouth of a dubbed clip. rig: of the generator's weights; None, or one without a mouth part, for a difference.

    InputError: a rig of other weights, or without the part that the manner needs.
    """

    def __init__(self, generator: Generator, rig: Rig | None, manner: Manner):
        self._generator, self._rig, self._manner = generator, rig, manner
        if rig is not None:
            check_rig(rig, generator)
        self._by_part = rig is not None and bool(rig.usable(["mouth"]))
        if not self._by_part:
            log.warning("No rig tells the mouth of these weights apart: what speech changes is added to the clip.")
        if manner.head < 1 and not (rig and rig.usable(["head"])):
            raise InputError("No rig tells the head of these weights apart: leave head at 1, or give another rig.")

    def wanted(
        self, person: Source, speech: Audio | AudioFile, own: Audio | AudioFile | None, frames: int
    ) -> Iterator[Motion]:
        """What `change` is to be given, in blocks, at least `frames` latents at 25 a second.

        Where the speech is quiet, and after its end, the mouth rests. person: the first frame that is dubbed. own: the
        clip's own sound, None for a silent one.
        """
        opened = 1 - resting_at(loudness(speech), FPS, self._manner.gate)
        listened = self._generator.listen(speech)
        rests = self._rests(person, max(frames, len(opened)))
        owns = None if self._by_part else _endless(self._sampled(person, self._generator.listen(own) if own else None))
        done, away = 0, None
        for block in self._sampled(person, listened):
            rest = rests.read(done, done + len(block))
            away = self._manner.strength * opened[done : done + len(block), None] * (block.latents - rest)
            yield self._relative(replace(block, latents=rest + away), owns, done)
            done += len(block)
            if done >= frames:
                return
        count = self._generator.config.window
        for number, start in enumerate(range(done, frames, count)):
            closing = fading(count, FRAMES, number * count + 1)[:, None]
            rest = rests.read(start, start + count)
            yield self._relative(replace(block, latents=rest + closing * away[-1:]), owns, start)

    @property
    def by_difference(self) -> bool:
        """Whether `wanted` needs the clip's own sound."""
        return not self._by_part

    @property
    def steadies(self) -> bool:
        """Whether `change` needs a pose."""
        return self._manner.head < 1

    def change(self, own: Motion, wanted: Tensor, share: Tensor, pose: Tensor | None = None) -> Motion:
        """The clip's own motion with the mouth of the speech, one row a frame.

        wanted: (n,size). share: (n,) 0..1, how much of the mouth is the speech's. pose: (n,size), the latents of the
        shots' first frames, towards which the head is steadied.
        """
        if self._by_part:
            changed = self._rig.combine(own, replace(own, latents=wanted), ["mouth"], share)
        else:
            changed = replace(own, latents=own.latents + share[:, None] * wanted)
        if self.steadies:
            changed = self._rig.combine(changed, replace(own, latents=pose), ["head"], 1 - self._manner.head)
        return changed

    def facing(self, own: Motion) -> Tensor:
        """How far the head faces the camera, (n,) 0..1; 1 if no rig has learned yaw from readings, or knows its name.

        What the generator alone says of a head's turn is not exact enough.
        """
        known = self._rig and [c for c in self._rig.channels if c.name == "yaw" and c.origin != "generator"]
        if not known or known[0].score < GOOD:
            return torch.ones(len(own))
        t = ((self._rig.read(own)["yaw"].abs() - TURNING) / (TURNED - TURNING)).clamp(0, 1)
        return 1 - t * t * (3 - 2 * t)

    def _sampled(self, person: Source, heard: StreamedFeatures | None) -> Iterator[Motion]:
        heard = heard or _Silence(self._generator, self._generator.config.window)
        manner = self._manner
        return self._generator.stream(heard, person, cfg=manner.cfg, nfe=manner.nfe, seed=manner.seed)

    def _rests(self, person: Source, frames: int) -> BlockReader:
        """The latents (n,size) of the person who says nothing."""
        if self._by_part:
            window = next(self._sampled(person, None))
            rest = window.latents[SETTLING:].mean(dim=0, keepdim=True)
            return BlockReader(itertools.repeat(rest.expand(len(window), -1)), dim=0)
        # from the noise of the speech, so that in the difference nothing but the speech is left
        return _endless(self._sampled(person, _Silence(self._generator, frames)))

    def _relative(self, wanted: Motion, owns: BlockReader | None, start: int) -> Motion:
        if owns is None:
            return wanted
        return replace(wanted, latents=wanted.latents - owns.read(start, start + len(wanted)))


class _Silence:
    """Audio features of silence, `frames` long, for `Generator.stream`."""

    def __init__(self, generator: Generator, frames: int):
        self._frames, self._window = frames, generator.config.window
        self._row = generator.encode_audio(torch.zeros(1, SAMPLE_RATE), SAMPLE_RATE).features[-1:]

    def __len__(self) -> int:
        return self._frames

    @property
    def size(self) -> int:
        return self._row.shape[1]

    def blocks(self) -> Iterator[Tensor]:
        for start in range(0, self._frames, self._window):
            yield self._row.expand(min(self._window, self._frames - start), -1)


def _endless(blocks: Iterator[Motion]) -> BlockReader:
    """The latents of a motion, the last one repeated for ever."""

    def rows() -> Iterator[Tensor]:
        for block in blocks:
            yield block.latents
        while True:
            yield block.latents[-1:].expand(len(block), -1)

    return BlockReader(rows(), dim=0)


def loudness(speech: Audio | AudioFile) -> Tensor:
    """The level of each frame of the speech at 25 frames a second, (T,), in dB of full scale."""
    signal, found = BlockReader(mono_16k(speech)), []
    each = SAMPLE_RATE // FPS
    for start in itertools.count(0, SAMPLE_RATE):
        part = signal.read(start, start + SAMPLE_RATE)
        found.append(F.pad(part, (0, -len(part) % each)).view(-1, each).square().mean(dim=1))
        if len(part) < SAMPLE_RATE:
            return 10 * torch.cat(found).clamp_min(10 ** (QUIETEST / 10)).log10()
