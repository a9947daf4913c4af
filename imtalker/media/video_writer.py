"""Video out, as H.264 with AAC audio, frame by frame in constant memory."""

import contextlib
import itertools
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
from .audio import Audio, AudioFile
from .files import VIDEO_SUFFIXES, check_output
from .mixing import Mixed
from .planes import Planes
from .resampling import BlockReader, resample_blocks
from .video import BT709, FULL, LIMITED, frame_rate

if TYPE_CHECKING:
    import av

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
# Tags that mp4 has fixed fields for; any other key switches all of them to the newer mdta metadata.
MAX_SIDE = 16384  # pixels, of libx264
COMMON_TAGS = {"title", "artist", "album", "comment", "description", "copyright", "date", "genre"}


def write_video(
    path: str | os.PathLike,
    frames: Iterable[Tensor | Planes],
    fps: float | Fraction,
    audio: Audio | AudioFile | Mixed | None = None,
    metadata: Mapping[str, str] | None = None,
    crf: int = 18,
    preset: str = "veryfast",
) -> int:
    """Writes a stream of RGB frames as H.264 (bt709, limited range) with AAC audio; returns the number of frames.

    frames: tensors (H,W,3) or (n,H,W,3), float in 0..1 or uint8, or Planes, all of one size; an odd side is padded to
    even by repeating the edge. The audio is cut or padded with silence to exactly frames / fps seconds. The file is
    written whole or not at all: on any error an existing file stays as it was.
    InputError: no frames, frames of different sizes or too large, unusable audio, unknown suffix, no such folder, disk
    full.
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
            frame = _as_stored(pixels)
            if index == 0:
                if max(frame.height, frame.width) > MAX_SIDE:
                    raise InputError(
                        f"Frames of {frame.width}x{frame.height} are too large for H.264: scale them to {MAX_SIDE} or "
                        "less first."
                    )
                video.height, video.width = frame.height, frame.width
            elif (frame.height, frame.width) != (video.height, video.width):
                raise InputError(
                    f"Frame {index} is {frame.width}x{frame.height} but the frames before it are "
                    f"{video.width}x{video.height}: make all frames the same size."
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


def _as_stored(pixels: Tensor) -> "av.VideoFrame":
    """One frame in the form that is encoded: YUV 4:2:0, BT.709, limited range."""
    import av

    if pixels.ndim == 2:
        frame = av.VideoFrame.from_ndarray(pixels.numpy(), format="yuv420p")
        frame.colorspace, frame.color_range = BT709, LIMITED
        return frame
    return av.VideoFrame.from_ndarray(pixels.numpy(), format="rgb24").reformat(
        format="yuv420p", dst_colorspace=BT709, src_color_range=FULL, dst_color_range=LIMITED
    )


def _single_frames(frames: Iterable[Tensor | Planes]) -> Iterator[Tensor]:
    """Splits blocks into single frames, uint8 on the CPU: (H,W,3) padded to even sides, or planes (H*3/2,W)."""
    for block in frames:
        if isinstance(block, Planes):
            yield from block.values.cpu()
            continue
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

    def __init__(self, audio: Audio | AudioFile | Mixed):
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
