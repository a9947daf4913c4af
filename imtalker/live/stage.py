"""What a live face does, frame by frame, in a thread of its own: speech or a camera to motion, motion to pictures."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..face.crop import Crop, apply_crop, centre_crop
from ..face.detectors import DetectorMissing
from ..face.follow import FaceNotFound, find_crop
from ..idle import head_sway
from ..media.audio import FPS
from ..models.generator import Generator
from ..models.renderer import Renderer, Source
from ..motion import keyframes
from ..motion.control import Control
from ..motion.inertia import Inertia
from ..motion.motion import Motion
from ..motion.presets import POSE_PRESETS
from ..motion.rig import Rig
from ..motion_stream import MotionStream
from ..pipeline import detector_in
from .mixer import Mixer

AHEAD = 3  # frames rendered before their time: what is interrupted is still shown for so long
SLOW = 1.0  # seconds for a chunk after which nothing is gained by warming up
LOST = 50  # frames behind the sound at which the motion starts anew
IDLE_AFTER = 15  # frames of silence until the head sways
FOLLOWING = 0.2  # share of the way to a new strength or expression that is gone each frame
PERIOD = round(POSE_PRESETS["idle_sway"].length * FPS)


class Stage:
    """Renders frames 0, 1, 2, ... of a live face; frame n is shown `delay` frames after its own sound began.

    `step` is called again and again by one thread; `order`, `drive` and `release` by any.

    A frame whose time has passed by more than a frame is left out, so that lips stay with the sound; whatever happens,
    the newest motion there is is rendered next, so that the picture changes as often as the machine allows.

    settings: of `MotionStream`. sway: 0..1, how much the head sways in silence. show: called with the number of a frame
    and its picture (H,W,3), uint8 on the CPU. clock: seconds since the sound of frame 0 began. model_dirs: where a face
    detector may be.
    """

    def __init__(
        self,
        renderer: Renderer,
        generator: Generator,
        source: Source,
        mixer: Mixer,
        settings: Mapping,
        sway: float,
        show: Callable[[int, Tensor], None],
        clock: Callable[[], float],
        rig: Rig | None = None,
        model_dirs: Iterable[str | Path] = (),
    ):
        self._renderer, self._generator, self._source, self._mixer = renderer, generator, source, mixer
        self._settings = {"sample_rate": mixer.sample_rate, **settings}
        self._show, self._clock = show, clock
        self._sway = head_sway(PERIOD, PERIOD, sway).pose if sway else None
        self._orders: deque[tuple[Future, Callable[[], object]]] = deque()
        self.delay = 0  # frames
        self.rendered = self.left_out = 0
        self.next = 0  # the frame that is rendered next
        self._outer, self._joining = Inertia(), True  # whether the next row begins something new
        self._strength, self._wanted_strength = 1.0, 1.0
        self._expression: dict[str, float] = {}
        self._wanted_expression: dict[str, float] = {}
        self._rig, self._aim = rig, Control()
        self._model_dirs, self._camera = tuple(model_dirs), None
        self._picture: tuple[Tensor, int, str] | None = None  # the camera's newest, its frame, and how it is cropped
        self._start(0)

    def order(self, work: Callable[[], object]) -> Future:
        """Has `work` done before the next step, in the thread of `step`."""
        future = Future()
        self._orders.append((future, work))
        return future

    def dismiss(self) -> None:
        """Cancels what was ordered and will not be done."""
        while self._orders:
            self._orders.popleft()[0].cancel()

    def step(self) -> float:
        """Does the next piece of work; returns when there will be more to do, in seconds."""
        while self._orders:
            future, work = self._orders.popleft()
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)
        now = self._clock()
        due = math.ceil(now * FPS - 1e-6) - self.delay  # the first frame whose time has not passed
        self._watch()
        if self._led:
            self.left_out += max(0, due - self.next)
            self.next = max(due, self.next)
        else:
            self._listen(due)
        rows = self._rows(due)
        if rows is None:
            return (math.floor(now * FPS + 1e-6) + 1) / FPS
        late = min(due - self.next, len(rows))
        if late > 1 and len(rows) > 1:  # one is left to be rendered, whatever happens
            passed = min(late, len(rows) - 1)
            self._pass(rows[:passed])
            self.left_out += passed
            rows = rows[passed:]
        early = self.next + self.delay - AHEAD
        if early > now * FPS + 1e-6:
            return early / FPS
        number = self.next
        if due - number > 1:
            self.left_out += 1  # it is shown, but not at its time
        motion = Motion(self._pass(rows[:1]), float(FPS), self._renderer.generation)
        for block in self._renderer.stream(self._source, motion, 1):
            self._show(number, block[0].mul(255).round().clamp(0, 255).byte().cpu())
        self.rendered += 1
        return now

    def warm_up(self) -> float:
        """Seconds from a chunk that is due to its first picture, once everything is loaded."""
        seconds = 0.0
        for _ in range(3):
            if seconds > SLOW:
                break
            stream = MotionStream(self._generator, self._source, control=self._steering, **self._settings)
            stream.feed(torch.zeros(round(stream.latency * self._mixer.sample_rate) + self._mixer.size))
            started = time.perf_counter()
            motion = stream.sample()
            motion = Motion(motion.latents[:1], motion.fps, motion.generation)
            for block in self._renderer.stream(self._source, motion, 1):
                block.cpu()
            seconds = time.perf_counter() - started
        return seconds

    def cut(self) -> None:
        """What was said has changed from somewhere on: hears it again from the next frame on."""
        if not self._led:
            self._stream.interrupt()
            self._pending = None
            self._fed = self.next * self._mixer.size

    def change(
        self,
        source: Source | None = None,
        aim: Mapping[str, float] | None = None,
        strength: float | None = None,
        expression: Mapping[str, float] | None = None,
        cfg: float | None = None,
        seed: int | None = None,
    ) -> None:
        """Another portrait or other settings, see `Live.steer`. InputError as there; nothing has changed then."""
        steering = None if aim is None else _control(aim)
        if expression:
            self._check_expression(expression)
        self._stream.steer(source=source, cfg=cfg, seed=seed)
        self._settings |= {name: value for name, value in (("cfg", cfg), ("seed", seed)) if value is not None}
        self._source = source or self._source
        self._aim = steering or self._aim
        self._wanted_strength = self._wanted_strength if strength is None else strength
        if expression is not None:
            self._wanted_expression = dict(expression)
            self._expression = dict.fromkeys(expression, 0.0) | self._expression

    def _check_expression(self, expression: Mapping[str, float]) -> None:
        if self._rig is None:
            raise InputError("Expressions need a rig for these weights: give one to Live.")
        curves = {name: torch.tensor([float(value)]) for name, value in expression.items()}
        self._rig.add(Motion(self._source.motion.float().cpu(), float(FPS), self._renderer.generation), curves)

    def drive(self, image: Tensor, crop: str) -> None:
        """The camera's next picture (1,H,W,3); the first with a face shows what counts as the portrait's own pose."""
        self._picture = image, max(0, math.floor(self._clock() * FPS + 1e-6)), crop

    def release(self) -> Future:
        """The camera no longer drives the face: speech does."""

        def to_speech() -> None:
            self._picture = None
            if self._led:
                self._start(self.next)
                self._joining = True
            self._camera = None

        return self.order(to_speech)

    @property
    def _led(self) -> bool:
        return self._camera is not None and self._camera.reference is not None

    @property
    def sees_face(self) -> bool:
        """Whether the camera has shown a face yet."""
        return self._led

    def _start(self, frame: int) -> None:
        """Samples speech anew, from `frame` on."""
        self._base = self.next = frame
        self._fed = frame * self._mixer.size  # samples that were heard
        self._spoken = self._fed - IDLE_AFTER * self._mixer.size - 1  # the last one that was not silence
        self._pending: Tensor | None = None  # sampled, not passed yet
        self._stream = MotionStream(self._generator, self._source, control=self._steering, **self._settings)

    def _listen(self, due: int) -> None:
        if self.next < due - LOST:
            newest = self._mixer.frames - math.ceil(self._stream.latency * FPS)
            self.left_out += max(0, newest - self.next)
            self._start(max(self.next, newest))
            self._joining = True
        if self._mixer.end > self._fed:
            samples = self._mixer.read(self._fed, self._mixer.end)
            loud = samples.nonzero()
            if len(loud):
                self._spoken = self._fed + int(loud[-1])
            self._fed += len(samples)
            self._stream.feed(samples)

    def _watch(self) -> None:
        if self._picture is None:
            return
        (image, frame, crop), self._picture = self._picture, None
        if self._camera is None:
            self._camera = Camera(self._renderer, crop, self._model_dirs)
        led = self._led
        self._camera.look(image, frame)
        if self._led and not led:
            self._pending, self._joining = None, True

    def _rows(self, due: int) -> Tensor | None:
        """The latents (n,C) of the next frames as far as they are known; None if the sound for them is missing."""
        if self._led:
            return self._source.motion.float().cpu() + self._camera.at(self.next) - self._camera.reference
        for last in (False, False, True):
            if self._pending is None or not len(self._pending):
                motion = self._stream.sample(catch_up=True)
                self._pending = None if motion is None else motion.latents
            rows = self._pending
            if rows is None or last or due - self.next <= len(rows) or not self._stream.can_sample(len(rows)):
                break
            self._pass(rows)  # all of them are late, and newer ones are at hand
            self.left_out += len(rows)
        return rows

    def _pass(self, rows: Tensor) -> Tensor:
        """The next frames' latents as they are shown; they are over then."""
        if not self._led:
            self._stream.hand_out(len(rows))
            self._pending = self._pending[len(rows) :]
        self.next += len(rows)
        rows = self._shaped(rows)
        joining, self._joining = self._joining, False
        return self._outer.join(rows) if joining else self._outer.follow(rows)

    def _shaped(self, rows: Tensor) -> Tensor:
        own, left = self._source.motion.float().cpu(), (1 - FOLLOWING) ** torch.arange(1, len(rows) + 1)
        strength = self._wanted_strength + (self._strength - self._wanted_strength) * left
        rows, self._strength = own + strength[:, None] * (rows - own), float(strength[-1])
        curves = {}
        for name, value in self._expression.items():
            wanted = self._wanted_expression.get(name, 0.0)
            curves[name] = wanted + (value - wanted) * left
            self._expression[name] = float(curves[name][-1])
        if curves and self._rig is not None:
            rows = self._rig.add(Motion(rows, float(FPS), self._renderer.generation), curves).latents
        return rows

    def _steering(self, start: int, count: int) -> Control:
        """The control of the stream's frames: where the head is asked to be, and its sway in silence."""
        pose = self._aim.pose
        if self._sway is not None and self._fed - self._spoken > IDLE_AFTER * self._mixer.size:
            sway = self._sway[(self._base + start + torch.arange(count)) % PERIOD]
            pose = sway if pose is None else sway + pose
        return Control(pose=pose, cam=self._aim.cam, gaze=self._aim.gaze)


