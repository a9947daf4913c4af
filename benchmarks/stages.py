"""Where the time of a whole run goes, from the sound file to the video file: --profile of the benchmarks."""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imtalker import pipeline
from imtalker.media import video
from imtalker.models import backend, generator
from imtalker.models.audio_encoder import AudioEncoder
from imtalker.models.renderer import Renderer

# what is called, by owner and name; a call inside another is counted in its own stage alone
STAGES = {
    "sound: first pass": (AudioEncoder, "measure"),
    "sound: features": (AudioEncoder, "features"),
    "motion: sampling": (generator, "sample_windows"),
    "motion: encoding of driving pictures": (Renderer, "encode_motion"),
    "source": (Renderer, "encode_source"),
    "portrait: face and crop": (pipeline, "encode_portrait"),
    "frames: rendering": (Renderer, "_frames"),
    "frames: copies to the CPU": (backend, "to_cpu"),
    "video: 8 bits a value": (video, "_single_frames"),
    "video: sound track": (video.Soundtrack, "read"),
    "video: encoding and file": (video, "_encode"),
}


class Stopwatch:
    """Seconds by stage; entering one stops the clock of the stage it is in. One thread's calls count."""

    def __init__(self, synchronise: Callable[[], None]):
        self.seconds: dict[str, float] = {}
        self._synchronise = synchronise
        self._inside: list[str] = []
        self._since = 0.0
        self._thread = threading.get_ident()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if threading.get_ident() != self._thread:
            yield
            return
        self._count()
        self._inside.append(name)
        try:
            yield
        finally:
            self._count()
            self._inside.pop()

    def _count(self) -> None:
        """The seconds since the last call are the innermost stage's."""
        self._synchronise()
        now = time.perf_counter()
        if self._inside:
            self.seconds[self._inside[-1]] = self.seconds.get(self._inside[-1], 0) + now - self._since
        self._since = now

    def watch(self, name: str, function: Callable) -> Callable:
        """The same function; where it returns an iterator, each of its steps counts."""

        @functools.wraps(function)
        def watched(*args, **kwargs):
            with self.stage(name):
                result = function(*args, **kwargs)
            return self._steps(name, result) if isinstance(result, Iterator) else result

        return watched

    def _steps(self, name: str, steps: Iterator) -> Iterator:
        while True:
            with self.stage(name):
                try:
                    step = next(steps)
                except StopIteration:
                    return
            yield step


def seconds_by_stage(work: Callable[[], object], synchronise: Callable[[], None]) -> dict[str, float]:
    """Seconds of `work` in each stage that it enters, in all ("total") and outside of them ("other").

    The device is waited for at each stage's end, so that nothing overlaps: the total is more than without.
    """
    watch = Stopwatch(synchronise)
    kept = {place: getattr(*place) for place in STAGES.values()}
    try:
        for name, place in STAGES.items():
            setattr(*place, watch.watch(name, kept[place]))
        started = time.perf_counter()
        work()
        synchronise()
        total = time.perf_counter() - started
    finally:
        for place, function in kept.items():
            setattr(*place, function)
    return watch.seconds | {"other": total - sum(watch.seconds.values()), "total": total}
