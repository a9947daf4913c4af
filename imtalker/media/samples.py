"""Samples of sound of any type, rate and number of channels as float32 (channels, n)."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError

if TYPE_CHECKING:
    from av import AudioFrame, AudioResampler


def sound_blocks(frames: "Iterable[AudioFrame]", rate: int, channels: int) -> Iterator[tuple[float | None, Tensor]]:
    """The samples of decoded frames (channels, n) float32 at `rate` Hz, and the time of each block in seconds.

    A stream may change its rate, channels and type midway: the rate is converted, and other numbers of channels are
    averaged and repeated.
    """
    kind = converter = None
    for frame in frames:
        if (frame.format.name, frame.layout.name, frame.sample_rate) != kind:
            if converter is not None:
                yield from _converted(converter, None, channels)
            kind = frame.format.name, frame.layout.name, frame.sample_rate
            converter = _converter(frame, rate)
        yield from _converted(converter, frame, channels)
    if converter is not None:
        yield from _converted(converter, None, channels)


def _converter(frame: "AudioFrame", rate: int) -> "AudioResampler":
    from av import AudioResampler

    # Packed samples: PyAV reads the pointers of planes out of bounds from eight channels on.
    return AudioResampler(format="flt", layout=frame.layout, rate=rate)


def _converted(
    converter: "AudioResampler", frame: "AudioFrame | None", channels: int
) -> Iterator[tuple[float | None, Tensor]]:
    for part in converter.resample(frame):
        if part is not None and part.samples:
            packed = torch.from_numpy(part.to_ndarray()).reshape(-1, part.layout.nb_channels)
            yield part.time, _with_channels(packed.T, channels)


def _with_channels(block: Tensor, channels: int) -> Tensor:
    if len(block) == channels:
        return block.contiguous()
    return block.mean(dim=0, keepdim=True).expand(channels, -1).contiguous()


def scaled(waveform: Tensor) -> Tensor:
    """A waveform of any real type as float32, whole numbers scaled by their type to -1..1. InputError: another type."""
    kind = waveform.dtype
    if waveform.is_floating_point():
        return waveform.float()
    if kind == torch.bool or waveform.is_complex():
        raise InputError(f"The audio is of type {kind}: convert it to float in -1..1 first.")
    # unsigned samples lie around the middle, as in WAV
    if kind == torch.uint8:
        return (waveform.float() - 128) / 128
    return (waveform.double() / -float(torch.iinfo(kind).min or -torch.iinfo(kind).max)).float()
