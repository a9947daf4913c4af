"""Time stamps: mended where they jump, sound placed on them, and the constant rate of a video."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from av import Packet

# Seconds. A stream may fall back by BACK, as badly interleaved ones do; a longer way back is a jump.
BACK = 0.1
# After a pause longer than this the next packet tells whether the time stamp was meant.
LEAP = 1.0
# A gap longer than this is a broken time stamp.
MAX_GAP = 600
# Sound this far from its time stamp is left there: containers and recorders round and jitter.
SLACK = 0.015

# Blocks that are looked at after one that is not at its time.
AHEAD = 3
# Containers round the times of frames to as little as a millisecond.
ROUNDING = Fraction(2, 1000)

STANDARD_RATES = tuple(
    Fraction(rate) for rate in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 72, 90, 100, 120, 144, 240)
) + tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120, 240))
LOWEST_RATE, HIGHEST_RATE, HIGHEST_STATED = 1, 240, 1000


def mended(packets: "Iterable[Packet]", note: Callable[[str], None]) -> "Iterator[Packet]":
    """Packets of several streams, with time stamps that do not jump.

    Where the times of a stream fall back, as in files that were joined end to end, or leap beyond MAX_GAP, the stream
    goes on where it was and the others follow, so that they stay together. A lone stray time stamp is set right.
    note: called with what was mended, in words.
    """
    clock = _Clock(note)
    held: dict[int, Packet] = {}
    for packet in packets:
        index = packet.stream_index
        earlier = held.pop(index, None)
        if earlier is not None:
            yield clock.settled(earlier, stray=clock.falls_back(packet, earlier))
        if clock.leaps(packet):
            held[index] = packet
        else:
            yield clock.settled(packet)
    for packet in held.values():
        yield clock.settled(packet)


class _Clock:
    """Shifts of the time stamps, in seconds, by stream."""

    def __init__(self, note: Callable[[str], None]):
        self._note = note
        self._shift: dict[int, float] = {}
        self._last: dict[int, float] = {}  # decoding time of the latest packet; those of display run up and down
        self._end: dict[int, float] = {}  # end of the latest packet
        self._length: dict[int, float] = {}
        self._start: float | None = None  # of the file
        self._warned = False

    def _time(self, packet: "Packet") -> float | None:
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None or packet.time_base is None:
            return None
        return stamp * float(packet.time_base)

    def falls_back(self, packet: "Packet", earlier: "Packet") -> bool:
        now, before = self._time(packet), self._time(earlier)
        return now is not None and before is not None and now < before - BACK

    def leaps(self, packet: "Packet") -> bool:
        """Whether a packet comes much later than every stream is."""
        time = self._time(packet)
        if time is None or packet.stream_index not in self._end:
            return False
        return time + self._shift[packet.stream_index] > max(self._end.values()) + LEAP

    def settled(self, packet: "Packet", stray: bool = False) -> "Packet":
        """The packet, its time stamps mended. stray: the time stamp is known to be wrong."""
        time = self._time(packet)
        if time is None:
            return packet
        if (
            packet.pts is not None
            and packet.dts is not None
            and abs(packet.pts - packet.dts) > MAX_GAP / packet.time_base
        ):
            packet.pts = packet.dts
        self._start = time if self._start is None else self._start
        index, shift = packet.stream_index, self._shift.get(packet.stream_index, 0.0)
        if stray or not self._fits(index, time + shift):
            end = self._end.get(index, max(self._end.values(), default=time))
            if not self._warned:
                self._warned = True
                jump = time + shift - end
                self._note(f"skipped a jump of {jump:.{0 if abs(jump) > 9.5 else 1}f} s in its time stamps")
            if stray:
                return self._moved(packet, end - time)
            others = [other for key, other in self._shift.items() if key != index and abs(time + other - end) < LEAP]
            shift = others[0] if others else end - time
        length = (packet.duration or 0) * float(packet.time_base)
        # before a gap MP4 states the gap as the duration
        self._length[index] = length if length <= LEAP else self._length.get(index, 0.0)
        self._shift[index], self._end[index] = shift, time + shift + self._length[index]
        if packet.dts is not None:
            self._last[index] = time + shift
        return self._moved(packet, shift)

    def _fits(self, index: int, time: float) -> bool:
        if not self._end:
            return True
        if time > max(self._end.values()) + MAX_GAP:
            return False
        return time > (self._last[index] - BACK if index in self._last else self._start - MAX_GAP)

    def _moved(self, packet: "Packet", seconds: float) -> "Packet":
        if seconds:
            ticks = round(seconds / float(packet.time_base))
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        return packet


def placed(blocks: Iterable[tuple[float | None, Tensor]], rate: int, zero: float | None) -> Iterator[Tensor]:
    """Blocks of sound (channels, n) with their times in seconds, as one signal that starts at `zero`.

    Silence fills gaps, and what comes before `zero` or twice is cut. Sound within SLACK of its time is left there, and
    so is a block whose time the next ones contradict. zero: None for the start of the first block.
    """
    position, started = 0, False
    held: deque[tuple[float | None, Tensor]] = deque()
    for item in itertools.chain(blocks, [None] * AHEAD):
        if item is not None:
            held.append(item)
            if zero is None and item[0] is not None:
                zero = item[0]
        if not held or (item is not None and len(held) <= AHEAD):
            continue
        late = _lateness(held, position, rate, zero, 0 if not started else SLACK * rate)
        _, block = held.popleft()
        for start in range(0, late, rate):
            yield block.new_zeros(len(block), min(rate, late - start))
        block = block[:, max(0, -late) :]
        position += max(0, late) + block.shape[-1]
        if block.shape[-1]:
            started = True
            yield block


def _lateness(
    held: "deque[tuple[float | None, Tensor]]", position: int, rate: int, zero: float | None, slack: float
) -> int:
    """By how many samples the next block starts after (or before) `position`; 0 where that may be jitter."""
    first = held[0][0]
    late = 0 if first is None else round((first - zero) * rate) - position
    if not slack or abs(late) <= slack:
        return late if not slack else 0
    lates = []
    for time, block in held:
        if time is not None:
            lates.append(round((time - zero) * rate) - position)
        position += block.shape[-1]
    nearest = min(lates, key=abs)
    same = all(late > slack for late in lates) or all(late < -slack for late in lates)
    return nearest if same else 0


def constant_rate(stated: Fraction | None, times: list[Fraction]) -> Fraction | None:
    """A sane constant rate for a video: its `stated` average, unless the `times` of frames say that the rate varies.

    Then it is the rate of most pairs of frames, a standard one where near, 1..240. None if nothing is known.
    """
    steps = sorted(b - a for a, b in itertools.pairwise(sorted(set(times))))
    stated = stated if stated and stated <= HIGHEST_STATED else None
    if not steps:
        return stated if stated and stated <= HIGHEST_RATE else None
    usual = steps[len(steps) // 2]
    regular = [step for step in steps if abs(step - usual) <= max(ROUNDING, usual / 50)]
    rate = len(regular) / sum(regular)
    if stated and abs(stated / rate - 1) < 0.005:
        # a single odd step moves the average
        exact = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
        return exact if abs(exact / rate - 1) < 0.0005 and stated not in STANDARD_RATES else stated
    if len(regular) < 0.9 * len(steps) and stated and 0.8 < stated / rate < 1.25:
        return _standard(stated, 0.005)
    return _standard(rate, 0.01 if usual > 5 * ROUNDING else 0.05) if len(steps) > 1 else stated or rate


def _standard(rate: Fraction, within: float) -> Fraction:
    """The nearest standard rate, if the relative difference is within `within`; else the rate itself, 1..240."""
    nearest = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
    rate = nearest if abs(nearest / rate - 1) <= within else rate.limit_denominator(1001)
    return min(max(rate, Fraction(LOWEST_RATE)), Fraction(HIGHEST_RATE))
