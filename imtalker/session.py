"""A live session: speech in as it arrives, frames out with a bounded look-ahead; the motion is motion_stream.py's."""

from collections.abc import Iterator

from torch import Tensor

from .models.generator import Generator
from .models.renderer import Renderer, Source
from .motion.control import Control
from .motion.inertia import Joins
from .motion.match import Side, check_match
from .motion_stream import MotionStream


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
        sampling = {"control": control, "cfg": cfg, "nfe": nfe, "seed": seed, "joins": joins}
        timing = {"sample_rate": sample_rate, "chunk": chunk, "lookahead": lookahead, "history": history}
        self._stream = MotionStream(generator, source, **sampling, **timing)
        self._frames: Iterator[Tensor] = iter(())  # of the motion sampled and not handed out yet

    @property
    def latency(self) -> float:
        """Seconds of audio, counted from a frame's own time, after which it is ready; computing time adds to that."""
        return self._stream.latency

    def feed(self, samples: Tensor) -> Iterator[Tensor]:
        """Takes the next samples, (samples,) or (channels,samples), any number; yields blocks of frames (n,H,W,3).

        Raises InputError for NaN or infinite samples, for another shape, and after `finish`; audio fed before stays
        good.
        """
        self._stream.feed(samples)
        return self._ready()

    def finish(self) -> Iterator[Tensor]:
        """The rest of the frames: ceil(seconds * 25) in all. Nothing can be fed afterwards."""
        self._stream.finish()
        return self._ready()

    def interrupt(self) -> None:
        """Drops all audio whose frames were not handed out yet; the next frames follow what is fed next.

        The motion continues smoothly from the last frame handed out.
        """
        self._frames = iter(())
        self._stream.interrupt()

    def _ready(self) -> Iterator[Tensor]:
        while True:
            block = next(self._frames, None)
            if block is not None:
                self._stream.hand_out(len(block))
                yield block
                continue
            motion = self._stream.sample()
            if motion is None:
                return
            self._frames = self._renderer.stream(self._source, motion, self._batch_size)
