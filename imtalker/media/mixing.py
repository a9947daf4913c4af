"""Two sounds as one, streamed."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .audio import BLOCK, Audio, AudioFile
from .resampling import BlockReader, resample_blocks


@dataclass(frozen=True)
class Mixed:
    """A sound with another one under it, at the first one's rate, until both have ended; in one channel or two.

    volume: 0..1, of the sound under it.
    """

    over: Audio | AudioFile
    under: Audio | AudioFile
    volume: float

    @property
    def sample_rate(self) -> int:
        return self.over.sample_rate

    @property
    def samples(self) -> int:
        return max(self.over.samples, round(self.under.samples * self.over.sample_rate / self.under.sample_rate))

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    def blocks(self) -> Iterator[Tensor]:
        """Yields the sum in blocks (channels, n), clipped to -1..1."""
        over = BlockReader(map(_one_or_two, self.over.blocks()))
        under = resample_blocks(self.under.blocks(), self.under.sample_rate, self.over.sample_rate)
        under = BlockReader(map(_one_or_two, under))
        for start in itertools.count(0, BLOCK):
            parts = [sound.read(start, start + BLOCK) for sound in (over, under)]
            parts = [part for part in parts if part is not None]
            length = max((part.shape[1] for part in parts), default=0)
            if not length:
                return
            a, b = (F.pad(part, (0, length - part.shape[1])) for part in parts)
            yield (a + self.volume * b).clamp(-1, 1)


def _one_or_two(block: Tensor) -> Tensor:
    return block if len(block) <= 2 else block.mean(dim=0, keepdim=True)
