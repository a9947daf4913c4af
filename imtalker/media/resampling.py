"""Resampling: a signal in memory, in blocks of a file, or arriving in pieces; one filter, the same numbers."""

import itertools
import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# Measured against soxr HQ, the filter behind the published features: cut off at .9565 of the lower Nyquist.
CUTOFF = 0.9565
ZERO_CROSSINGS = 96
KAISER_BETA = 12.3
# Outputs computed by one matrix product, and the most numbers one such product gathers.
PHASES = 192
GATHERED = 1 << 22
# Samples handed on at once: seconds of a file that is resampled, and values of a waveform in memory.
RESAMPLED_SECONDS = 16


class BlockReader:
    """Any stretch of a signal that comes in blocks, as long as the stretches move forward: the past is dropped."""

    def __init__(self, blocks: Iterable[Tensor], dim: int = -1):
        self._blocks, self._dim = iter(blocks), dim
        self._held: list[Tensor] = []
        self._first = self._end = 0  # where the held blocks lie in the signal

    def read(self, start: int, stop: int) -> Tensor | None:
        """Positions start..stop, fewer past the end; None where nothing was ever there."""
        while self._end < stop and (block := next(self._blocks, None)) is not None:
            self._held.append(block)
            self._end += block.shape[self._dim]
        if not self._held:
            return None
        joined = self._held[0] if len(self._held) == 1 else torch.cat(self._held, self._dim)
        begin = min(start - self._first, joined.shape[self._dim])
        joined = joined.narrow(self._dim, begin, joined.shape[self._dim] - begin)
        self._held, self._first = [joined], self._first + begin
        return joined.narrow(self._dim, 0, min(stop - start, joined.shape[self._dim]))


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """(..., samples) at one rate in Hz to (..., ceil(samples * to_rate / from_rate)) at another.

    Polyphase windowed sinc, within -70 dB of soxr HQ on speech; the ends are continued with silence. Rates are whole.
    """
    if from_rate == to_rate:
        return waveform
    divisor = math.gcd(from_rate, to_rate)
    up, down = to_rate // divisor, from_rate // divisor
    samples = -(-waveform.shape[-1] * up // down)
    lower = min(1, up / down)
    half = math.ceil(ZERO_CROSSINGS / lower)
    # Outputs a whole number of periods apart share a filter; several periods at once make larger, faster products.
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
        # In whole numbers until here: where each output lies, in input samples after `start`.
        centre = (numbers * down - start * up).double() / up
        window = int(centre[-1]) + 2 * half + 1
        time = torch.arange(window) - half - centre[:, None]
        kernel = torch.sinc(time * lower * CUTOFF) * _kaiser(time * lower / ZERO_CROSSINGS)
        kernel = (kernel / kernel.sum(dim=1, keepdim=True)).T.to(signal.dtype)
        gathered = signal[:, start:].unfold(-1, window, step)
        at_once = max(1, GATHERED // (window * len(signal)))
        for period in range(0, periods, at_once):
            part = gathered[:, period : min(period + at_once, periods)]
            output[:, period : period + at_once, first : first + PHASES] = part @ kernel
    return output.flatten(1)[:, :samples].reshape(*waveform.shape[:-1], samples)


def resample_blocks(blocks: Iterable[Tensor], from_rate: int, to_rate: int) -> Iterator[Tensor]:
    """`resample` of a signal that comes in blocks (..., n) and goes in others: the same numbers, up to rounding."""
    if from_rate == to_rate:
        yield from blocks
        return
    divisor = math.gcd(from_rate, to_rate)
    up, down = to_rate // divisor, from_rate // divisor
    # whole periods of the filter, so that every part is cut where the filter begins again
    step = max(1, RESAMPLED_SECONDS * divisor) * down
    around = -(-(math.ceil(ZERO_CROSSINGS * max(1, down / up)) + 1) // down) * down
    signal = BlockReader(blocks)
    for start in itertools.count(0, step):
        first = max(0, start - around)
        part = signal.read(first, start + step + around)
        if part is None or part.shape[-1] <= start - first:
            return
        done = (start - first) // down * up
        yield resample(part, from_rate, to_rate)[..., done : done + step // down * up]


def _kaiser(position: Tensor) -> Tensor:
    """Kaiser window at any position, 1 in the middle up to scale and nothing beyond -1..1."""
    inside = (1 - position.square()).clamp(min=0).sqrt()
    return torch.special.i0(KAISER_BETA * inside) * (position.abs() < 1)


AT_ONCE = 4096  # outputs computed by one product


class StreamResampler:
    """One channel from one whole rate in Hz to another: the numbers of `resample` on the whole signal, up to rounding.

    An output waits for `delay` seconds of sound after it; what is kept is that long too, plus what was not taken yet.
    Which numbers come out does not depend on the pieces that went in, only on how many are taken at a time.
    """

    def __init__(self, from_rate: int, to_rate: int):
        divisor = math.gcd(from_rate, to_rate)
        self._up, self._down = to_rate // divisor, from_rate // divisor
        self._lower = min(1, self._up / self._down)
        self._half = 0 if from_rate == to_rate else math.ceil(ZERO_CROSSINGS / self._lower)
        self.delay = self._half / from_rate
        self._pieces = [torch.zeros(self._half)]  # the silence before the beginning
        self._first = -self._half  # which input the first kept sample is
        self._fed = 0
        self._taken = 0
        self._finished = False
        self._phases, self._filters = torch.empty(0, dtype=torch.long), torch.empty(0, 0)

    @property
    def ready(self) -> int:
        """Outputs that can be taken now."""
        if self._finished:
            total = -(-self._fed * self._up // self._down)
        else:
            # output j lies at input j * down / up and needs all inputs up to `half` after that
            total = max(0, ((self._fed - self._half) * self._up - 1) // self._down + 1)
        return total - self._taken

    def feed(self, samples: Tensor) -> None:
        """Appends (samples,) float32."""
        self._pieces.append(samples)
        self._fed += len(samples)

    def finish(self) -> None:
        """Nothing more comes: the end is continued with silence, and all the rest is ready."""
        self._pieces.append(torch.zeros(self._half + 1))
        self._finished = True

    def take(self, count: int) -> Tensor:
        """The next `count` outputs (count,), at most as many as are `ready`."""
        signal = torch.cat(self._pieces)
        blocks = [signal[:0]]
        for first in range(self._taken, self._taken + count, AT_ONCE):
            blocks.append(self._outputs(signal, first, min(first + AT_ONCE, self._taken + count)))
        self._taken += count
        passed = self._taken * self._down // self._up - self._half - self._first
        self._pieces, self._first = [signal[passed:].clone()], self._first + passed
        return torch.cat(blocks)

    def _outputs(self, signal: Tensor, first: int, last: int) -> Tensor:
        if self._half == 0:
            return signal[first - self._first : last - self._first]
        # in whole numbers, so that hours do not blur where an output lies
        start = first * self._down // self._up
        position = torch.arange(last - first) * self._down + (first * self._down - start * self._up)
        whole, phase = position // self._up, position % self._up
        phases, which = phase.unique(return_inverse=True)
        if not torch.equal(phases, self._phases):
            self._phases, self._filters = phases, self._make_filters(phases)
        begin = start - self._half - self._first
        room = begin + int(whole[-1]) + self._filters.shape[1]
        gathered = F.pad(signal, (0, max(0, room - len(signal))))[begin:].unfold(0, self._filters.shape[1], 1)[whole]
        return (gathered * self._filters[which]).sum(dim=1)

    def _make_filters(self, phases: Tensor) -> Tensor:
        """(phases,taps): the filter of `resample` for outputs that lie phase / up after an input."""
        time = torch.arange(-self._half, self._half + 2) - (phases.double() / self._up)[:, None]
        kernel = torch.sinc(time * self._lower * CUTOFF) * _kaiser(time * self._lower / ZERO_CROSSINGS)
        return (kernel / kernel.sum(dim=1, keepdim=True)).float()
