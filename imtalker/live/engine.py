"""Live for programs: speech, a microphone or a camera in; pictures and sound out, 25 times a second, in step."""

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import InputError
from ..media.audio import FPS
from ..media.image import check_image
from ..models.generator import Generator
from ..models.renderer import Renderer, Source
from ..motion.rig import Rig
from ..pipeline import encode_portrait
from .mixer import Mixer

if TYPE_CHECKING:
    from .stage import Stage

MOMENTS = FPS  # that wait to be taken; then the oldest is dropped
PAUSED = FPS  # frames behind its clock after which a session goes on from where it stopped
CHUNK, LOOKAHEAD = 0.16, 0.12  # seconds
MARGIN = 1.5  # the time left for computing, over what it took to warm up
LONGEST_MARGIN = 1.0  # seconds; a machine that needs more is too slow whatever it waits for
STRENGTHS = 0.0, 2.0
LONGEST_LOOKAHEAD = 2.0  # seconds


@dataclass(frozen=True)
class Moment:
    """A 25th of a second: a picture and the sound that belongs to it."""

    number: int
    time: float  # seconds since the session began, number / 25
    frame: Tensor  # (H,W,3) uint8, RGB, on the CPU
    sound: Tensor  # (samples,) float32 in -1..1, mono, sample_rate / 25 of them
    fresh: bool  # False: the picture was not ready, so an earlier one is shown once more


