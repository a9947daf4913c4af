"""Sound in: any media file or waveform to the mono 16 kHz signal that the audio encoder was trained on."""

import itertools
import logging
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError

if TYPE_CHECKING:
    from av import AudioFrame, VideoFrame
    from av.container import InputContainer
    from av.stream import Stream

SAMPLE_RATE = 16000
FPS = 25

# Measured against soxr HQ, the filter behind the published features: cut off at .9565 of the lower Nyquist.
CUTOFF = 0.9565
ZERO_CROSSINGS = 96
KAISER_BETA = 12.3
# Outputs computed by one matrix product, and the most numbers one such product gathers.
PHASES = 192
GATHERED = 1 << 22

# Samples handed on at once: seconds of a file that is resampled, and values of a waveform in memory.
RESAMPLED_SECONDS = 16
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
    """A sound in memory at its own rate: waveform (channels, samples) float32 on the CPU, nominally -1..1."""

    waveform: Tensor
    sample_rate: int

    @property
    def samples(self) -> int:
        return self.waveform.shape[-1]

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    def blocks(self) -> Iterator[Tensor]:
        """The waveform, as `check_waveform` has it, in parts (channels, n)."""
        return iter(check_waveform(self.waveform, self.sample_rate).split(BLOCK, dim=-1))


class AudioFile:
    """The sound of an audio or video file at its native rate, with all its channels, read again by every `blocks()`.

    It is never in memory as a whole. The sound of a video begins where its picture does.
    InputError: no such file, not media, no sound in it.
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
            # what a header says can be half of what the decoder makes of it
            first = next(decoded_frames(container, container.streams.audio[0]), None)
        if first is None:
            raise self._empty()
        self.sample_rate = _possible(first.sample_rate)

    @property
    def samples(self) -> int:
        """Counted by reading the file once; headers are not to be trusted with it."""
        if self._samples is None:
            for _ in self.blocks():
                pass
        return self._samples

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    def blocks(self) -> Iterator[Tensor]:
        """The waveform in parts (channels, n), float32. InputError on the way: NaN, infinite, empty, another format."""
        from av import AudioResampler

        count = 0
        with open_media(self.path) as container:
            stream = container.streams.audio[0]
            to_float, late = AudioResampler(format="fltp"), None
            try:
                for frame in decoded_frames(container, stream):
                    for part in to_float.resample(frame):
                        block = torch.from_numpy(part.to_ndarray())
                        if late is None:
                            late = self._late(container, frame)
                            silence = block.new_zeros(len(block), max(0, late)).split(BLOCK, dim=-1)
                            yield from (part for part in silence if part.shape[-1])
                            count = max(0, late)
                        cut = min(max(0, -late), block.shape[-1])
                        late += cut
                        block = block[:, cut:]
                        if block.shape[-1]:
                            count += block.shape[-1]
                            yield _finite(block)
            except ValueError as problem:
                if isinstance(problem, InputError):
                    raise
                raise InputError(
                    f"{self.path} changes its sound format on the way: convert it to WAV first."
                ) from problem
        if not count:
            raise self._empty()
        self._samples = count

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


class BlockReader:
    """Any stretch of a signal that comes in blocks, as long as the stretches move forward: the past is dropped."""

    def __init__(self, blocks: Iterable[Tensor], dim: int = -1):
        self._blocks, self._dim = iter(blocks), dim
        self._held: list[Tensor] = []
        self._first = self._end = 0  # where the held blocks lie in the signal

    def read(self, start: int, stop: int) -> Tensor | None:
        """Positions start..stop, fewer past the end; None where nothing was ever there."""
        while self._end < stop and (block := next(self._blocks, None)) is not None:
            self._held.append(block)
            self._end += block.shape[self._dim]
        if not self._held:
            return None
        joined = self._held[0] if len(self._held) == 1 else torch.cat(self._held, self._dim)
        begin = min(start - self._first, joined.shape[self._dim])
        joined = joined.narrow(self._dim, begin, joined.shape[self._dim] - begin)
        self._held, self._first = [joined], self._first + begin
        return joined.narrow(self._dim, 0, min(stop - start, joined.shape[self._dim]))


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


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """(..., samples) at one rate in Hz to (..., ceil(samples * to_rate / from_rate)) at another.

    Polyphase windowed sinc, within -70 dB of soxr HQ on speech; the ends are continued with silence. Rates are whole.
    """
    if from_rate == to_rate:
        return waveform
    divisor = math.gcd(from_rate, to_rate)
    up, down = to_rate // divisor, from_rate // divisor
    samples = -(-waveform.shape[-1] * up // down)
    lower = min(1, up / down)
    half = math.ceil(ZERO_CROSSINGS / lower)
    # Outputs a whole number of periods apart share a filter; several periods at once make larger, faster products.
    repeats = -(-PHASES // up)
    phases, step = up * repeats, down * repeats
    periods = -(-samples // phases)

    signal = waveform.reshape(-1, waveform.shape[-1])
    room = periods * step + half + PHASES * (down // up + 1) + 2
    signal = F.pad(signal, (half, room - signal.shape[-1]))
    output = signal.new_empty(len(signal), periods, phases)
    for first in range(0, min(phases, samples), PHASES):
        numbers = torch.arange(first, min(first + PHASES, phases))
        start = first * down // up
        # In whole numbers until here: where each output lies, in input samples after `start`.
        centre = (numbers * down - start * up).double() / up
        window = int(centre[-1]) + 2 * half + 1
        time = torch.arange(window) - half - centre[:, None]
        kernel = torch.sinc(time * lower * CUTOFF) * _kaiser(time * lower / ZERO_CROSSINGS)
        kernel = (kernel / kernel.sum(dim=1, keepdim=True)).T.to(signal.dtype)
        gathered = signal[:, start:].unfold(-1, window, step)
        at_once = max(1, GATHERED // (window * len(signal)))
        for period in range(0, periods, at_once):
            part = gathered[:, period : min(period + at_once, periods)]
            output[:, period : period + at_once, first : first + PHASES] = part @ kernel
    return output.flatten(1)[:, :samples].reshape(*waveform.shape[:-1], samples)


def resample_blocks(blocks: Iterable[Tensor], from_rate: int, to_rate: int) -> Iterator[Tensor]:
    """`resample` of a signal that comes in blocks (..., n) and goes in others: the same numbers, up to rounding."""
    if from_rate == to_rate:
        yield from blocks
        return
    divisor = math.gcd(from_rate, to_rate)
    up, down = to_rate // divisor, from_rate // divisor
    # whole periods of the filter, so that every part is cut where the filter begins again
    step = max(1, RESAMPLED_SECONDS * divisor) * down
    around = -(-(math.ceil(ZERO_CROSSINGS * max(1, down / up)) + 1) // down) * down
    signal = BlockReader(blocks)
    for start in itertools.count(0, step):
        first = max(0, start - around)
        part = signal.read(first, start + step + around)
        if part is None or part.shape[-1] <= start - first:
            return
        done = (start - first) // down * up
        yield resample(part, from_rate, to_rate)[..., done : done + step // down * up]


def _kaiser(position: Tensor) -> Tensor:
    """Kaiser window at any position, 1 in the middle up to scale and nothing beyond -1..1."""
    inside = (1 - position.square()).clamp(min=0).sqrt()
    return torch.special.i0(KAISER_BETA * inside) * (position.abs() < 1)


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
