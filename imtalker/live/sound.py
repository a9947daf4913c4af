"""Sound on its way to a live face: what waits to be said, what a microphone hears, and a record of what was said.

Sound is mono float32 in -1..1, cut into blocks of 10 ms.
"""

from collections import deque

import torch
from torch import Tensor

from ..media.audio import check_waveform
from ..media.resampling import resample

BLOCKS = 100  # a second
QUIETEST = -50.0  # dB below full scale; fainter is never speech
ABOVE_NOISE = 10.0  # dB that speech is louder than the room
LOUDEST_ROOM = -35.0  # dB; a room is not taken to be louder than that
ADAPTING = 4.0  # dB a second that the room is believed to have become louder
ONSET = 2  # loud blocks after which the gate opens
HOLD = 30  # blocks that it stays open after the last loud one
BEFORE = 5  # blocks before the first loud one that pass as well
SPEAKING, LATELY = 6, 8  # so many loud ones of the last blocks are somebody speaking, not a click
JITTER = 4  # blocks that wait, so that none is missing when it is needed
TOO_MANY, FAR_TOO_MANY = 10, 40  # blocks beyond those that wait: dropped where nobody speaks, dropped at once


def mono(samples: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Any sound (samples,) or (channels,samples) as (n,) at another rate. InputError: empty, NaN, another shape."""
    return resample(check_waveform(samples, from_rate).mean(dim=0), from_rate, to_rate)


class Gate:
    """Tells speech from a quiet room, block by block.

    The generator hears faint noise as loud as speech, since loudness is normalised: what is no speech has to be zeros.
    """

    def __init__(self):
        self._room = QUIETEST
        self._loud: deque[bool] = deque(maxlen=LATELY)
        self._since = HOLD + 1  # blocks since the last loud one, while open
        self._run = 0  # loud blocks one after the other

    @property
    def is_open(self) -> bool:
        return self._since <= HOLD

    @property
    def speaking(self) -> bool:
        """Whether somebody has begun to speak, and not only clicked."""
        return sum(self._loud) >= SPEAKING

    def hear(self, block: Tensor) -> None:
        level = 10 * float(torch.log10(block.square().mean() + 1e-12))
        loud = level > max(QUIETEST, min(self._room, LOUDEST_ROOM) + ABOVE_NOISE)
        self._room = min(self._room + ADAPTING / BLOCKS, level) if level > -90 else self._room
        self._loud.append(loud)
        self._run = self._run + 1 if loud else 0
        if self._run >= ONSET:
            self._since = 0
        else:
            self._since += 1


class Microphone:
    """Live sound, gated, with a short buffer for blocks that come late."""

    def __init__(self, sample_rate: int):
        self.gate = Gate()
        self._size = sample_rate // BLOCKS
        self._rest = torch.zeros(0)  # less than a block
        self._blocks: deque[tuple[Tensor, bool]] = deque()  # and whether the gate was open
        self._waiting = True  # for the buffer to fill
        self._open = False  # at the end of what was taken

    def put(self, samples: Tensor) -> None:
        """Appends (n,) samples."""
        samples = torch.cat([self._rest, samples])
        whole = len(samples) // self._size * self._size
        self._rest = samples[whole:].clone()
        for block in samples[:whole].split(self._size):
            was_open = self.gate.is_open
            self.gate.hear(block)
            if self.gate.is_open and not was_open:
                late = min(BEFORE, len(self._blocks))
                for index in range(len(self._blocks) - late, len(self._blocks)):
                    self._blocks[index] = self._blocks[index][0], True
            self._blocks.append((block, self.gate.is_open))

    def take(self, blocks: int) -> Tensor:
        """The next blocks, (blocks * size,): zeros where nobody speaks or nothing has arrived."""
        spare = len(self._blocks) - blocks - JITTER
        while spare > FAR_TOO_MANY or (spare > TOO_MANY and not self._blocks[0][1]):
            self._blocks.popleft()
            spare -= 1
        if self._waiting and len(self._blocks) < blocks + JITTER:
            return self._gated([], blocks)
        taken = [self._blocks.popleft() for _ in range(min(blocks, len(self._blocks)))]
        self._waiting = len(taken) < blocks
        return self._gated(taken, blocks)

    def _gated(self, taken: list[tuple[Tensor, bool]], blocks: int) -> Tensor:
        taken = taken + [(torch.zeros(self._size), False)] * (blocks - len(taken))
        ramp, given = torch.linspace(0, 1, self._size), []
        for block, is_open in taken:
            if is_open != self._open:
                block = block * (ramp if is_open else ramp.flip(0))
            elif not is_open:
                block = torch.zeros_like(block)
            given.append(block)
            self._open = is_open
        return torch.cat(given)


class Queue:
    """Speech that waits to be said."""

    def __init__(self):
        self._pieces: deque[Tensor] = deque()
        self.samples = 0

    def put(self, samples: Tensor) -> None:
        self._pieces.append(samples)
        self.samples += len(samples)

    def take(self, count: int) -> Tensor:
        """The next `count` samples, zeros after the end."""
        given, missing = [], count
        while missing and self._pieces:
            piece = self._pieces.popleft()
            given.append(piece[:missing])
            if len(piece) > missing:
                self._pieces.appendleft(piece[missing:])
            missing -= len(given[-1])
        self.samples -= count - missing
        return torch.cat([*given, torch.zeros(missing)])

    def clear(self) -> None:
        self._pieces.clear()
        self.samples = 0


class Record:
    """The last `keep` samples of a signal, by their position in the whole of it."""

    def __init__(self, keep: int):
        self._keep = keep
        self._held = torch.zeros(0)
        self.end = 0

    @property
    def first(self) -> int:
        return self.end - len(self._held)

    def append(self, samples: Tensor) -> None:
        self._held = torch.cat([self._held, samples])[-self._keep :]
        self.end += len(samples)

    def read(self, start: int, stop: int) -> Tensor:
        """Samples start..stop, zeros where they are no longer, or not yet, held."""
        before, after = max(0, self.first - start), max(0, stop - max(self.end, start))
        held = self._held[max(0, start - self.first) : max(0, stop - self.first)]
        before = min(before, stop - start)
        return torch.cat([torch.zeros(before), held, torch.zeros(min(after, stop - start - before))])

    def rewrite(self, start: int, samples: Tensor) -> None:
        """Replaces what is held from `start` on, as far as `samples` goes."""
        cut = max(0, self.first - start)
        at = start + cut - self.first
        self._held = torch.cat([self._held[:at], samples[cut:], self._held[at + len(samples) - cut :]])
