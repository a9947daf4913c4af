"""One visit to a live face: a page, its session, what it may ask for, and nothing left of it afterwards."""

import asyncio
import contextlib
import logging
import math
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..drawn import example
from ..errors import InputError
from ..media.audio import Audio, AudioFile
from ..models.generator import Generator
from ..models.renderer import Renderer, Source
from ..motion.keyframes import GAZE, POSE
from ..motion.rig import Rig
from .engine import Live
from .peer import RATE, Peer
from .recording import Recording
from .voices import Voice

log = logging.getLogger("imtalker")

MICROPHONES = ("off", "lips", "interrupts")
TELLING = 0.5  # seconds between two reports to the page
CONNECTING, QUIET = 20.0, 8.0  # seconds without a word from the page until it is taken to be gone
LONGEST_SOUND = 600  # seconds of a sound file


@dataclass(frozen=True)
class Face:
    """What a live page offers: models, the portrait it begins with, and settings."""

    renderer: Renderer
    generator: Generator
    source: Source
    rig: Rig | None = None
    voice: Voice | None = None
    cfg: float | None = None
    nfe: int = 10
    seed: int = 0
    model_dirs: tuple[Path, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    def offers(self) -> dict:
        """What the page can set, for its sliders."""
        aim = {name: [c.label, c.low, c.high, c.rest] for name, c in POSE.items() if name not in ("distance", "x", "y")}
        aim |= {name: [f"Gaze {c.label.lower()}", c.low, c.high, c.rest] for name, c in GAZE.items()}
        usable = [] if self.rig is None else [self.rig.channels[i] for i in self.rig.usable(("eyes", "brows", "mouth"))]
        expression = {c.name: [c.name, c.low, c.high, 0] for c in usable if not c.name.startswith("gaze")}
        cfg = self.generator.config.cfg if self.cfg is None else self.cfg
        voice = None if self.voice is None else self.voice.name
        return {"aim": aim, "expression": expression, "cfg": cfg, "seed": self.seed, "voice": voice}


class Guest:
    """A page that has the face to itself, from `welcome` to `leave`."""

    def __init__(self, face: Face):
        self.key = secrets.token_urlsafe(16)
        self._face = face
        self._live = Live(
            face.renderer, face.generator, face.source, sample_rate=RATE, cfg=face.cfg, nfe=face.nfe, seed=face.seed,
            rig=face.rig, model_dirs=face.model_dirs,
        )  # fmt: skip
        self._peer = Peer(self._hear, self._see, self._obey)
        self._folder = tempfile.TemporaryDirectory(prefix="imtalker-live-")
        self._microphone, self._recording, self._recorded = "off", None, None
        self._heard_of, self._reading = 0.0, asyncio.Lock()
        self._tasks: list[asyncio.Task] = []
        self._left = False
        self.gone = asyncio.Event()

    async def welcome(self, offer: str) -> str:
        """Starts the session; the answer to the page's offer. InputError: the offer cannot be understood."""
        try:
            await self._live.__aenter__()
            answer = await self._peer.answer(offer)
        except BaseException:
            await self.leave()
            raise
        self._heard_of = time.monotonic() + CONNECTING - QUIET
        self._tasks = [asyncio.create_task(work()) for work in (self._show, self._report)]
        return answer

    async def leave(self) -> None:
        """Ends everything; may be called twice."""
        if self._left:
            await self.gone.wait()
            return
        self._left = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._recording is not None:
            recording, self._recording = self._recording, None
            await asyncio.to_thread(recording.discard)
        await self._peer.close()
        if self._live._thread is not None:
            await self._live.__aexit__()
        await asyncio.to_thread(self._folder.cleanup)
        self.gone.set()

    async def ended(self) -> None:
        """Waits until the page is gone."""
        await self._peer.ended.wait()

    def place(self, name: str) -> Path:
        """A new file of this visit, gone with it."""
        return Path(self._folder.name) / f"{secrets.token_hex(8)}{Path(name).suffix}"

    async def show_picture(self, path: Path) -> None:
        """The face of an uploaded picture. InputError: none that can be used."""
        await self._live.show(path)

    async def say_file(self, path: Path) -> float:
        """Says an uploaded sound file; returns its seconds. InputError: none that can be used, or too long."""
        sound = await asyncio.to_thread(_read_sound, path)
        self._live.say(sound.waveform, sound.sample_rate)
        return sound.seconds

    async def recorded(self) -> Path | None:
        """The last finished recording."""
        return self._recorded

    def _hear(self, samples: Tensor) -> None:
        if self._microphone == "lips":
            self._live.mirror(samples, RATE)
        elif self._microphone == "interrupts":
            self._live.hear(samples, RATE)

    def _see(self, picture: Tensor) -> None:
        if self._peer.wants_pictures:
            self._live.drive(picture)

    async def _obey(self, message: dict) -> None:
        """What the page may ask for."""
        self._heard_of = max(self._heard_of, time.monotonic())
        kind = message["type"]
        if kind == "steer":
            await self._live.steer(**_settings(message))
        elif kind == "text":
            if self._face.voice is None:
                raise InputError("This machine has no voice to read texts with: install espeak-ng.")
            if self._reading.locked():
                raise InputError("The last text is still being read: wait a moment.")
            async with self._reading:
                speech = await asyncio.to_thread(self._face.voice.speak, str(message["text"]))
            self._live.say(speech.waveform, speech.sample_rate)
        elif kind == "interrupt":
            self._live.interrupt()
        elif kind == "microphone":
            self._microphone = MICROPHONES[MICROPHONES.index(message["mode"])]
        elif kind == "camera":
            self._peer.wants_pictures = bool(message["on"])
            if not message["on"]:
                self._live.drive(None)
        elif kind == "person":
            portrait = None if message["seed"] is None else example.portrait(seed=int(message["seed"]) % 2**31)
            await self._live.show(self._face.source if portrait is None else portrait, crop="none")
        elif kind == "record":
            await (self._begin_recording() if message["on"] else self._end_recording())
        elif kind != "alive":
            raise InputError("This page is of another version: reload it.")

    async def _begin_recording(self) -> None:
        if self._recording is None:
            self._recording = Recording(self.place("recording.mp4"), RATE, dict(self._face.tags))

    async def _end_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is None:
            return
        if not recording.moments:
            await asyncio.to_thread(recording.discard)
            return
        path = await asyncio.to_thread(recording.finish)
        if self._recorded is not None:
            self._recorded.unlink(missing_ok=True)
        self._recorded = path
        self._peer.tell(type="recorded", seconds=recording.seconds)

    async def _show(self) -> None:
        try:
            async for moment in self._live:
                self._peer.show(moment)
                if self._recording is not None and not self._recording.put(moment):
                    asyncio.ensure_future(self._end_recording())  # noqa: RUF006 (it is full, and ends by itself)
        except Exception as error:
            log.warning("The live session stopped: %s", error)
            self._peer.tell(type="error", text=f"The session stopped: {error}")
        finally:
            self._peer.ended.set()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(TELLING)
            if time.monotonic() - self._heard_of > QUIET:
                self._peer.ended.set()
            live, recording = self._live, self._recording
            self._peer.tell(
                type="state", pictures=round(live.pictures_per_second, 1), left_out=live.left_out, latency=live.latency,
                speaking=live.speaking, listening=live.listening, camera=live.sees_face,
                recording=None if recording is None else recording.seconds,
            )  # fmt: skip


def _settings(message: dict) -> dict:
    """The settings of `Live.steer` in a message. InputError, TypeError, ValueError: others."""

    def number(value: object) -> float:
        value = float(value)
        if not math.isfinite(value):
            raise InputError("A setting is not a number: choose another value.")
        return value

    found = {}
    for name in ("strength", "cfg"):
        if name in message:
            found[name] = number(message[name])
    if "seed" in message:
        found["seed"] = int(number(message["seed"])) % 2**63
    for name in ("aim", "expression"):
        if name in message:
            found[name] = {str(channel): number(value) for channel, value in message[name].items()}
    return found


def _read_sound(path: Path) -> Audio:
    file, blocks, samples = AudioFile(path), [], 0
    for block in file.blocks():
        blocks.append(block.mean(dim=0, keepdim=True))
        samples += block.shape[-1]
        if samples > LONGEST_SOUND * file.sample_rate:
            raise InputError(f"The sound is longer than {LONGEST_SOUND // 60} minutes: cut it first.")
    return Audio(torch.cat(blocks, dim=-1), file.sample_rate)


@contextlib.contextmanager
def without_paths(path: Path, name: str):
    """Errors about an uploaded file call it `name`, not by its path on this machine."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from error
