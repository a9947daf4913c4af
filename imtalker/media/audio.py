"""Audio in: any media file or waveform to the mono 16 kHz signal that the audio encoder was trained on."""

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

SAMPLE_RATE = 16000  # Hz, of the audio encoder
FPS = 25  # of audio features and sampled motion

BLOCK = 1 << 18  # samples
# Seconds between the start of audio and video: a header that claims more is wrong.
MAX_OFFSET = 3600
# No playlists (HLS, DASH, concat): they would make FFmpeg open other files, even over the network.
FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,gif,h264,hevc,ivf,m4v,matroska,mov,mp3,mpeg,mpegts,mpegvideo,"
    "mxf,nut,ogg,rm,tta,voc,w64,wav,wv"
)
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}

log = logging.getLogger("imtalker")


@dataclass(frozen=True)
class Audio:
    """Audio in memory at its native rate: waveform (channels, samples) float32 on the CPU, nominally -1..1.

    Any waveform that `check_waveform` accepts is converted to this form. InputError: as there.
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
        """Yields the waveform in blocks (channels, n)."""
        return iter(self.waveform.split(BLOCK, dim=-1))


class AudioFile:
    """The audio of an audio or video file at its native rate, all channels, streamed from disk by each `blocks()`.

    It is never in memory as a whole. The audio of a video is aligned to start with the first frame.
    InputError: no such file, not media, no audio track.
    """

    sample_rate: int

    def __init__(self, path: str | os.PathLike):
        self.path = path
        self._samples: int | None = None
        with open_media(path) as container:
            if not container.streams.audio:
                raise InputError(f"{path} has no sound: choose a file with speech in it.")
            if container.streams.audio[0].codec_context is None:
                raise InputError(f"{path} has audio in an unknown codec: convert it to WAV first.")
            # From a decoded frame: some decoders put out twice the rate that the header says.
            first = next(decoded_frames(container, container.streams.audio[0]), None)
        if first is None:
            raise self._empty()
        self.sample_rate = _checked_rate(first.sample_rate)

    @property
    def samples(self) -> int:
        """Number of samples per channel, counted by reading the file once: headers cannot be trusted."""
        if self._samples is None:
            for _ in self.blocks():
                pass
        return self._samples

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    def blocks(self) -> Iterator[Tensor]:
        """Yields the waveform in blocks (channels, n), float32.

        InputError while reading: NaN, infinite, empty, a format that changes within the file.
        """
        count = 0
        with open_media(self.path) as container:
            for block in self._aligned(container):
                if block.shape[-1]:
                    count += block.shape[-1]
                    yield _checked_samples(block)
        if not count:
            raise self._empty()
        self._samples = count

    def _aligned(self, container: "InputContainer") -> Iterator[Tensor]:
        """The decoded blocks, padded with silence or cut so that they start with the video."""
        late = None
        for frame, block in self._decoded(container):
            if late is None:
                late = self._late(container, frame)
                yield from block.new_zeros(len(block), max(0, late)).split(BLOCK, dim=-1)
            cut = min(max(0, -late), block.shape[-1])
            late += cut
            yield block[:, cut:]

    def _decoded(self, container: "InputContainer") -> "Iterator[tuple[AudioFrame, Tensor]]":
        """Each decoded frame with its samples (channels, n) as float32."""
        from av import AudioResampler

        to_float = AudioResampler(format="fltp")
        try:
            for frame in decoded_frames(container, container.streams.audio[0]):
                for part in to_float.resample(frame):
                    yield frame, torch.from_numpy(part.to_ndarray())
        except ValueError as problem:
            raise InputError(f"{self.path} changes its audio format midway: convert it to WAV first.") from problem

    def _late(self, container: "InputContainer", first: "AudioFrame") -> int:
        """How many samples after the video the audio starts; negative if it starts before."""
        video = video_stream(container)
        if video is None or video.start_time is None or first.pts is None:
            return 0
        seconds = first.pts * first.time_base - video.start_time * video.time_base
        if abs(seconds) > MAX_OFFSET:
            raise InputError(
                f"The audio of {self.path} starts {float(seconds):.0f} s after its video, according to its header: "
                "convert it first."
            )
        return round(seconds * self.sample_rate)

    def _empty(self) -> InputError:
        return InputError(f"{self.path} has an empty audio track: choose a file with speech in it.")


def open_media(path: str | os.PathLike) -> "InputContainer":
    """Opens a media file with FFmpeg. InputError: no such file, not media."""
    import av

    if not Path(path).is_file():
        raise InputError(f"There is no file {path}: check the name and the folder.")
    # FFmpeg cannot mistake an absolute path for a protocol such as concat:.
    name = os.path.abspath(path)
    try:
        try:
            return av.open(name, options=OPTIONS)
        except UnicodeDecodeError:  # older PyAV decodes tags strictly
            return av.open(name, metadata_errors="replace", options=OPTIONS)
    except av.FFmpegError as problem:
        raise InputError(
            f"{path} cannot be read as audio or video ({problem.strerror}): choose a media file, or convert it first."
        ) from problem


def decoded_frames(container: "InputContainer", stream: "Stream") -> "Iterator[AudioFrame | VideoFrame]":
    """Yields the intact frames of a stream; broken ones are skipped and counted in one warning at the end."""
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
        log.warning("%s: skipped %d broken %s frames", container.name, broken, stream.type)


def video_stream(container: "InputContainer") -> "Stream | None":
    """The first video stream of a file that is not cover art, or None."""
    from av.stream import Disposition

    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def read_audio(path: str | os.PathLike) -> Audio:
    """Reads the whole audio of a media file into memory. InputError as for `AudioFile`."""
    file = AudioFile(path)
    return Audio(torch.cat(list(file.blocks()), dim=-1), file.sample_rate)


def check_waveform(waveform: Tensor, sample_rate: int) -> Tensor:
    """Converts (samples,), (channels, samples) or (batch, channels, samples) to (channels, samples) float32 on the CPU.

    Of a batch the first clip is used. InputError: empty, NaN or infinite, another shape, an impossible sample rate.
    """
    _checked_rate(sample_rate)
    if waveform.ndim not in (1, 2, 3) or waveform.numel() == 0:
        raise InputError(
            f"The audio is empty or has an unknown shape {tuple(waveform.shape)}: load a file with speech in it."
        )
    if waveform.ndim == 3:
        if len(waveform) > 1:
            log.warning("The audio is a batch of %d clips; only the first is used.", len(waveform))
        waveform = waveform[0]
    waveform = _checked_samples(waveform.detach().to("cpu", torch.float32))
    return waveform.reshape(-1, waveform.shape[-1])


def _checked_rate(sample_rate: int) -> int:
    if not 100 <= sample_rate <= 1_000_000:
        raise InputError(f"The audio has a sample rate of {sample_rate}: set its true rate in Hz.")
    return sample_rate


def _checked_samples(waveform: Tensor) -> Tensor:
    # unlike isfinite, which copies the waveform
    if not torch.stack(waveform.aminmax()).isfinite().all():
        raise InputError("The audio contains NaN or infinite samples: load it again or fix the node that made it.")
    return waveform


def to_mono_16k(waveform: Tensor, sample_rate: int) -> Tensor:
    """Converts a waveform as `check_waveform` accepts it to mono (samples,) at 16 kHz, averaging first like librosa."""
    return resample(check_waveform(waveform, sample_rate).mean(dim=0), sample_rate, SAMPLE_RATE)


def mono_16k(audio: Audio | AudioFile) -> Iterator[Tensor]:
    """`to_mono_16k` as a stream of blocks (n,)."""
    return resample_blocks((block.mean(dim=0) for block in audio.blocks()), audio.sample_rate, SAMPLE_RATE)


def normalise(waveform: Tensor) -> Tensor:
    """Scales to zero mean and unit population variance, as Wav2Vec2FeatureExtractor does; silence stays silence."""
    return (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()


def frame_count(samples_16k: int) -> int:
    """Number of 25 fps video frames that cover `samples_16k` samples at 16 kHz, the last one perhaps in part."""
    return -(-samples_16k * FPS // SAMPLE_RATE)