class Camera:
    """A driver in front of a camera: latents by the number of the frame at whose time they were seen."""

    def __init__(self, renderer: Renderer, crop: str, model_dirs: tuple):
        self._renderer, self._kind, self._model_dirs = renderer, crop, model_dirs
        self._crop: Crop | None = None
        self.reference: Tensor | None = None
        self._seen: deque[tuple[int, Tensor]] = deque()

    def look(self, image: Tensor, frame: int) -> None:
        """Encodes a picture (1,H,W,3), if a face was found in it or before."""
        self._crop = self._crop or self._found(image)
        if self._crop is None:
            return
        picture = apply_crop(image, self._crop, self._renderer.config.input_size)
        latents = self._renderer.encode_motion(picture).latents.float().cpu()
        self.reference = latents if self.reference is None else self.reference
        self._seen.append((frame, latents))

    def at(self, frame: int) -> Tensor:
        """The newest latent (1,C) seen by the time of a frame."""
        while len(self._seen) > 1 and self._seen[1][0] <= frame:
            self._seen.popleft()
        return self._seen[0][1]

    def _found(self, image: Tensor) -> Crop | None:
        if self._kind == "none":
            return centre_crop(*image.shape[1:3])
        try:
            return find_crop(image, name="the camera", **detector_in(self._model_dirs))
        except DetectorMissing:
            return find_crop(image, model_dirs=self._model_dirs, name="the camera", fallback="centre")
        except FaceNotFound:
            return None


def _control(aim: Mapping[str, float]) -> Control:
    """One row of control from values of the keyframe channels. InputError: no such channel, or out of its range."""
    moved = {}
    for name, value in aim.items():
        channel = keyframes.CHANNELS.get(name)
        if channel is None:
            raise InputError(f"A face cannot aim its {name!r}: use {', '.join(keyframes.CHANNELS)}.")
        if not channel.low <= value <= channel.high:
            raise InputError(f"{channel.label} must be between {channel.low:g} and {channel.high:g}, not {value:g}.")
        if value != channel.rest:
            moved[name] = [[0, value]]
    return keyframes.to_control({"version": 1, "channels": moved}) if moved else Control()
