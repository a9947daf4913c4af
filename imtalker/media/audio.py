"""Sound in: any media file or waveform to the mono 16 kHz signal that the audio encoder was trained on."""

import itertools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from .resampling import resample, resample_blocks

if TYPE_CHECKING:
    from av import AudioFrame, VideoFrame
    from av.container import InputContainer
    from av.stream import Stream

SAMPLE_RATE = 16000
FPS = 25


BLOCK = 1 << 18
# A file whose header says that its sound begins further than this from its picture is not believed.
LATEST_START = 3600
# Files that hold their media themselves: a playlist (HLS, DASH, concat) would have others opened, even of a network.
FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,gif,h264,hevc,ivf,m4v,matroska,mov,mp3,mpeg,mpegts,mpegvideo,"
    "mxf,nut,ogg,rm,tta,voc,w64,wav,wv"
)
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}

logger = logging.getLogger("imtalker")


@dataclass(frozen=True)
class Audio:
    """Audio in memory at its own rate: waveform (channels, samples) float32 on the CPU, nominally -1..1.

    Any waveform that `check_waveform` accepts is brought to this form here, once. InputError as there.
    """

    waveform: Tensor
    sample_rate: int

    def __post_init__(self):
        object.__setattr__(self, "waveform", check_waveform(self.waveform, self.sample_rate))

    @property
    def samples(self) -> int:
        return self.waveform.shape[-1]

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    def blocks(self) -> Iterator[Tensor]:
        """The waveform in parts (channels, n)."""
        return iter(self.waveform.split(BLOCK, dim=-1))


class AudioFile:
    """The audio of a media file at its native rate, with all its channels; every `blocks()` reads the file again.

    It is never in memory as a whole. The audio of a video starts where its first frame does.
    InputError: no such file, not a media file, no audio in it.
    """

    sample_rate: int

    def __init__(self, path: str | os.PathLike):
        self.path = path
        self._samples: int | None = None
        with open_media(path) as container:
            if not container.streams.audio:
                raise InputError(f"{path} has no sound: choose a file with speech in it.")
            if container.streams.audio[0].codec_context is None:
                raise InputError(f"{path} holds sound in an unknown encoding: convert it to WAV first.")
            # the rate in a header can be half of what the decoder gives
            first = next(decoded_frames(container, container.streams.audio[0]), None)
        if first is None:
            raise self._empty()
        self.sample_rate = _possible(first.sample_rate)

    @property
    def samples(self) -> int:
        """Counted by reading the file once, because headers can be wrong."""
        if self._samples is None:
            for _ in self.blocks():
                pass
        return self._samples

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    def blocks(self) -> Iterator[Tensor]:
        """The waveform in parts (channels, n), float32. InputError while reading: NaN, infinite, empty, new format."""
        count = 0
        with open_media(self.path) as container:
            parts = self._float_parts(container)
            first = next(parts, None)
            # before the decoder's first part: silence, or a cut, so that sound and picture start together
            late = 0 if first is None else self._late(container, first[0])
            if late > 0:
                count = late
                yield from first[1].new_zeros(len(first[1]), late).split(BLOCK, dim=-1)
            surplus = max(0, -late)
            for _, block in parts if first is None else itertools.chain([first], parts):
                cut = min(surplus, block.shape[-1])
                surplus, block = surplus - cut, block[:, cut:]
                if block.shape[-1]:
                    count += block.shape[-1]
                    yield _finite(block)
        if not count:
            raise self._empty()
        self._samples = count

    def _float_parts(self, container: "InputContainer") -> "Iterator[tuple[AudioFrame, Tensor]]":
        """Each decoded frame with its samples (channels, n), float32."""
        from av import AudioResampler

        to_float = AudioResampler(format="fltp")
        for frame in decoded_frames(container, container.streams.audio[0]):
            try:
                parts = [torch.from_numpy(part.to_ndarray()) for part in to_float.resample(frame)]
            except ValueError as problem:
                raise InputError(
                    f"{self.path} changes its sound format partway through: convert it to WAV first."
                ) from problem
            for part in parts:
                yield frame, part

    def _late(self, container: "InputContainer", first: "AudioFrame") -> int:
        """Samples between the beginning of a video's picture and its sound; negative where the sound comes first."""
        picture = video_stream(container)
        if picture is None or picture.start_time is None or first.pts is None:
            return 0
        seconds = first.pts * first.time_base - picture.start_time * picture.time_base
        if abs(seconds) > LATEST_START:
            raise InputError(f"{self.path} says its sound begins {float(seconds):.0f} s after its picture: convert it.")
        return round(seconds * self.sample_rate)

    def _empty(self) -> InputError:
        return InputError(f"{self.path} has an empty sound track: choose a file with speech in it.")


