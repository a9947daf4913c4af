"""WebRTC with one page: picture and sound out, microphone and camera in, messages both ways."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from fractions import Fraction

import av
import torch
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from torch import Tensor

from ..errors import InputError
from ..media.audio import FPS
from .engine import Moment

log = logging.getLogger("imtalker")

RATE = 48000  # of the sound, in and out: what Opus speaks
PACKETS = 2  # of sound a moment, 20 ms each
VIDEO_CLOCK = 90000
WAITING = 8  # packets that wait to be sent; a page that takes none loses the oldest
LONGEST = 16384  # characters of a message


class OutTrack(MediaStreamTrack):
    """Frames, each sent as soon as it is there."""

    def __init__(self, kind: str):
        self.kind = kind
        super().__init__()
        self._frames: asyncio.Queue = asyncio.Queue()

    def send(self, frame: av.VideoFrame | av.AudioFrame) -> None:
        while self._frames.qsize() >= WAITING:
            self._frames.get_nowait()
        self._frames.put_nowait(frame)

    async def recv(self) -> av.VideoFrame | av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        return await self._frames.get()


class Peer:
    """One page.

    on_sound: gets its microphone's samples (n,), mono at RATE. on_picture: gets its camera's pictures (H,W,3) uint8.
    on_message: gets what the page says, a dict with a "type". All are called in the event loop.
    """

    def __init__(
        self,
        on_sound: Callable[[Tensor], None],
        on_picture: Callable[[Tensor], None],
        on_message: Callable[[dict], Awaitable[None]],
    ):
        # no STUN server: nothing leaves the network that the page came from
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._on_sound, self._on_picture, self._on_message = on_sound, on_picture, on_message
        self._picture, self._sound = OutTrack("video"), OutTrack("audio")
        self._channel: RTCDataChannel | None = None
        self._tasks: set[asyncio.Task] = set()
        self.ended = asyncio.Event()
        self.wants_pictures = False  # of the camera

    async def answer(self, sdp: str) -> str:
        """The answer to a page's offer, as SDP. InputError: not an offer of sound, picture and messages."""
        connection = self._connection
        connection.on("track", self._receive)
        connection.on("datachannel", self._talk)
        connection.on("connectionstatechange", self._state_changed)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            connection.addTrack(self._sound)
            connection.addTrack(self._picture)
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:  # whatever a text that is no SDP leads to
            await self.close()
            raise InputError("The page's offer cannot be understood: reload the page.") from error
        return connection.localDescription.sdp

    def show(self, moment: Moment) -> None:
        picture = av.VideoFrame.from_ndarray(moment.frame.numpy(), format="rgb24")
        picture.pts, picture.time_base = moment.number * VIDEO_CLOCK // FPS, Fraction(1, VIDEO_CLOCK)
        pcm = moment.sound.mul(32767).round().short().numpy()
        size = len(pcm) // PACKETS
        for part in range(PACKETS):
            sound = av.AudioFrame.from_ndarray(pcm[None, part * size : (part + 1) * size], format="s16", layout="mono")
            sound.sample_rate, sound.time_base = RATE, Fraction(1, RATE)
            sound.pts = (moment.number * PACKETS + part) * size
            self._sound.send(sound)
        self._picture.send(picture)

    def tell(self, **message: object) -> None:
        """Sends a message to the page, if it listens."""
        if self._channel is not None and self._channel.readyState == "open":
            with contextlib.suppress(Exception):  # it closes at this moment
                self._channel.send(json.dumps(message))

    async def close(self) -> None:
        self.ended.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._picture.stop()
        self._sound.stop()
        await self._connection.close()

    def _state_changed(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self.ended.set()

    def _start(self, work: Awaitable) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _receive(self, track: MediaStreamTrack) -> None:
        self._start(self._hear(track) if track.kind == "audio" else self._see(track))

    async def _hear(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                samples = torch.from_numpy(frame.to_ndarray()).reshape(-1, len(frame.layout.channels))
                self._on_sound(samples.float().mean(dim=1) / 32768)

    async def _see(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if self.wants_pictures:
                    pixels = await asyncio.to_thread(frame.to_ndarray, format="rgb24")
                    self._on_picture(torch.from_numpy(pixels))

    def _talk(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", lambda text: self._start(self._read(text)))
        channel.on("close", self.ended.set)

    async def _read(self, text: str | bytes) -> None:
        try:
            message = json.loads(text) if isinstance(text, str) and len(text) <= LONGEST else None
        except ValueError:
            message = None
        if not isinstance(message, dict):
            self.tell(type="error", text="This message cannot be understood: reload the page.")
            return
        try:
            await self._on_message(message)
        except InputError as error:
            self.tell(type="error", text=str(error))
        except (KeyError, TypeError, ValueError, AttributeError):
            log.info("A message of the page was not understood.", exc_info=True)
            self.tell(type="error", text="This message cannot be understood: reload the page.")