class Live:
    """A face that is alive: it idles while nobody speaks, says what it is given, and stops when interrupted.

        async with imtalker.Live(renderer, generator, source, sample_rate=24000) as live:
            live.say(samples)
            async for moment in live:
                show(moment.frame, moment.sound)

    `async for` yields one Moment every 40 ms, silent ones too, until the block is left. A moment comes `latency`
    seconds after its sound was due. If the machine is too slow for 25 pictures a second, those that would be late are
    left out and the last picture is shown again; sound and lips stay together. A consumer that falls a second behind
    loses moments.

    All methods are for the event loop's thread; models are used by one thread of the session's own.

    source: a portrait that `renderer` encoded. sample_rate: of the sound that comes out, and of what goes in unless a
    call says otherwise; whole hundreds of Hz, 8000 to 192000. cfg, nfe, seed: as for `Generator.sample`. chunk,
    lookahead, history: as for `Session`; they make up most of the latency. sway: 0..1, of the head in silence. rig: for
    `steer(expression=...)`. delay: seconds from sound to picture; None measures what the machine needs. model_dirs:
    where a face detector for `show` and `drive` may be.
    InputError, here or on entering: settings out of range, models that do not belong together.
    """

    def __init__(
        self,
        renderer: Renderer,
        generator: Generator,
        source: Source,
        *,
        sample_rate: int = 48000,
        cfg: float | None = None,
        nfe: int = 10,
        seed: int = 0,
        chunk: float = CHUNK,
        lookahead: float = LOOKAHEAD,
        history: float = 4.0,
        sway: float = 0.5,
        rig: Rig | None = None,
        delay: float | None = None,
        model_dirs: Iterable[str | Path] = (),
    ):
        if not 0 <= lookahead <= LONGEST_LOOKAHEAD:
            raise InputError(f"A live face can look ahead 0 to {LONGEST_LOOKAHEAD:g} seconds, not {lookahead:g}.")
        self._renderer, self._model_dirs = renderer, tuple(model_dirs)
        self._mixer = Mixer(sample_rate)
        sampling = {"cfg": cfg, "nfe": nfe, "seed": seed}
        timing = {"chunk": chunk, "lookahead": lookahead, "history": history}
        self._delay = delay
        self._parts = renderer, generator, source, self._mixer, sampling | timing, sway
        self._rig, self._timing = rig, (chunk, lookahead)
        self._stage: Stage | None = None
        self._began = 0.0
        self._awake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._clock: asyncio.Task | None = None
        self._error: BaseException | None = None
        self._pictures: dict[int, Tensor] = {}  # rendered, not shown yet
        self._picture: Tensor | None = None  # shown last
        self._number = -1  # of the last moment
        self._fresh: deque[bool] = deque(maxlen=2 * FPS)
        self._moments: asyncio.Queue[Moment | None] = asyncio.Queue()
        self._listening = False

    async def __aenter__(self) -> "Live":
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        self._thread = threading.Thread(target=self._work, args=(loop, ready), name="imtalker live", daemon=True)
        self._thread.start()
        try:
            await ready
        except BaseException:
            await self._stop_thread()
            raise
        self._clock = loop.create_task(self._run())
        return self

    async def __aexit__(self, *problem: object) -> None:
        if self._clock is not None:
            self._clock.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._clock
        await self._stop_thread()
        self._moments.put_nowait(None)

    def __aiter__(self) -> "Live":
        return self

    async def __anext__(self) -> Moment:
        moment = await self._moments.get()
        if moment is None:
            self._moments.put_nowait(None)
            if self._error is not None:
                raise self._error
            raise StopAsyncIteration
        return moment

    @property
    def sample_rate(self) -> int:
        return self._mixer.sample_rate

    @property
    def latency(self) -> float:
        """Seconds from the sound of a frame to its moment."""
        return self._stage.delay / FPS

    @property
    def pictures_per_second(self) -> float:
        """New pictures shown a second, over the last two: 25 unless the machine is too slow."""
        return FPS * sum(self._fresh) / len(self._fresh) if self._fresh else float(FPS)

    @property
    def left_out(self) -> int:
        """Pictures that were not shown in their time."""
        return self._stage.left_out

    @property
    def speaking(self) -> bool:
        """Whether speech waits or is being said."""
        start = (self._number + 1) * self._mixer.size
        return self._mixer.queue.samples > 0 or bool(self._mixer.read(start, self._mixer.end).any())

    @property
    def listening(self) -> bool:
        """Whether the other side speaks, see `hear`."""
        return self._listening

    @property
    def sees_face(self) -> bool:
        """Whether the camera of `drive` has shown a face."""
        return self._stage.sees_face

    def say(self, samples: Tensor, sample_rate: int | None = None) -> None:
        """Queues speech (samples,) or (channels,samples), any length: it is said as soon as what waits has been.

        InputError: unusable sound, or more than ten minutes waiting.
        """
        self._mixer.say(samples, sample_rate or self.sample_rate)

    def mirror(self, samples: Tensor, sample_rate: int | None = None, interrupts: bool = True) -> None:
        """Live sound that moves the lips as it comes, such as a microphone's, in pieces of any length.

        It is said `latency` seconds later. What is no speech becomes silence. interrupts: cuts off queued speech.
        """
        speaking = self._mixer.mirror(samples, sample_rate or self.sample_rate)
        if speaking and interrupts and self._mixer.queue.samples:
            self.interrupt()

    def hear(self, samples: Tensor, sample_rate: int | None = None, interrupts: bool = True) -> bool:
        """The other side's live sound: it never moves the lips. Returns whether somebody speaks there.

        That is noticed within 0.1 s, and over 0.3 s after the last word. interrupts: when they begin, the face stops.
        """
        spoke = self._listening
        speaking = self._mixer.hear(samples, sample_rate or self.sample_rate)
        self._listening = speaking or (spoke and self._mixer.other.is_open)
        if self._listening and not spoke and interrupts and self.speaking:
            self.interrupt()
        return self._listening

    def interrupt(self) -> None:
        """Stops speaking: what waits is dropped, and what was about to be shown is silent from the next moment on.

        The lips close as they would after speech. What a microphone said to `mirror` goes on.
        """
        self._mixer.interrupt(self._number + 1)
        self._order(self._stage.cut)

    async def steer(
        self,
        *,
        aim: Mapping[str, float] | None = None,
        strength: float | None = None,
        expression: Mapping[str, float] | None = None,
        cfg: float | None = None,
        seed: int | None = None,
    ) -> None:
        """Changes how the face moves, from the next chunk on and without a jump; None leaves a thing as it is.

        aim: where head and eyes should be, by the channels of the keyframe editors: yaw, pitch, roll, horizontal,
        vertical in degrees, and so on; {} leaves them to the model. strength: of all motion around the portrait's own
        pose, 0..2. expression: values of the rig's channels, added to what the face does; {} takes them back.
        InputError: a value out of range, a channel that is not there, no rig.
        """
        low, high = STRENGTHS
        if strength is not None and not low <= strength <= high:
            raise InputError(f"The strength must be between {low:g} and {high:g}, not {strength:g}.")
        settings = {"aim": aim, "strength": strength, "expression": expression, "cfg": cfg, "seed": seed}
        await self._order(lambda: self._stage.change(**settings))

    async def show(self, portrait: Source | Tensor | str | Path, crop: str = "auto") -> None:
        """Another portrait: a Source, a picture (1,H,W,3) or an image file, cropped as for `talk`.

        InputError: not usable, or of other weights; the face stays as it was then.
        """
        if isinstance(portrait, Source):
            await self._order(lambda: self._stage.change(source=portrait))
            return

        def encode() -> None:
            source = encode_portrait(self._renderer, portrait, crop, self._model_dirs)
            self._stage.change(source=source)

        await self._order(encode)

    def drive(self, image: Tensor | None, crop: str = "auto") -> None:
        """The next picture of a camera, (H,W,3) or (1,H,W,3), uint8 or 0..1: the face moves as the one in it.

        It keeps its own pose and adds what changes since the first picture with a face. None: speech moves it again.
        crop: "auto" finds the face, "none" takes the middle square. InputError: not a picture.
        """
        if image is None:
            self._stage.release()
        else:
            self._stage.drive(check_image(image)[:1], crop)
        self._awake.set()

    def _order(self, work: Callable[[], object]) -> asyncio.Future:
        if self._error is not None:
            raise self._error
        done = asyncio.wrap_future(self._stage.order(work))
        self._awake.set()
        return done

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _keep(self, number: int, picture: Tensor) -> None:
        self._pictures[number] = picture

    def _work(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future) -> None:
        """The session's thread."""

        def tell(function: Callable, value: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(lambda: None if ready.done() else function(value))

        try:
            from .stage import Stage  # which takes a while to import, and is of no use to most

            stage = Stage(*self._parts, self._keep, self._now, self._rig, self._model_dirs)
            computing = stage.warm_up() if self._delay is None else 0.0
            stage.delay = max(latency_frames(*self._timing, computing), math.ceil((self._delay or 0.0) * FPS - 1e-6))
            self._stage, self._began = stage, time.monotonic()
            tell(ready.set_result, None)
            while not self._closing.is_set():
                self._awake.clear()
                wait = stage.step() - self._now()
                if wait > 0:
                    self._awake.wait(wait)
        except BaseException as error:
            self._error = error
            if self._stage is not None:
                self._stage.dismiss()
            tell(ready.set_exception, error)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._moments.put_nowait, None)

    async def _stop_thread(self) -> None:
        self._closing.set()
        self._awake.set()
        await asyncio.to_thread(self._thread.join)
        if self._stage is not None:
            self._stage.dismiss()

    async def _run(self) -> None:
        """The session's clock: every 40 ms one frame's sound goes in and one moment comes out."""
        frames = 0
        while True:
            frames += 1
            behind = self._now() - frames / FPS
            if behind > PAUSED / FPS:  # the computer slept, or the loop was blocked
                self._began += behind
            elif behind < 0:
                await asyncio.sleep(-behind)
            self._mixer.mix(frames)
            self._awake.set()
            self._emit(frames - self._stage.delay)

    def _emit(self, number: int) -> None:
        if number < 0:
            return
        self._number = number
        newest = max((n for n in list(self._pictures) if n <= number), default=None)
        if newest is not None:
            self._picture = self._pictures[newest]
            for done in [n for n in list(self._pictures) if n <= newest]:
                del self._pictures[done]
        self._fresh.append(newest is not None)
        if self._picture is None:
            return
        size = self._mixer.size
        sound = self._mixer.read(number * size, (number + 1) * size)
        while self._moments.qsize() >= MOMENTS:
            self._moments.get_nowait()
        self._moments.put_nowait(Moment(number, number / FPS, self._picture, sound, newest is not None))


def latency_frames(chunk: float, lookahead: float, computing: float) -> int:
    """Frames from a frame's sound to its picture: what a chunk waits for, and then its time of computing in seconds."""
    margin = min(MARGIN * computing, LONGEST_MARGIN)
    return round(chunk * FPS) + round(lookahead * FPS) + max(1, math.ceil(margin * FPS))
