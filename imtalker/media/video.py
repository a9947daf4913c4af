"""Video in at a constant frame rate, frame by frame in constant memory."""

import itertools
import logging
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from .audio import decoded_frames, open_media, video_stream

if TYPE_CHECKING:
    from typing import Self

    from av import VideoFrame

log = logging.getLogger("imtalker")

# Containers round times to as little as a millisecond, so a frame may seem that much late.
TOLERANCE = Fraction(1, 500)
# A frame that lasts longer than this has a broken time stamp.
MAX_GAP = 600  # seconds
MAX_PIXELS = 8192 * 8192
# Code points of ITU-T H.273, the same in every FFmpeg.
BT709, BT601, UNSPECIFIED, LIMITED, FULL = 1, 5, 2, 1, 2
# SWS_BILINEAR | SWS_FULL_CHR_H_INT | SWS_ACCURATE_RND: libswscale's fast path to RGB is 1 to 2 levels of 255 too dark.
ACCURATE = 0x2 | 0x2000 | 0x40000


def frame_rate(fps: float | Fraction) -> Fraction:
    """Turns frames per second into the exact rate: 25.0 -> 25, 29.97 -> 30000/1001. InputError: not in 0..1000."""
    if not 0 < fps <= 1000:
        raise InputError(f"A frame rate of {fps} is not possible: give frames per second, such as 25.")
    broadcast = Fraction(round(fps) * 1000, 1001)
    if isinstance(fps, float) and abs(fps - broadcast) < 0.003:
        return broadcast
    return Fraction(fps).limit_denominator(1001)


class VideoReader:
    """Iterates over the frames of a video file, upright, as uint8 tensors (H,W,3) at the constant rate `fps`.

    Frame i is what a player shows i/fps seconds after the first frame, so files with a variable rate keep their timing.
    Each new iteration starts over; only the latest one is valid. `frames` and `seconds` are estimates from the file's
    header, None if it has none. `fps` None keeps the file's own rate.
    InputError: no such file, not a video, no frame can be decoded, frame rate neither in the file nor given.
    """

    fps: Fraction
    width: int
    height: int
    frames: int | None
    seconds: float | None
    has_audio: bool

    def __init__(self, path: str | os.PathLike, fps: float | None = None):
        self.path = path
        self._open()
        try:
            self._read_header(fps)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._container = open_media(self.path)
        self._stream = video_stream(self._container)
        if self._stream is not None:
            self._stream.thread_type = "AUTO"

    def _read_header(self, fps: float | None) -> None:
        if self._stream is None:
            raise InputError(f"{self.path} has no video in it: choose a video file.")
        size = self._stream.codec_context
        if size is None:
            raise InputError(f"{self.path} has video in an unknown codec: convert it to H.264 first.")
        rate = self._stream.average_rate or self._stream.guessed_rate
        if not (rate or fps):
            raise InputError(f"{self.path} does not state its frame rate: set one.")
        self._period = 1 / (rate or frame_rate(fps))
        self.fps = frame_rate(fps) if fps else rate
        self.has_audio = bool(self._container.streams.audio)
        self.seconds = None
        if self._stream.duration:
            self.seconds = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration:
            self.seconds = self._container.duration / 1e6
        self.frames = None if self.seconds is None else math.ceil((self.seconds - float(TOLERANCE)) * self.fps)
        if size.width * size.height > MAX_PIXELS:
            raise InputError(f"{self.path} is {size.width}x{size.height}: scale it to 8192x8192 or less first.")
        if self.fps > 1000:
            raise InputError(f"{self.path} claims {self.fps} frames per second: set its true frame rate.")
        first = next(decoded_frames(self._container, self._stream), None)
        if first is None:
            raise InputError(f"No frame of {self.path} can be decoded: convert it to H.264 first.")
        self._coded_size = first.width, first.height
        self.height, self.width = _upright(first, *self._coded_size).shape[:2]

    def __iter__(self) -> Iterator[Tensor]:
        self.close()
        self._open()
        index, shown, image = 0, None, None
        origin, end = None, Fraction(0)
        # None marks the end of the file.
        for frame in itertools.chain(decoded_frames(self._container, self._stream), [None]):
            start = end
            if frame is not None:
                if frame.pts is not None:
                    start = frame.pts * frame.time_base
                    origin = start if origin is None else origin
                    start -= origin
                    if start > end + MAX_GAP:
                        log.warning("%s: skipped a jump of %.0f s in its time stamps", self.path, float(start - end))
                        origin, start = origin + start - end, end
                end = start + min(self._period, MAX_GAP)
            while shown is not None and index / self.fps < start - TOLERANCE:
                image = _upright(shown, *self._coded_size) if image is None else image
                yield image
                index += 1
            shown, image = frame, None

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _upright(frame: "VideoFrame", width: int, height: int) -> Tensor:
    """A decoded frame as uint8 RGB (H,W,3), rotated and mirrored by its display matrix."""
    matrix = frame.colorspace
    if matrix == UNSPECIFIED:
        matrix = BT709 if frame.height >= 720 else BT601
    full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
    rgb = frame.reformat(
        width,
        height,
        "rgb24",
        src_colorspace=matrix,
        # RGB has no matrix, but older PyAV ignores the source's matrix unless the two differ.
        dst_colorspace=BT601 if matrix == BT709 else BT709,
        src_color_range=FULL if full else LIMITED,
        dst_color_range=FULL,
        interpolation=ACCURATE,
    )
    image = torch.from_numpy(rgb.to_ndarray())
    if frame.rotation == 0:
        return image
    # displayed x = a x + c y, displayed y = b x + d y; one of each pair is zero
    a, b, _, c, d = memoryview(bytes(frame.side_data["DISPLAYMATRIX"])).cast("i")[:5]
    if abs(a) < abs(b):
        image, a, d = image.transpose(0, 1), c, b
    return image.flip([axis for axis, sign in ((0, d), (1, a)) if sign < 0]).contiguous()
