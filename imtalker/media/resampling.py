"""Resampling with one filter in three ways: a whole signal, a signal in blocks, and a live stream; all agree.

The filter is a windowed sinc, within -70 dB of soxr HQ on speech, the resampler behind the published features.
Rates are whole numbers of Hz, and a signal is extended with silence at both ends.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Fitted to soxr HQ: the passband ends at .9565 of the lower Nyquist frequency.
CUTOFF = 0.9565
ZERO_CROSSINGS = 96
KAISER_BETA = 12.3
PHASES = 192  # outputs per matrix product of `resample`
GATHERED = 1 << 22  # most numbers gathered for one product
BLOCK_SECONDS = 16  # length of the blocks of `resample_blocks`
STREAM_OUTPUTS = 4096  # outputs per product of `StreamResampler`


@dataclass(frozen=True)
class SincFilter:
    """The low-pass filter between two rates: output j lies at input j * down / up and sees `half` inputs each side."""

    up: int
    down: int
    half: int

    @classmethod
    def between(cls, from_rate: int, to_rate: int) -> "SincFilter":
        divisor = math.gcd(from_rate, to_rate)
        up, down = to_rate // divisor, from_rate // divisor
        half = 0 if up == down else math.ceil(ZERO_CROSSINGS / min(1, up / down))
        return cls(up, down, half)

    def outputs(self, samples: int) -> int:
        """Number of outputs for `samples` inputs."""
        return -(-samples * self.up // self.down)

    def taps(self, time: Tensor) -> Tensor:
        """Weights (n, taps) of inputs that lie `time` (n, taps) samples from their output, float64; rows sum to 1."""
        lower = min(1, self.up / self.down)
        taps = torch.sinc(time * lower * CUTOFF) * _kaiser(time * lower / ZERO_CROSSINGS)
        return taps / taps.sum(dim=1, keepdim=True)


def _kaiser(position: Tensor) -> Tensor:
    """Kaiser window at any position: largest at 0, zero outside -1..1, not normalised."""
    inside = (1 - position.square()).clamp(min=0).sqrt()
    return torch.special.i0(KAISER_BETA * inside) * (position.abs() < 1)


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resamples (..., samples) at `from_rate` Hz to (..., ceil(samples * to_rate / from_rate)) at `to_rate` Hz."""
    if from_rate == to_rate:
        return waveform
    sinc = SincFilter.between(from_rate, to_rate)
    up, down, half = sinc.up, sinc.down, sinc.half
    samples = sinc.outputs(waveform.shape[-1])
    # Outputs a whole number of periods apart share their taps; several periods at a time make larger, faster products.
    repeats = -(-PHASES // up)
    phases, step = up * repeats, down * repeats
    periods = -(-samples // phases)

    signal = waveform.reshape(-1, waveform.shape[-1])
    room = periods * step + half + PHASES * (down // up + 1) + 2
    signal = F.pad(signal, (half, room - signal.shape[-1]))
    output = signal.new_empty(len(signal), periods, phases)
    for first in range(0, min(phases, samples), PHASES):
        numbers = torch.arange(first, min(first + PHASES, phases))
        start = first * down // up
        # Integers up to here, so that positions are exact: where each output lies, in input samples after `start`.
        centre = (numbers * down - start * up).double() / up
        width = int(centre[-1]) + 2 * half + 1
        taps = sinc.taps(torch.arange(width) - half - centre[:, None]).T.to(signal.dtype)
        gathered = signal[:, start:].unfold(-1, width, step)
        batch = max(1, GATHERED // (width * len(signal)))
        for period in range(0, periods, batch):
            part = gathered[:, period : min(period + batch, periods)]
            output[:, period : period + batch, first : first + PHASES] = part @ taps
    return output.flatten(1)[:, :samples].reshape(*waveform.shape[:-1], samples)


class BlockReader:
    """Reads stretches of a signal that arrives in blocks; stretches may only move forward, the past is dropped."""

    def __init__(self, blocks: Iterable[Tensor], dim: int = -1):
        self._blocks, self._dim = iter(blocks), dim
        self._held: list[Tensor] = []
        self._first = self._end = 0  # position of the held blocks in the signal

    def read(self, start: int, stop: int) -> Tensor | None:
        """Positions start..stop, fewer at the end of the signal; None if there were no blocks at all."""
        while self._end < stop and (block := next(self._blocks, None)) is not None:
            self._held.append(block)
            self._end += block.shape[self._dim]
        if not self._held:
            return None
        joined = self._held[0] if len(self._held) == 1 else torch.cat(self._held, self._dim)
        passed = min(start - self._first, joined.shape[self._dim])
        joined = joined.narrow(self._dim, passed, joined.shape[self._dim] - passed)
        self._held, self._first = [joined], self._first + passed
        return joined.narrow(self._dim, 0, min(stop - start, joined.shape[self._dim]))


def resample_blocks(blocks: Iterable[Tensor], from_rate: int, to_rate: int) -> Iterator[Tensor]:
    """`resample` for a signal in blocks (..., n) of any length: yields other blocks, equal up to rounding."""
    if from_rate == to_rate:
        yield from blocks
        return
    sinc = SincFilter.between(from_rate, to_rate)
    up, down = sinc.up, sinc.down
    # Cuts lie at whole periods of the filter, where its phases start over.
    step = max(1, BLOCK_SECONDS * from_rate // down) * down
    margin = -(-(sinc.half + 1) // down) * down
    signal = BlockReader(blocks)
    for start in itertools.count(0, step):
        first = max(0, start - margin)
        part = signal.read(first, start + step + margin)
        if part is None or part.shape[-1] <= start - first:
            return
        skipped = (start - first) // down * up
        yield resample(part, from_rate, to_rate)[..., skipped : skipped + step // down * up]


class StreamResampler:
    """`resample` for one channel that arrives piece by piece: the same numbers, up to rounding.

    An output is ready once `delay` seconds of signal after it have arrived. Memory holds that much signal plus
    whatever has not been taken. The numbers depend on how many outputs are taken at a time, not on how the input was
    cut.
    """

    def __init__(self, from_rate: int, to_rate: int):
        self._filter = SincFilter.between(from_rate, to_rate)
        half = self._filter.half
        self.delay = half / from_rate
        self._pieces = [torch.zeros(half)]  # the silence before the signal
        self._first = -half  # index of the first input that is held
        self._fed = 0
        self._taken = 0
        self._finished = False
        self._phases, self._taps = torch.empty(0, dtype=torch.long), torch.empty(0, 0)

    @property
    def ready(self) -> int:
        """Number of outputs that can be taken now."""
        if self._finished:
            total = self._filter.outputs(self._fed)
        else:
            # output j needs all inputs up to j * down / up + half
            total = max(0, ((self._fed - self._filter.half) * self._filter.up - 1) // self._filter.down + 1)
        return total - self._taken

    def feed(self, samples: Tensor) -> None:
        """Appends (samples,) float32."""
        self._pieces.append(samples)
        self._fed += len(samples)

    def finish(self) -> None:
        """Ends the signal: it is extended with silence, so that all remaining outputs are ready."""
        self._pieces.append(torch.zeros(self._filter.half + 1))
        self._finished = True

    def take(self, count: int) -> Tensor:
        """Returns the next `count` outputs (count,); at most `ready`."""
        signal = torch.cat(self._pieces)
        blocks = [signal[:0]]
        for first in range(self._taken, self._taken + count, STREAM_OUTPUTS):
            blocks.append(self._outputs(signal, first, min(first + STREAM_OUTPUTS, self._taken + count)))
        self._taken += count
        passed = self._taken * self._filter.down // self._filter.up - self._filter.half - self._first
        self._pieces, self._first = [signal[passed:].clone()], self._first + passed
        return torch.cat(blocks)

    def _outputs(self, signal: Tensor, first: int, last: int) -> Tensor:
        up, down, half = self._filter.up, self._filter.down, self._filter.half
        if half == 0:
            return signal[first - self._first : last - self._first]
        # Integers, so that positions stay exact after hours.
        start = first * down // up
        position = torch.arange(last - first) * down + (first * down - start * up)
        whole, phase = position // up, position % up
        phases, row = phase.unique(return_inverse=True)
        if not torch.equal(phases, self._phases):
            time = torch.arange(-half, half + 2) - (phases.double() / up)[:, None]
            self._phases, self._taps = phases, self._filter.taps(time).float()
        begin = start - half - self._first
        width = self._taps.shape[1]
        missing = max(0, begin + int(whole[-1]) + width - len(signal))
        gathered = F.pad(signal, (0, missing))[begin:].unfold(0, width, 1)[whole]
        return (gathered * self._taps[row]).sum(dim=1)
