"""A live session: speech in as it arrives, frames out with a bounded look-ahead.

Motion is sampled in the windows of the offline result (`Generator.sample`): the same 50 frames, noise and context. A
window is sampled again, from the same noise, whenever a chunk of it is due, with the speech heard by then, and only
that chunk is kept. So chunks of any size give the offline motion where the same speech is heard, and what differs
otherwise is only what the unheard speech would have changed. That difference, seen at the last frame that is kept
from before, is added to the new frames and fades over `FADE` of them: no join moves more than the window itself does.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .errors import InputError
from .media.audio import FPS, SAMPLE_RATE, check_waveform, frame_count
from .media.resampling import StreamResampler
from .models.generator import Generator
from .models.renderer import Renderer, Source
from .motion.control import Control
from .motion.motion import Motion
from .sampling import check_settings, integrate, pad_rows

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
FADE = 10  # frames, as many as a window sees of the one before


class Session:
    """Frames for speech that is still being spoken.

        session = Session(renderer, generator, source, sample_rate=48000)
        for samples in microphone:
            for frames in session.feed(samples):  # (n,H,W,3), RGB in 0..1, 25 a second, on the renderer's device
                ...
        for frames in session.finish():
            ...

    A frame is ready at the latest when `latency` seconds of sound after its own time have been fed: `chunk` +
    `lookahead` + the resampling filter's reach (6 ms at 16 kHz and above, 96 / rate below, none at 16 kHz). Computing
    comes on top.

    Frames are a function of the sound and the settings alone: how it was cut into pieces does not matter. They are
    those of `imtalker.talk` at 25 fps with the same seed, up to rounding, where all is heard before anything is said
    (lookahead=math.inf: every frame comes from `finish`). With a bounded look-ahead three things differ: speech after
    the look-ahead is unknown (within a window its last row is held, as at the end of a clip), wav2vec2 attends to the
    window and `history` before it instead of the whole clip, and loudness is normalised over the same (the waveform's,
    and that of wav2vec2's first norm): faint noise that lasts longer than `history` is heard as loud as speech. Feed
    zeros for silence that should stay still.

    No sound, no frames: feed zeros to go on through silence. Memory is bounded by history + window + lookahead, for
    hours, as long as the frames are asked for: `feed` takes the sound at once, but renders only while its result is
    gone through; what is left over comes first next time. Not for several threads at once; sessions may share models.

    sample_rate: whole Hz, of the sound that will be fed.
    control: followed by frames counted from the session's first, its last row held.
    cfg, nfe, seed: as for `Generator.sample`.
    chunk: seconds sampled at once, in whole frames (0.04 to 2); shorter is sooner, and costs a whole window each.
    lookahead: seconds of sound heard after a chunk before it is sampled, in whole frames, or math.inf.
    history: seconds of sound heard again before each window, in whole frames, or math.inf (unbounded memory).
    batch_size: frames rendered at once, as for `Renderer.stream`.
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
    ):
        for name, model in (("renderer", renderer), ("generator", generator)):
            if model.generation != source.generation:
                raise InputError(
                    f"The {name}'s weights are {model.generation} but the source was encoded with "
                    f"{source.generation} weights; use a renderer and a generator of one generation throughout."
                )
        config = generator.config
        self._cfg = config.cfg if cfg is None else cfg
        check_settings(self._cfg, nfe)
        self._renderer, self._generator, self._source = renderer, generator, source
        self._nfe, self._batch_size = nfe, batch_size
        self._window, self._keep = config.window, config.context
        self._chunk = _in_frames("chunk", chunk, 1, self._window)
        self._lookahead = _in_frames("lookahead", lookahead, 0)
        # all that is heard before the first frame may as well be remembered: it is encoded once
        self._history = math.inf if self._lookahead == math.inf else _in_frames("history", history, 0)
        self._hearing = Hearing(sample_rate)
        self._anchor = generator.audio_projection[0].weight
        self._reference = source.motion.to(self._anchor)
        self._steering = self._project(control)
        self._random = torch.Generator("cpu").manual_seed(seed)
        self._noise_window, self._noise = -1, None
        self._span, self._speech = None, None
        self._frame = 0  # frames that were handed out
        self._window_context = self._past = tuple(
            self._anchor.new_zeros(self._keep, size)
            for size in (config.motion_size, config.condition_size, config.condition_size)
        )  # motion, projected speech and steering: of the frames before this window, and of those handed out last
        self._sampled: tuple[Tensor, ...] = ()  # the same three of frames that were not handed out yet
        self._frames: Iterator[Tensor] = iter(())

    @property
    def latency(self) -> float:
        """Seconds of sound, from a frame's own time on, that bring it at the latest; computing comes on top."""
        return (self._chunk + self._lookahead) / FPS + self._hearing.resampler.delay

    def feed(self, samples: Tensor) -> Iterator[Tensor]:
        """Hears the next samples, (samples,) or (channels,samples), any number; yields blocks of frames (n,H,W,3).

        Raises InputError for samples that are not numbers, another shape, and after `finish`; what was fed before
        stays good.
        """
        self._hearing.feed(samples)
        return self._ready()

    def finish(self) -> Iterator[Tensor]:
        """The rest of the frames: ceil(seconds * 25) in all. Nothing can be fed afterwards."""
        self._hearing.finish()
        return self._ready()

    def interrupt(self) -> None:
        """Forgets all sound whose frames were not handed out yet: what is fed next is said next.

        The motion goes on smoothly from the last frame that was handed out.
        """
        self._sampled, self._frames, self._span = (), iter(()), None
        self._hearing.cut(self._frame)

    def _ready(self) -> Iterator[Tensor]:
        while True:
            block = next(self._frames, None)
            if block is not None:
                rows = len(block)
                joined = [torch.cat([old, new[:rows]]) for old, new in zip(self._past, self._sampled)]
                self._past = tuple(rows[-self._keep :] for rows in joined)
                self._sampled = tuple(new[rows:] for new in self._sampled)
                self._frame += rows
                yield block
            elif not self._sample():
                return

    def _sample(self) -> bool:
        """Samples the next chunk; False where too little was heard for one."""
        start = self._frame
        first = start - start % self._window  # of the window
        last = min(start + self._chunk, first + self._window)
        heard = self._hearing.frames
        if start >= heard or (not self._hearing.finished and last + self._lookahead > heard):
            return False
        if start == first:
            self._window_context = self._past
        end = min(last + self._lookahead, heard)
        with torch.inference_mode():
            speech = self._encode(first, end)
            steering = self._steering[min(first, len(self._steering) - 1) :]
            now_speech, now_steering = (pad_rows(rows, self._window) for rows in (speech, steering))
            before, before_speech, before_steering = self._window_context
            behind = before_speech + before_steering
            motion = integrate(
                self._generator.flow,
                self._draw(first // self._window).to(self._anchor),
                before,
                self._reference,
                torch.cat([behind, now_speech + now_steering]),
                torch.cat([behind, now_steering]),
                self._cfg,
                self._nfe,
            )
            new = slice(start - first, min(last, end) - first)
            latents = motion[new]
            if start > first:
                moved = self._past[0][-1] - motion[start - first - 1]
                share = 1 - torch.arange(1, len(latents) + 1, device=moved.device) / FADE
                latents = latents + share.clamp(min=0).to(moved)[:, None] * moved
        self._sampled = latents, now_speech[new], now_steering[new]
        block = Motion(latents.float().cpu(), float(FPS), self._generator.generation)
        self._frames = self._renderer.stream(self._source, block, self._batch_size)
        return True

    def _encode(self, first: int, end: int) -> Tensor:
        """Projected speech of the frames from `first` on to `end`, (end-first,condition_size)."""
        begin = max(0, first - self._history)
        if self._span != (begin, end):
            audio = self._generator.encode_audio(self._hearing.window(begin, end)[None], SAMPLE_RATE)
            self._span = begin, end
            self._speech = self._generator.audio_projection(audio.features.to(self._anchor))
        return self._speech[first - begin :]

    def _draw(self, window: int) -> Tensor:
        """Noise (window,motion_size) of one window: that of `draw_noise`, without the windows before."""
        while self._noise_window < window:
            self._noise = torch.randn(self._window, self._generator.config.motion_size, generator=self._random)
            self._noise_window += 1
        return self._noise

    @torch.inference_mode()
    def _project(self, control: Control | None) -> Tensor:
        """The sum of the projected controls, (frames,condition_size); its last row goes on for ever."""
        control = control.at_fps(FPS) if control else Control()
        frames = max(map(len, control.parts().values()), default=1)
        total = self._anchor.new_zeros(frames, self._generator.config.condition_size)
        for name, strength in control.strengths().items():
            if strength and name in control.parts():
                rows = pad_rows(control.parts()[name], frames).to(self._anchor)
                total = total + strength * getattr(self._generator, f"{name}_projection")(rows)
        return total


class Hearing:
    """Sound at any rate, heard in pieces, as windows of 16 kHz waveform (1 frame = 640 samples)."""

    def __init__(self, sample_rate: int):
        if not sample_rate > 0 or sample_rate % 1:
            raise InputError(f"The sample rate must be a whole number of Hz above 0, not {sample_rate}.")
        self.sample_rate = int(sample_rate)  # sound cards say 48000.0
        self.finished = False
        self.resampler = StreamResampler(self.sample_rate, SAMPLE_RATE)
        self._samples = torch.zeros(0)  # at 16 kHz
        self._first = 0  # which sample of all is the first of them

    @property
    def frames(self) -> int:
        """Frames whose sound is known; once finished, the last one counts even where it is known in part."""
        samples = self._end + self.resampler.ready
        return frame_count(samples) if self.finished else samples // SAMPLES_PER_FRAME

    @property
    def _end(self) -> int:
        return self._first + len(self._samples)

    def feed(self, samples: Tensor) -> None:
        """Appends (samples,) or (channels,samples); channels are averaged, no samples are no harm."""
        if self.finished:
            raise InputError("This session is finished: make a new one for more sound.")
        if samples.ndim in (1, 2) and samples.numel() == 0:
            return
        self.resampler.feed(check_waveform(samples, self.sample_rate).mean(dim=0))

    def finish(self) -> None:
        if not self.finished:
            self.resampler.finish()
            self.finished = True

    def cut(self, frame: int) -> None:
        """Forgets all sound from the beginning of a frame on; what is fed next follows there."""
        self._samples = self._samples[: max(0, frame * SAMPLES_PER_FRAME - self._first)]
        self.resampler = StreamResampler(self.sample_rate, SAMPLE_RATE)
        if self.finished:
            self.resampler.finish()

    def window(self, begin: int, end: int) -> Tensor:
        """The samples (640*(end-begin),) of frames from `begin` to `end`, fewer at the very end of the sound.

        Earlier ones are forgotten.
        """
        # No further than `end`, though more may be there: the numbers must not depend on how far ahead the sound came.
        new = self.resampler.take(min(end * SAMPLES_PER_FRAME - self._end, self.resampler.ready))
        self._samples = torch.cat([self._samples, new])[begin * SAMPLES_PER_FRAME - self._first :]
        self._first = begin * SAMPLES_PER_FRAME
        return self._samples


def _in_frames(name: str, seconds: float, least: int, most: int | None = None) -> float:
    """Whole frames, or math.inf where there is no upper limit."""
    frames = seconds if seconds == math.inf else round(seconds * FPS) if math.isfinite(seconds) else -1
    if frames < least or (most is not None and frames > most):
        limits = f"at least {least / FPS:g}" if most is None else f"from {least / FPS:g} to {most / FPS:g}"
        raise InputError(f"{name} must be {limits} seconds, not {seconds}.")
    return frames
