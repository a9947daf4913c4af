"""Video in at a constant frame rate, frame by frame in constant memory."""

import itertools
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import InputError
from .audio import FPS, first_sound
from .colour import BT709, FULL, LIMITED, light_of, to_rgb
from .container import MAX_PIXELS, Notes, decoded_frames, decoder_of, frame_times, open_media, video_stream
from .interlacing import deinterlaced
from .orientation import display_matrix, is_right_angle, square_pixels, swaps_sides, upright
from .timing import MAX_GAP, ROUNDING, constant_rate

if TYPE_CHECKING:
    from typing import Self

    from av import VideoFrame

__all__ = ["BT709", "FULL", "LIMITED", "VideoReader", "frame_rate"]  # the colours are the writer's, too

SLOWEST, FASTEST = Fraction(1, 60), 1000  # frames a second
MAX_SECONDS = 100 * 3600  # a header that claims more is wrong


def frame_rate(fps: float | Fraction) -> Fraction:
    """Turns frames per second into the exact rate: 25.0 -> 25, 29.97 -> 30000/1001. InputError: not in 1/60..1000."""
    if not SLOWEST <= fps <= FASTEST:
        raise InputError(f"A frame rate of {fps} is not possible: give frames per second, such as 25.")
    broadcast = Fraction(round(fps) * 1000, 1001)
    if isinstance(fps, float) and abs(fps - broadcast) < 0.003:
        return broadcast
    return Fraction(fps).limit_denominator(1001)


class VideoReader:
    """Iterates over the frames of a video file as uint8 tensors (H,W,3) at the constant rate `fps`.

    Frames are upright with square pixels, deinterlaced, in BT.709 colours; HDR is tone-mapped and transparency is
    composited over white. Frames of another size than the first are fitted into it.
    Frame i is what a player shows i/fps seconds after the first frame, so files with a variable rate keep their timing.
    Each new iteration starts over; only the latest one is valid. `fps` None takes the file's own rate, or that of most
    of its frames if it varies. `frames` and `seconds` are estimates, None if nothing is known.
    InputError: no such file, not a video, no frame can be decoded, too large.
    """

    fps: Fraction
    width: int
    height: int
    frames: int | None
    seconds: float | None
    has_audio: bool

    def __init__(self, path: str | os.PathLike, fps: float | None = None):
        self.path = path
        self._note = Notes(path)
        self._matrices: dict[int, tuple[float, float, float, float]] = {}
        self._peak: float | None = None
        self._open()
        try:
            self._read_header(fps)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._container = open_media(self.path)
        self._stream = video_stream(self._container)
        if self._stream is not None and self._stream.codec_context is not None:
            self._decoder = decoder_of(self._stream)

    def _frames(self) -> "Iterator[VideoFrame]":
        return deinterlaced(decoded_frames(self._container, self._stream, self._decoder, self._note))

    def _read_header(self, fps: float | None) -> None:
        if self._stream is None:
            raise InputError(f"{self.path} has no video in it: choose a video file.")
        size = self._stream.codec_context
        if size is None:
            raise InputError(f"{self.path} has video in an unknown codec: convert it to H.264 first.")
        self._check_size(size.width, size.height)
        times, whole = frame_times(self.path)
        rate = constant_rate(self._stream.average_rate or self._stream.guessed_rate, times) or Fraction(FPS)
        self._period = 1 / rate
        self.fps = frame_rate(fps) if fps else rate
        self.has_audio = first_sound(self.path) is not None
        self.seconds = None
        if whole and times:
            self.seconds = float(max(times) - min(times) + self._period)
        elif self._stream.duration:
            self.seconds = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration:
            self.seconds = self._container.duration / 1e6
        if self.seconds is not None and not 0 < self.seconds < MAX_SECONDS:
            self.seconds = None
        self.frames = None if self.seconds is None else math.ceil((self.seconds - float(ROUNDING)) * self.fps)
        self._aspect = self._stream.sample_aspect_ratio
        first = next(self._frames(), None)
        if first is None:
            raise InputError(f"No frame of {self.path} can be decoded: convert it to H.264 first.")
        self.width, self.height = self._shown_size(first)
        self._check_size(self.width, self.height)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise InputError(f"{self.path} is {width}x{height}: scale it to 8192x4352 or less first.")

    def _shown_size(self, frame: "VideoFrame") -> tuple[int, int]:
        width, height = square_pixels(frame.width, frame.height, self._aspect)
        return (height, width) if swaps_sides(self._matrix(frame)) else (width, height)

    def _matrix(self, frame: "VideoFrame") -> tuple[float, float, float, float]:
        # Reading side data makes a ring of references, which keeps the frame's memory until Python looks for rings.
        if frame.rotation not in self._matrices:
            self._matrices[frame.rotation] = display_matrix(frame)
        return self._matrices[frame.rotation]

    def __iter__(self) -> Iterator[Tensor]:
        return self.part(0, None)

    def part(self, first: int, stop: int | None) -> Iterator[Tensor]:
        """The frames first..stop (None: to the last). Earlier ones are decoded, but not converted."""
        self.close()
        self._open()
        index, shown, image = 0, None, None
        origin, end = None, Fraction(0)
        # None marks the end of the file.
        for frame in itertools.chain(self._frames(), [None]):
            start = end
            if frame is not None:
                if frame.pts is not None:
                    start = frame.pts * frame.time_base
                    origin = start if origin is None else origin
                    start -= origin
                end = start + min(self._period, MAX_GAP)
            while shown is not None and index / self.fps < start - ROUNDING:
                if index == stop:
                    return
                if index >= first:
                    image = self._image(shown) if image is None else image
                    yield image
                index += 1
            shown, image = frame, None

    def _image(self, frame: "VideoFrame") -> Tensor:
        """A decoded frame as it is shown: uint8 RGB (height,width,3)."""
        matrix = self._matrix(frame)
        if not is_right_angle(matrix):
            self._note("it is turned by an odd angle, of which the nearest right angle is used")
        light = light_of(frame, self._decoder, self._peak)
        self._peak = light.peak or self._peak
        if light.note:
            self._note(light.note)
        width, height = self._shown_size(frame)
        scale = min(self.width / width, self.height / height)
        fitted = max(1, round(width * scale)), max(1, round(height * scale))
        across, down = tuple(reversed(fitted)) if swaps_sides(matrix) else fitted
        image = upright(to_rgb(frame, across, down, light), matrix)
        if image.shape[:2] == (self.height, self.width):
            return image
        self._note("its picture changes its shape midway; the later frames have black borders")
        framed = image.new_zeros(self.height, self.width, 3)
        top, left = (self.height - fitted[1]) // 2, (self.width - fitted[0]) // 2
        framed[top : top + fitted[1], left : left + fitted[0]] = image
        return framed

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
