"""Audio in: any media file or waveform to the mono 16 kHz signal that the audio encoder was trained on."""

import itertools
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .container import Notes, decoded_frames, decoder_of, open_media, sound_streams, video_stream
from .formats import TIMED
from .resampling import resample, resample_blocks
from .samples import scaled, sound_blocks
from .timing import placed

SAMPLE_RATE = 16000  # Hz, of the audio encoder
FPS = 25  # of audio features and sampled motion

BLOCK = 1 << 18  # samples

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

    It is never in memory as a whole. Each sample is where its time stamp says: silence fills gaps and broken packets.
    The audio of a video starts with the first frame that `VideoReader` shows. Of several tracks it is the default one.
    InputError: no such file, not media, no audio track.
    """

    sample_rate: int

    def __init__(self, path: str | os.PathLike):
        self.path = path
        self._note = Notes(path)
        self._samples: int | None = None
        with open_media(path) as container:
            if not container.streams.audio:
                raise InputError(f"{path} has no sound: choose a file with speech in it.")
            if not sound_streams(container):
                raise InputError(f"{path} has audio in an unknown codec: convert it to WAV first.")
        found = first_sound(path)
        if found is None:
            raise self._empty()
        # Of a decoded frame: some decoders put out twice the rate that the header says.
        self._track, self.sample_rate, self._channels = found
        _checked_rate(self.sample_rate)
        self._zero = first_shown(path)

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
        """Yields the waveform in blocks (channels, n), float32 in -1..1. InputError while reading: NaN, empty."""
        count = 0
        with open_media(self.path) as container:
            stream = container.streams[self._track]
            sound = sound_blocks(decoded_frames(container, stream, note=self._note), self.sample_rate, self._channels)
            if container.format.name not in TIMED:
                sound = ((None, block) for _, block in sound)
            for block in placed(sound, self.sample_rate, self._zero):
                count += block.shape[-1]
                yield _checked_samples(block)
        if not count:
            raise self._empty()
        self._samples = count

    def _empty(self) -> InputError:
        return InputError(f"{self.path} has an empty audio track: choose a file with speech in it.")


def first_sound(path: str | os.PathLike) -> tuple[int, int, int] | None:
    """Index, sample rate and channels of the audio track of a media file; None if none can be decoded."""
    with open_media(path) as container:
        tracks = [stream.index for stream in sound_streams(container)]
    for track in tracks:
        with open_media(path) as container:
            # The very first frame may be marked with the rate and channels of the last one that FFmpeg looked at.
            frames = list(itertools.islice(decoded_frames(container, container.streams[track]), 2))
        if frames:
            return track, frames[-1].sample_rate, frames[-1].layout.nb_channels
    return None


def first_shown(path: str | os.PathLike) -> float | None:
    """When a player shows the first frame of a media file, in seconds on the file's clock; None without video."""
    with open_media(path) as container:
        stream = video_stream(container)
        if stream is None or stream.codec_context is None:
            return None
        first = next(decoded_frames(container, stream, decoder_of(stream)), None)
        return None if first is None else first.time


def read_audio(path: str | os.PathLike) -> Audio:
    """Reads the whole audio of a media file into memory. InputError as for `AudioFile`."""
    file = AudioFile(path)
    return Audio(torch.cat(list(file.blocks()), dim=-1), file.sample_rate)


def check_waveform(waveform: Tensor, sample_rate: int) -> Tensor:
    """Converts (samples,), (channels, samples) or (batch, channels, samples) to (channels, samples) float32 on the CPU.

    Whole numbers are scaled by their type, as in files, and the result is clamped to -1..1. Of a batch the first clip
    is used. InputError: empty, NaN or infinite, another shape or type, an impossible sample rate.
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
    waveform = _checked_samples(scaled(waveform.detach().cpu()))
    return waveform.reshape(-1, waveform.shape[-1])


def _checked_rate(sample_rate: int) -> int:
    if not 100 <= sample_rate <= 1_000_000:
        raise InputError(f"The audio has a sample rate of {sample_rate}: set its true rate in Hz.")
    return sample_rate


def _checked_samples(waveform: Tensor) -> Tensor:
    # unlike isfinite, which copies the waveform
    low, high = (bound.item() for bound in waveform.aminmax())
    if low >= -1 and high <= 1:
        return waveform
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("The audio contains NaN or infinite samples: load it again or fix the node that made it.")
    return waveform.clamp(-1, 1)


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
