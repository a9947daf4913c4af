"""`imtalker.audio.resample` for a signal that arrives in pieces."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .audio import CUTOFF, ZERO_CROSSINGS, _kaiser

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
