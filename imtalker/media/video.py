"""Video in at a constant frame rate, and out as H.264 with audio, frame by frame in constant memory."""

import contextlib
import itertools
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .atomic import whole_file
from .audio import Audio, AudioFile, decoded_frames, open_media, video_stream
from .files import VIDEO_SUFFIXES, check_output
from .resampling import BlockReader, resample_blocks

if TYPE_CHECKING:
    from typing import Self

    from av import VideoFrame

log = logging.getLogger("imtalker")

# Containers round times to as little as a millisecond, so a frame may seem that much late.
TOLERANCE = Fraction(1, 500)
# A frame that lasts longer than this has a broken time stamp.
MAX_GAP = 600  # seconds
MAX_PIXELS = 8192 * 8192
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
# Tags that mp4 has fixed fields for; any other key switches all of them to the newer mdta metadata.
COMMON_TAGS = {"title", "artist", "album", "comment", "description", "copyright", "date", "genre"}
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


def write_video(
    path: str | os.PathLike,
    frames: Iterable[Tensor],
    fps: float | Fraction,
    audio: Audio | AudioFile | None = None,
    metadata: Mapping[str, str] | None = None,
    crf: int = 18,
    preset: str = "veryfast",
) -> int:
    """Writes a stream of RGB frames as H.264 (bt709, limited range) with AAC audio; returns the number of frames.

    frames: tensors (H,W,3) or (n,H,W,3), float in 0..1 or uint8, all of one size; an odd side is padded to even by
    repeating the edge. The audio is cut or padded with silence to exactly frames / fps seconds. The file is written
    whole or not at all: on any error an existing file stays as it was.
    InputError: no frames, frames of different sizes, unusable audio, unknown suffix, no such folder, disk full.
    """
    path = check_output(path, *VIDEO_SUFFIXES)
    rate = frame_rate(fps)
    soundtrack = None if audio is None else Soundtrack(audio)
    images = _single_frames(frames)
    first = next(images, None)
    if first is None:
        raise InputError(f"There are no frames to write to {path}: check the length of the motion.")
    with whole_file(path) as temporary:
        return _encode(temporary, itertools.chain([first], images), rate, soundtrack, dict(metadata or {}), crf, preset)


def _encode(
    path: Path,
    frames: Iterable[Tensor],
    rate: Fraction,
    soundtrack: "Soundtrack | None",
    metadata: dict[str, str],
    crf: int,
    preset: str,
) -> int:
    import av

    flags = "+faststart" if metadata.keys() <= COMMON_TAGS else "+faststart+use_metadata_tags"
    # In milliseconds, the default, most frame durations cannot be expressed.
    ticks = str(rate.numerator * math.ceil(10000 / rate.numerator))
    container = av.open(os.path.abspath(path), "w", options={"movflags": flags, "movie_timescale": ticks})
    try:
        container.metadata.update(metadata)
        video = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset})
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        if soundtrack is not None:
            layout = "stereo" if soundtrack.channels == 2 else "mono"
            track = container.add_stream("aac", rate=soundtrack.sample_rate, layout=layout)
            track.bit_rate = 96000 * soundtrack.channels
        written = 0
        for index, pixels in enumerate(frames):
            if index == 0:
                video.height, video.width = pixels.shape[:2]
            elif pixels.shape[:2] != (video.height, video.width):
                raise InputError(
                    f"Frame {index} is {pixels.shape[1]}x{pixels.shape[0]} but the frames before it are "
                    f"{video.width}x{video.height}: make all frames the same size."
                )
            frame = av.VideoFrame.from_ndarray(pixels.numpy(), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=BT709, src_color_range=FULL, dst_color_range=LIMITED
            )
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(video.encode(frame))
            if soundtrack is not None:
                # Interleaved frame by frame, so that the muxer need not buffer one stream.
                until = round((index + 1) * soundtrack.sample_rate / rate)
                samples = soundtrack.read(written, until)
                block = av.AudioFrame.from_ndarray(samples.numpy(), format="fltp", layout=layout)
                block.sample_rate, block.pts, block.time_base = (
                    soundtrack.sample_rate,
                    written,
                    Fraction(1, soundtrack.sample_rate),
                )
                container.mux(track.encode(block))
                written = until
        container.mux(video.encode(None))
        if soundtrack is not None:
            container.mux(track.encode(None))
    except BaseException:
        # A second error on closing would hide the first one.
        with contextlib.suppress(av.FFmpegError, OSError):
            container.close()
        raise
    container.close()
    return index + 1


def _single_frames(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """Splits blocks into single frames: uint8 (H,W,3) on the CPU, padded to even sides."""
    for block in frames:
        if block.ndim not in (3, 4) or block.shape[-1] != 3 or 0 in block.shape[-3:]:
            raise InputError(f"Frames must be (H,W,3) or (n,H,W,3), not {tuple(block.shape)}.")
        block = block.detach().reshape(-1, *block.shape[-3:])
        if block.dtype != torch.uint8:
            block = block.float().clamp(0, 1).mul(255).round().to(torch.uint8)
        if block.shape[1] % 2:
            block = torch.cat([block, block[:, -1:]], dim=1)
        if block.shape[2] % 2:
            block = torch.cat([block, block[:, :, -1:]], dim=2)
        yield from block.cpu().contiguous()


class Soundtrack:
    """Streams audio in a form that AAC supports: one or two channels at one of its sample rates."""

    def __init__(self, audio: Audio | AudioFile):
        self.sample_rate = audio.sample_rate if audio.sample_rate in AAC_RATES else 48000
        blocks = audio.blocks()
        first = next(blocks)
        self.channels = min(2, len(first))
        pairs = (_front_pair(block) for block in itertools.chain([first], blocks))
        self._reader = BlockReader(resample_blocks(pairs, audio.sample_rate, self.sample_rate))

    def read(self, start: int, stop: int) -> Tensor:
        """Samples start..stop (channels,n), silent after the end; positions may only move forward."""
        part = self._reader.read(start, stop)
        return F.pad(part, (0, stop - start - part.shape[-1])).contiguous()


def _front_pair(waveform: Tensor) -> Tensor:
    """Downmixes to stereo: the front pair plus all others at -3 dB in the centre, scaled so that nothing clips."""
    if len(waveform) <= 2:
        return waveform
    rest = waveform[2:].sum(dim=0) * math.sqrt(0.5)
    return (waveform[:2] + rest) / (1 + (len(waveform) - 2) * math.sqrt(0.5))
