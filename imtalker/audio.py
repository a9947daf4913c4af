"""Sound in: any media file or waveform to the mono 16 kHz signal that the audio encoder was trained on."""

import logging
import math
import os
from collections.abc import Iterator
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

# Files that hold their media themselves: a playlist (HLS, DASH, concat) would have others opened, even of a network.
FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,gif,h264,hevc,ivf,m4v,matroska,mov,mp3,mpeg,mpegts,mpegvideo,"
    "mxf,nut,ogg,rm,tta,voc,w64,wav,wv"
)
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}

logger = logging.getLogger("imtalker")


@dataclass(frozen=True)
class Audio:
    """A sound at its own rate: waveform (channels, samples) float32 on the CPU, nominally -1..1."""

    waveform: Tensor
    sample_rate: int

    @property
    def seconds(self) -> float:
        return self.waveform.shape[-1] / self.sample_rate


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
    """The sound of an audio or video file at its native rate, with all its channels.

    The sound of a video begins where its picture does. InputError: no such file, not media, no sound in it.
    """
    from av import AudioResampler

    with open_media(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path} has no sound: choose a file with speech in it.")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise InputError(f"{path} holds sound in an unknown encoding: convert it to WAV first.")
        picture = video_stream(container)
        to_float = AudioResampler(format="fltp")
        blocks, late = [], 0
        try:
            for frame in decoded_frames(container, stream):
                if not blocks and picture is not None and picture.start_time is not None and frame.pts is not None:
                    late = round((frame.pts * frame.time_base - picture.start_time * picture.time_base) * stream.rate)
                blocks += [torch.from_numpy(part.to_ndarray()) for part in to_float.resample(frame)]
        except ValueError as problem:
            raise InputError(f"{path} changes its sound format on the way: convert it to WAV first.") from problem
        rate = stream.rate
    waveform = torch.cat(blocks, dim=-1) if blocks else torch.empty(1, 0)
    waveform = F.pad(waveform, (late, 0))
    if waveform.shape[-1] == 0:
        raise InputError(f"{path} has an empty sound track: choose a file with speech in it.")
    return Audio(waveform, rate)


def check_waveform(waveform: Tensor, sample_rate: int) -> Tensor:
    """Bring (samples,), (channels, samples) or (batch, channels, samples) to (channels, samples) float32 on the CPU.

    Of a batch the first clip is used. InputError: empty, NaN or infinite, another shape, a rate that is not positive.
    """
    if not 100 <= sample_rate <= 1_000_000:
        raise InputError(f"The audio has a sample rate of {sample_rate}: give its true rate in Hz.")
    if waveform.ndim not in (1, 2, 3) or waveform.numel() == 0:
        raise InputError(
            f"The audio is empty or of an unknown shape {tuple(waveform.shape)}: load a sound with samples."
        )
    if waveform.ndim == 3:
        if len(waveform) > 1:
            logger.warning("the audio is a batch of %d clips; only the first is used", len(waveform))
        waveform = waveform[0]
    waveform = waveform.detach().to("cpu", torch.float32)
    if not waveform.isfinite().all():
        raise InputError("The audio contains NaN or infinite samples: load it again or repair the node that made it.")
    return waveform.reshape(-1, waveform.shape[-1])


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


def _kaiser(position: Tensor) -> Tensor:
    """Kaiser window at any position, 1 in the middle up to scale and nothing beyond -1..1."""
    inside = (1 - position.square()).clamp(min=0).sqrt()
    return torch.special.i0(KAISER_BETA * inside) * (position.abs() < 1)


def to_mono_16k(waveform: Tensor, sample_rate: int) -> Tensor:
    """Any waveform that `check_waveform` takes to (samples,) at 16 kHz: channels are averaged first, like librosa."""
    return resample(check_waveform(waveform, sample_rate).mean(dim=0), sample_rate, SAMPLE_RATE)


def normalise(waveform: Tensor) -> Tensor:
    """Zero mean and unit population variance over the whole clip; silence stays silence (Wav2Vec2FeatureExtractor)."""
    return (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()


def frame_count(samples_16k: int) -> int:
    """Video frames at 25 fps that cover so many samples at 16 kHz, the last one perhaps in part."""
    return -(-samples_16k * FPS // SAMPLE_RATE)