def open_media(path: str | os.PathLike) -> "InputContainer":
    """Open a media file with FFmpeg; InputError where there is no such file or it is not media."""
    import av

    if not Path(path).is_file():
        raise InputError(f"There is no file {path}: check the name and the folder.")
    # An absolute path is never taken for a protocol such as concat:.
    name = os.path.abspath(path)
    try:
        try:
            return av.open(name, options=OPTIONS)
        except UnicodeDecodeError:  # only releases that still have this option decode tags strictly
            return av.open(name, metadata_errors="replace", options=OPTIONS)
    except av.FFmpegError as problem:
        raise InputError(
            f"{path} cannot be read as sound or video ({problem.strerror}): choose a media file, or convert it first."
        ) from problem


def decoded_frames(container: "InputContainer", stream: "Stream") -> "Iterator[AudioFrame | VideoFrame]":
    """Every good frame of a stream; broken ones are left out and counted in one warning at the end."""
    import av

    broken = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet else []
        except av.FFmpegError:
            broken += 1
            continue
        if packet is None:
            break
        for frame in frames:
            if frame.is_corrupt:
                broken += 1
            else:
                yield frame
    if broken:
        logger.warning("%s: %d broken %s frames were skipped", container.name, broken, stream.type)


def video_stream(container: "InputContainer") -> "Stream | None":
    """The first moving picture of a file; the cover art of a song is not one."""
    from av.stream import Disposition

    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def read_audio(path: str | os.PathLike) -> Audio:
    """The sound of an `AudioFile`, as a whole in memory."""
    file = AudioFile(path)
    return Audio(torch.cat(list(file.blocks()), dim=-1), file.sample_rate)


def check_waveform(waveform: Tensor, sample_rate: int) -> Tensor:
    """Bring (samples,), (channels, samples) or (batch, channels, samples) to (channels, samples) float32 on the CPU.

    Of a batch the first clip is used. InputError: empty, NaN or infinite, another shape, a rate that is not positive.
    """
    _possible(sample_rate)
    if waveform.ndim not in (1, 2, 3) or waveform.numel() == 0:
        raise InputError(
            f"The audio is empty or of an unknown shape {tuple(waveform.shape)}: load a sound with samples."
        )
    if waveform.ndim == 3:
        if len(waveform) > 1:
            logger.warning("the audio is a batch of %d clips; only the first is used", len(waveform))
        waveform = waveform[0]
    waveform = _finite(waveform.detach().to("cpu", torch.float32))
    return waveform.reshape(-1, waveform.shape[-1])


def _possible(sample_rate: int) -> int:
    if not 100 <= sample_rate <= 1_000_000:
        raise InputError(f"The audio has a sample rate of {sample_rate}: give its true rate in Hz.")
    return sample_rate


def _finite(waveform: Tensor) -> Tensor:
    if not waveform.isfinite().all():
        raise InputError("The audio contains NaN or infinite samples: load it again or repair the node that made it.")
    return waveform


def to_mono_16k(waveform: Tensor, sample_rate: int) -> Tensor:
    """Any waveform that `check_waveform` takes to (samples,) at 16 kHz: channels are averaged first, like librosa."""
    return resample(check_waveform(waveform, sample_rate).mean(dim=0), sample_rate, SAMPLE_RATE)


def mono_16k(sound: Audio | AudioFile) -> Iterator[Tensor]:
    """`to_mono_16k` of a sound, in blocks (n,)."""
    return resample_blocks((block.mean(dim=0) for block in sound.blocks()), sound.sample_rate, SAMPLE_RATE)


def normalise(waveform: Tensor) -> Tensor:
    """Zero mean and unit population variance over the whole clip; silence stays silence (Wav2Vec2FeatureExtractor)."""
    return (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()


def frame_count(samples_16k: int) -> int:
    """Video frames at 25 fps that cover so many samples at 16 kHz, the last one perhaps in part."""
    return -(-samples_16k * FPS // SAMPLE_RATE)
