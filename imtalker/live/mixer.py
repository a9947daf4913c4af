"""What a live face says: queued speech and live sound, mixed as time goes by, and cut off where somebody interrupts."""

import math
import threading

import torch
from torch import Tensor

from ..errors import InputError
from ..media.audio import FPS, SAMPLE_RATE
from ..media.resampling import SincFilter
from .sound import BLOCKS, Gate, Microphone, Queue, Record, mono

KEPT = 10  # seconds of what was said
PER_FRAME = BLOCKS // FPS  # blocks
RATES = 8000, 192000
MOST_QUEUED = 600  # seconds that wait to be said


class Mixer:
    """The sound of a live face, frame by frame: (size,) samples each.

    A frame's sound is mixed when its time is over, and a little of the next one's ahead: as much as the filter to the
    models' rate reaches. `read` may be called from another thread.
    """

    def __init__(self, sample_rate: int):
        low, high = RATES
        if not low <= sample_rate <= high or sample_rate % BLOCKS:
            raise InputError(
                f"A live face speaks at {low} to {high} Hz, in whole hundreds, not at {sample_rate}: choose 48000."
            )
        self.sample_rate = int(sample_rate)
        self.size = self.sample_rate // FPS
        delay = SincFilter.between(self.sample_rate, SAMPLE_RATE).half / self.sample_rate
        self._lead = math.ceil(delay * BLOCKS - 1e-9)  # blocks
        self._mixed = 0  # blocks
        self.queue, self.microphone, self.other = Queue(), Microphone(self.sample_rate), Gate()
        self._unheard = torch.zeros(0)  # of the other side, less than a block
        self._said, self._live = (Record(KEPT * self.sample_rate) for _ in range(2))  # all of it, the microphone's part
        self._lock = threading.Lock()

    @property
    def frames(self) -> int:
        """Frames whose sound is known."""
        return max(0, self._mixed - self._lead) // PER_FRAME

    @property
    def end(self) -> int:
        """Samples that are known."""
        return self._said.end

    def say(self, samples: Tensor, sample_rate: int) -> None:
        """Queues speech. InputError: unusable sound, or more than 10 minutes waiting."""
        samples = mono(samples, sample_rate, self.sample_rate)
        if self.queue.samples + len(samples) > MOST_QUEUED * self.sample_rate:
            raise InputError(f"At most {MOST_QUEUED // 60} minutes of speech can wait: interrupt it, or say less.")
        self.queue.put(samples)

    def mirror(self, samples: Tensor, sample_rate: int) -> bool:
        """Takes live sound that moves the lips, none is fine; returns whether somebody speaks."""
        if samples.numel():
            self.microphone.put(mono(samples, sample_rate, self.sample_rate))
        return self.microphone.gate.speaking

    def hear(self, samples: Tensor, sample_rate: int) -> bool:
        """Listens to the other side, whose voice is not mixed in; returns whether it speaks."""
        if not samples.numel():
            return self.other.speaking
        samples = torch.cat([self._unheard, mono(samples, sample_rate, self.sample_rate)])
        block = self.sample_rate // BLOCKS
        whole = len(samples) // block * block
        for piece in samples[:whole].split(block):
            self.other.hear(piece)
        self._unheard = samples[whole:].clone()
        return self.other.speaking

    def mix(self, frames: int) -> None:
        """Mixes what is missing until the sound of so many frames is known."""
        blocks = frames * PER_FRAME + self._lead - self._mixed
        if blocks <= 0:
            return
        live = self.microphone.take(blocks)
        mixed = (live + self.queue.take(len(live))).clamp(-1, 1)
        with self._lock:
            self._said.append(mixed)
            self._live.append(live)
        self._mixed += blocks

    def read(self, start: int, stop: int) -> Tensor:
        """Samples start..stop of what was said so far."""
        with self._lock:
            return self._said.read(start, stop)

    def interrupt(self, frame: int) -> None:
        """Speech that waits, or was mixed from `frame` on, is not said; what the microphone heard stays."""
        self.queue.clear()
        start = frame * self.size
        with self._lock:
            live = self._live.read(start, self._live.end)
            fading = self.sample_rate // BLOCKS
            ramp = torch.linspace(1, 0, fading)[: len(live)]
            old = self._said.read(start, start + len(ramp))
            live[: len(ramp)] += ramp * (old - live[: len(ramp)])
            self._said.rewrite(start, live)
