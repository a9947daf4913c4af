"""Motion for speech that is still being spoken, in chunks, with a bounded look-ahead.

Motion is sampled in the same windows as the offline result (`Generator.sample`): the same 50 frames, noise and context.
Whenever a chunk is due, its window is sampled again from the same noise, with all the speech heard so far, and only
that chunk is kept. So where the same speech is heard, chunks of any size give the offline motion, and any difference
comes from speech not heard yet. Between chunks that difference is measured at the last frame already kept, added to
the new frames and faded out, so no chunk moves more than the window itself does. What is steered meanwhile is carried
in the same way. Between windows, and from the source's own pose into the first frame, motion is carried over as it is
offline (motion/inertia.py).
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import InputError
from .media.audio import FPS, SAMPLE_RATE, check_waveform, frame_count
from .media.resampling import StreamResampler
from .models.generator import Generator
from .models.precision import check_numbers
from .models.renderer import Source
from .motion.control import Control
from .motion.inertia import FRAMES, Inertia, Joins, check_joins, fading
from .motion.motion import Motion
from .sampling import Frames, check_settings, sample_window, stream_noise

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS

# The control of frames start to start + count, at 25 fps, counted from its own first row, which is frame `start`.
Steering = Callable[[int, int], Control]


class MotionStream:
    """Samples the motion of speech as it is heard; `Session` and `Live` render it.

        stream = MotionStream(generator, source, sample_rate=48000)
        stream.feed(samples)
        while (motion := stream.sample()) is not None:
            show(motion)
            stream.hand_out(len(motion))

    Settings, latency and memory are those of `Session`. `control` may be a function, asked whenever a chunk is sampled
    for the rows of its whole window; it need not give the same rows again.
    """

    def __init__(
        self,
        generator: Generator,
        source: Source,
        *,
        sample_rate: int,
        control: "Control | Steering | None" = None,
        cfg: float | None = None,
        nfe: int = 10,
        seed: int = 0,
        chunk: float = 0.4,
        lookahead: float = 0.2,
        history: float = 8.0,
        joins: Joins = "smooth",
    ):
        self._windows = _Windows(generator, source, control, cfg, nfe, seed)
        self._timing = _Timing.of(chunk, lookahead, history, generator.config.window)
        self._speech = _Speech(sample_rate, generator)
        check_joins(joins)
        self._inertia = Inertia(self._windows.displacement()) if joins == "smooth" else None  # after `_past`
        self._past = self._context = self._windows.blank  # the last frames handed out, and those before this window
        self._sampled = self._past.rows(slice(0))  # frames not handed out yet
        self.frame = 0  # how many frames were handed out

    @property
    def latency(self) -> float:
        """Seconds of audio, counted from a frame's own time, after which it can be sampled."""
        return (self._timing.chunk + self._timing.lookahead) / FPS + self.delay

    @property
    def delay(self) -> float:
        """The part of `latency` that the resampling filter reaches ahead, in seconds."""
        return self._speech.resampler.delay

    @property
    def heard(self) -> int:
        """Frames whose sound is known."""
        return self._speech.frames

    def feed(self, samples: Tensor) -> None:
        """Takes the next samples, (samples,) or (channels,samples), any number. InputError as for `Session.feed`."""
        self._speech.feed(samples)

    def finish(self) -> None:
        """No more sound will be fed: the frames left can be sampled without looking ahead."""
        self._speech.finish()

    def interrupt(self) -> None:
        """Drops all audio whose frames were not handed out yet; the next frames follow what is fed next."""
        self._sampled = self._sampled.rows(slice(0))
        self._speech.cut(self.frame)

    def steer(
        self,
        *,
        source: Source | None = None,
        control: "Control | Steering | None" = None,
        cfg: float | None = None,
        seed: int | None = None,
    ) -> None:
        """Changes what is given, from the next chunk on; the motion goes on smoothly. InputError as for `Session`."""
        self._windows.change(source, control, cfg, seed)

    def can_sample(self, after: int = 0) -> bool:
        """Whether enough has been heard for the chunk that follows `after` more frames."""
        start, heard = self.frame + after, self._speech.frames
        if self._speech.finished:
            return start < heard
        return self._end_of_chunk(start) + self._timing.lookahead <= heard

    def sample(self, catch_up: bool = False) -> Motion | None:
        """The next chunk, from frame `frame` on; None if too little has been heard for one.

        Called again before all of it was handed out, it samples what is left again.
        catch_up: the chunk is as long as what was heard allows, up to the end of its window.
        """
        if not self.can_sample():
            return None
        start, length, timing, heard = self.frame, self._windows.length, self._timing, self._speech.frames
        first = start - start % length  # of the window
        last = self._end_of_chunk(start)
        if catch_up and timing.lookahead < math.inf:
            last = min(max(last, heard - timing.lookahead), first + length)
        if start == first:
            self._context = self._past
        end = min(last + timing.lookahead, heard)
        with torch.inference_mode():
            speech = self._speech.projected(max(0, first - timing.history), first, end)
            window = self._windows.sample(first // length, self._context, speech)
            new = window.rows(slice(start - first, min(last, end) - first))
            latents = new.motion
            if start > first:
                moved = self._past.motion[-1] - window.motion[start - first - 1]
                latents = latents + fading(len(latents), FRAMES, 1).to(moved)[:, None] * moved
        self._sampled = replace(new, motion=latents)
        latents = check_numbers(latents.float().cpu(), "The sampled motion", latents.dtype)
        if self._inertia:
            latents = self._carried(copy.copy(self._inertia), latents)  # what is not handed out must leave no trace
        return Motion(latents, float(FPS), self._windows.generation)

    def hand_out(self, count: int) -> None:
        """The next `count` frames that were sampled are shown: they are the past of all that is sampled later."""
        new = self._sampled.rows(slice(count))
        if self._inertia:
            self._carried(self._inertia, new.motion)
        self._past = self._past.followed_by(new).rows(slice(-self._windows.context, None))
        self._sampled = self._sampled.rows(slice(count, None))
        self.frame += count

    def _end_of_chunk(self, start: int) -> int:
        length = self._windows.length
        return min(start + self._timing.chunk, start - start % length + length)

    def _carried(self, inertia: Inertia, latents: Tensor) -> Tensor:
        """The latents (n,C) of the next frames as they are shown."""
        latents = latents.float().cpu()
        return inertia.follow(latents) if self.frame % self._windows.length else inertia.join(latents)


@dataclass(frozen=True)
class _Timing:
    """A session's settings in frames; math.inf for an unlimited look-ahead or history."""

    chunk: int
    lookahead: float
    history: float

    @classmethod
    def of(cls, chunk: float, lookahead: float, history: float, window: int) -> "_Timing":
        """From seconds. InputError outside the limits."""
        chunk = _in_frames("chunk", chunk, 1, window)
        lookahead = _in_frames("lookahead", lookahead, 0)
        # everything heard before the first frame may as well be kept: it is encoded once
        return cls(chunk, lookahead, math.inf if lookahead == math.inf else _in_frames("history", history, 0))


class _Windows:
    """Samples any window of a session, as often as needed, always from the same noise."""

    def __init__(
        self,
        generator: Generator,
        source: Source,
        control: "Control | Steering | None",
        cfg: float | None,
        nfe: int,
        seed: int,
    ):
        config = generator.config
        self.length, self.context, self.generation = config.window, config.context, config.generation
        self._generator, self._nfe = generator, nfe
        self.change(source, control or Control(), config.cfg if cfg is None else cfg, seed)
        self.blank = Frames.blank(self.context, config.motion_size, config.condition_size, generator.anchor)

    def change(
        self, source: Source | None, control: "Control | Steering | None", cfg: float | None, seed: int | None
    ) -> None:
        """Replaces what is not None."""
        if source is not None:
            self._generator.check_source(source)
            self._source, self._reference = source, source.motion.to(self._generator.anchor)
        if cfg is not None:
            check_settings(cfg, self._nfe)
            self._cfg = cfg
        if control is not None:
            self._steering = _rows_of(control.at_fps(FPS)) if isinstance(control, Control) else control
        if seed is not None:
            # the noise of the windows up to number `_number`, of which the last is kept
            self._noises = stream_noise(self.length, self._generator.config.motion_size, seed)
            self._number, self._noise = None, None

    @torch.inference_mode()
    def displacement(self) -> Tensor:
        """See Generator.displacement."""
        settings = self._steering(0, 1), self._noise_of(0), self._cfg, self._nfe
        return self._generator.displacement(self._source, *settings)

    def _noise_of(self, number: int) -> Tensor:
        while self._number is None or self._number < number:
            self._number, self._noise = number if self._number is None else self._number + 1, next(self._noises)
        return self._noise.to(self._generator.anchor)

    def sample(self, number: int, before: Frames, speech: Tensor) -> Frames:
        """Window `number` after the frames `before`, with its projected speech as far as heard, (n,condition_size).

        Windows go forward: no number below that of the last call.
        """
        generator, noise = self._generator, self._noise_of(number)
        control = generator.project_control(self._steering(number * self.length, self.length), 0, self.length)
        return sample_window(generator.flow, noise, before, speech, control, self._reference, self._cfg, self._nfe)


def _rows_of(control: Control) -> Steering:
    """The steering that a control means: its rows by frame, its last one held."""

    def steering(start: int, count: int) -> Control:
        parts = control.parts()
        return replace(control, **{n: rows[min(start, len(rows) - 1) :][:count] for n, rows in parts.items()})

    return steering


class _Speech:
    """Audio at any rate, fed in pieces, as 16 kHz samples (640 a frame) and as projected features."""

    def __init__(self, sample_rate: int, generator: Generator):
        if not sample_rate > 0 or sample_rate % 1:
            raise InputError(f"The sample rate must be a whole number of Hz above 0, not {sample_rate}.")
        self.sample_rate = int(sample_rate)  # sound cards say 48000.0
        self.finished = False
        self.resampler = StreamResampler(self.sample_rate, SAMPLE_RATE)
        self._generator = generator
        self._samples = torch.zeros(0)  # at 16 kHz
        self._first = 0  # index of the first of them in all the audio
        self._span, self._features = None, None  # frames projected last, as (begin, end), and what they gave

    @property
    def frames(self) -> int:
        """Frames whose audio is known; once finished, a last frame known in part counts too."""
        samples = self._end + self.resampler.ready
        return frame_count(samples) if self.finished else samples // SAMPLES_PER_FRAME

    @property
    def _end(self) -> int:
        return self._first + len(self._samples)

    def feed(self, samples: Tensor) -> None:
        """Appends (samples,) or (channels,samples), averaging the channels; an empty tensor is fine."""
        if self.finished:
            raise InputError("This session is finished: make a new one for more audio.")
        if samples.ndim in (1, 2) and samples.numel() == 0:
            return
        self.resampler.feed(check_waveform(samples, self.sample_rate).mean(dim=0))

    def finish(self) -> None:
        if not self.finished:
            self.resampler.finish()
            self.finished = True

    def cut(self, frame: int) -> None:
        """Drops all audio from the start of a frame on; what is fed next follows there."""
        self._span = None
        self._samples = self._samples[: max(0, frame * SAMPLES_PER_FRAME - self._first)]
        self.resampler = StreamResampler(self.sample_rate, SAMPLE_RATE)
        if self.finished:
            self.resampler.finish()

    def projected(self, begin: int, first: int, end: int) -> Tensor:
        """The speech of frames `first` to `end`, (end-first,condition_size), encoded with that from `begin` on.

        Audio before `begin` is dropped.
        """
        if self._span != (begin, end):
            audio = self._generator.encode_audio(self._window(begin, end)[None], SAMPLE_RATE)
            self._span, self._features = (begin, end), self._generator.project_speech(audio.features)
        return self._features[first - begin :]

    def _window(self, begin: int, end: int) -> Tensor:
        """The samples (640*(end-begin),) of frames `begin` to `end`, fewer at the very end of the audio."""
        # no further than `end`, even if more is there: the numbers must not depend on how far ahead the audio came
        new = self.resampler.take(min(end * SAMPLES_PER_FRAME - self._end, self.resampler.ready))
        self._samples = torch.cat([self._samples, new])[begin * SAMPLES_PER_FRAME - self._first :]
        self._first = begin * SAMPLES_PER_FRAME
        return self._samples


def _in_frames(name: str, seconds: float, least: int, most: int | None = None) -> float:
    """Seconds as whole frames; math.inf stays itself where there is no upper limit."""
    frames = seconds if seconds == math.inf else round(seconds * FPS) if math.isfinite(seconds) else -1
    if frames < least or (most is not None and frames > most):
        limits = f"at least {least / FPS:g}" if most is None else f"from {least / FPS:g} to {most / FPS:g}"
        raise InputError(f"{name} must be {limits} seconds, not {seconds}.")
    return frames
