"""A live session: speech in as it arrives, frames out with a bounded look-ahead.

Motion is sampled in the same windows as the offline result (`Generator.sample`): the same 50 frames, noise and context.
Whenever a chunk is due, its window is sampled again from the same noise, with all the speech heard so far, and only
that chunk is kept. So where the same speech is heard, chunks of any size give the offline motion, and any difference
comes from speech not heard yet. Between chunks that difference is measured at the last frame already kept, added to
the new frames and faded out, so no chunk moves more than the window itself does. Between windows, and from the source's
own pose into the first frame, motion is carried over as it is offline (motion/inertia.py).
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import InputError
from .media.audio import FPS, SAMPLE_RATE, check_waveform, frame_count
from .media.resampling import StreamResampler
from .models.generator import Generator
from .models.precision import check_numbers
from .models.renderer import Renderer, Source
from .motion.control import Control
from .motion.inertia import FRAMES, Inertia, Joins, check_joins, fading
from .motion.match import Side, check_match
from .motion.motion import Motion
from .sampling import Frames, check_settings, sample_window, stream_noise

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS


class Session:
    """Frames for speech that is still being spoken.

        session = Session(renderer, generator, source, sample_rate=48000)
        for samples in microphone:
            for frames in session.feed(samples):  # (n,H,W,3), RGB in 0..1, 25 a second, on the renderer's device
                ...
        for frames in session.finish():
            ...

    A frame is ready once `latency` seconds of audio after its own time have been fed: `chunk` + `lookahead` + the reach
    of the resampling filter (6 ms at 16 kHz and above, 96 / rate below, none at 16 kHz). Computing time adds to that.

    Frames depend only on the audio and the settings, not on how the audio was cut into pieces. If everything is heard
    before anything is said (lookahead=math.inf: all frames come from `finish`), they are the frames of `imtalker.talk`
    at 25 fps with the same seed, up to rounding. A bounded look-ahead changes three things: speech after it is unknown
    (within a window its last row is held, as at the end of a clip); wav2vec2 attends to the window and the `history`
    before it instead of the whole clip; and loudness is normalised over the same stretch (in the waveform and in
    wav2vec2's first norm), so faint noise that lasts longer than `history` is heard as loud as speech. For silence that
    should stay still, feed zeros.

    Without audio there are no frames: feed zeros to keep going through silence. Memory stays bounded by history +
    window + lookahead for hours, provided the iterators that `feed` returns are consumed: `feed` takes the audio right
    away but renders only while its iterator runs, and the next call yields what is left over first. Not thread-safe;
    several sessions may share models.

    sample_rate: of the audio that will be fed, whole Hz.
    control: its frames count from the session's first frame; its last row is held.
    cfg, nfe, seed, joins: as for `Generator.sample`.
    chunk: seconds sampled per step, rounded to whole frames (0.04 to 2); shorter is sooner, but each chunk costs a
        whole window.
    lookahead: seconds of audio heard after a chunk before it is sampled, rounded to whole frames, or math.inf.
    history: seconds of audio heard again before each window, rounded to whole frames, or math.inf (unbounded memory).
    batch_size: frames per rendering step, as for `Renderer.stream`.
    Raises InputError for other settings, and for models or a source of different generations.
    """

    def __init__(
        self,
        renderer: Renderer,
        generator: Generator,
        source: Source,
        *,
        sample_rate: int,
        control: Control | None = None,
        cfg: float | None = None,
        nfe: int = 10,
        seed: int = 0,
        chunk: float = 0.4,
        lookahead: float = 0.2,
        history: float = 8.0,
        batch_size: int | None = None,
        joins: Joins = "smooth",
    ):
        check_match(Side("the renderer", renderer.generation), Side("the source", source.generation))
        self._renderer, self._source, self._batch_size = renderer, source, batch_size
        self._windows = _Windows(generator, source, control, cfg, nfe, seed)
        self._timing = _Timing.of(chunk, lookahead, history, generator.config.window)
        self._speech = _Speech(sample_rate, generator)
        check_joins(joins)
        self._inertia = Inertia(self._windows.displacement()) if joins == "smooth" else None  # after `_past`
        self._frame = 0  # how many frames were handed out
        self._past = self._context = self._windows.blank  # the last frames handed out, and those before this window
        self._sampled = self._past.rows(slice(0))  # frames not handed out yet
        self._frames: Iterator[Tensor] = iter(())  # the same, rendered

    @property
    def latency(self) -> float:
        """Seconds of audio, counted from a frame's own time, after which it is ready; computing time adds to that."""
        return (self._timing.chunk + self._timing.lookahead) / FPS + self._speech.resampler.delay

    def feed(self, samples: Tensor) -> Iterator[Tensor]:
        """Takes the next samples, (samples,) or (channels,samples), any number; yields blocks of frames (n,H,W,3).

        Raises InputError for NaN or infinite samples, for another shape, and after `finish`; audio fed before stays
        good.
        """
        self._speech.feed(samples)
        return self._ready()

    def finish(self) -> Iterator[Tensor]:
        """The rest of the frames: ceil(seconds * 25) in all. Nothing can be fed afterwards."""
        self._speech.finish()
        return self._ready()

    def interrupt(self) -> None:
        """Drops all audio whose frames were not handed out yet; the next frames follow what is fed next.

        The motion continues smoothly from the last frame handed out.
        """
        self._sampled, self._frames = self._sampled.rows(slice(0)), iter(())
        self._speech.cut(self._frame)

    def _ready(self) -> Iterator[Tensor]:
        while True:
            block = next(self._frames, None)
            if block is not None:
                new = self._sampled.rows(slice(len(block)))
                if self._inertia:
                    self._carried(self._inertia, new.motion)
                self._past = self._past.followed_by(new).rows(slice(-self._windows.context, None))
                self._sampled = self._sampled.rows(slice(len(block), None))
                self._frame += len(block)
                yield block
            elif not self._sample():
                return

    def _sample(self) -> bool:
        """Samples the next chunk; False if too little has been heard for one."""
        start, length, timing = self._frame, self._windows.length, self._timing
        first = start - start % length  # of the window
        last = min(start + timing.chunk, first + length)
        heard = self._speech.frames
        if start >= heard or (not self._speech.finished and last + timing.lookahead > heard):
            return False
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
        block = Motion(latents, float(FPS), self._source.generation)
        self._frames = self._renderer.stream(self._source, block, self._batch_size)
        return True

    def _carried(self, inertia: Inertia, latents: Tensor) -> Tensor:
        """The latents (n,C) of the next frames as they are shown."""
        latents = latents.float().cpu()
        return inertia.follow(latents) if self._frame % self._windows.length else inertia.join(latents)


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
        control: Control | None,
        cfg: float | None,
        nfe: int,
        seed: int,
    ):
        generator.check_source(source)
        config = generator.config
        self.length, self.context = config.window, config.context
        self._generator, self._nfe = generator, nfe
        self._cfg = config.cfg if cfg is None else cfg
        check_settings(self._cfg, nfe)
        self._source, self._reference = source, source.motion.to(generator.anchor)
        self._control = control.at_fps(FPS) if control else Control()
        self.blank = Frames.blank(self.context, config.motion_size, config.condition_size, generator.anchor)
        # the noise of the windows up to number `_number`, of which the last is kept
        self._noises = stream_noise(self.length, config.motion_size, seed)
        self._number, self._noise = -1, None

    @torch.inference_mode()
    def displacement(self) -> Tensor:
        """See Generator.displacement."""
        settings = self._control, self._noise_of(0), self._cfg, self._nfe
        return self._generator.displacement(self._source, *settings)

    def _noise_of(self, number: int) -> Tensor:
        while self._number < number:
            self._number, self._noise = self._number + 1, next(self._noises)
        return self._noise.to(self._generator.anchor)

    def sample(self, number: int, before: Frames, speech: Tensor) -> Frames:
        """Window `number` after the frames `before`, with its projected speech as far as heard, (n,condition_size).

        Windows go forward: no number below that of the last call.
        """
        generator, noise = self._generator, self._noise_of(number)
        control = generator.project_control(self._control, number * self.length, self.length)
        return sample_window(generator.flow, noise, before, speech, control, self._reference, self._cfg, self._nfe)


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
