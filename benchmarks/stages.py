"""Where the time of a run goes, from audio file to video file; the benchmarks' --profile prints it."""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imtalker import pipeline
from imtalker.media import video_writer
from imtalker.models import backend, generator
from imtalker.models.audio_encoder import AudioEncoder
from imtalker.models.renderer import Renderer

# the function of each stage, by owner and name; a nested call counts in its own stage only
STAGES = {
    "audio: first pass": (AudioEncoder, "measure"),
    "audio: features": (AudioEncoder, "features"),
    "motion: sampling": (generator, "sample_windows"),
    "motion: encoding driving frames": (Renderer, "encode_motion"),
    "source": (Renderer, "encode_source"),
    "portrait: face and crop": (pipeline, "encode_portrait"),
    "frames: rendering": (Renderer, "forward"),
    "frames: copy to the CPU": (backend, "to_cpu"),
    "video: conversion to 8 bits": (video_writer, "_single_frames"),
    "video: audio track": (video_writer.Soundtrack, "read"),
    "video: encoding and writing": (video_writer, "_encode"),
}


class Stopwatch:
    """Seconds by stage. Entering a stage pauses the stage around it; only calls from one thread count."""

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
        """Adds the seconds since the last call to the innermost stage."""
        self._synchronise()
        now = time.perf_counter()
        if self._inside:
            self.seconds[self._inside[-1]] = self.seconds.get(self._inside[-1], 0) + now - self._since
        self._since = now

    def watch(self, name: str, function: Callable) -> Callable:
        """Times a function; if it returns an iterator, each of its steps is timed too."""

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
    """Seconds that `work` spends in each stage it enters, outside of all ("other"), and in total ("total").

    Waits for the device at the end of each stage so that nothing overlaps, which makes the total longer than usual.
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
