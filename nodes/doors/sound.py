"""The door of AUDIO: {"waveform": (batch, channels, samples), "sample_rate"} as the engine's Audio."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...imtalker.errors import InputError
from ...imtalker.media.audio import Audio
from . import numbers
from .opening import enter, kind_of, must_pass, tensor_of

MAX_CHANNELS = 64  # more of them are samples on the wrong axis


class NoSound(InputError):
    """A silent video is connected."""


def sound(name: str, value: object) -> Audio:
    """The first clip of an AUDIO, at its own rate, clamped to -1..1.

    Whole numbers are scaled by their type. NoSound: None, or a mapping that fails when it is read, as the lazy ones of
    video loaders do if the video is silent. InputError: anything else that cannot be played.
    """
    if value is None:
        raise NoSound(f"The input connected to {name} has no sound: load a file with speech in it.")
    if not isinstance(value, Mapping):
        raise InputError(f"The input {name} got {kind_of(value)} instead of sound: connect an AUDIO output.")
    try:
        waveform, rate = value["waveform"], value["sample_rate"]
    except KeyError as error:
        raise InputError(
            f"The input {name} has no {str(error)[:40]} in it: connect an AUDIO output, such as Load Audio's."
        ) from error
    except Exception as error:
        if must_pass(error):
            raise
        raise NoSound(
            f"The input connected to {name} has no sound ({str(error)[:200]}): load a file with speech in it."
        ) from error
    if waveform is None:
        raise NoSound(f"The input connected to {name} has no sound: load a file with speech in it.")
    rate = round(enter(f"The sample rate of {name}", numbers.real, rate))
    samples = _samples(name, tensor_of(name, waveform))
    return Audio(samples, rate)


def to_comfy(audio: Audio) -> dict:
    """The inverse of `sound`."""
    return {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}


def silence(seconds: float) -> Audio:
    """Mono silence at 44.1 kHz, at least one sample."""
    return Audio(torch.zeros(1, max(1, round(seconds * 44100))), 44100)


def _samples(name: str, waveform: Tensor) -> Tensor:
    """The waveform as `check_waveform` takes it, clamped to -1..1. InputError: samples and channels swapped, int64."""
    if waveform.ndim > 1 and waveform.shape[-2] > MAX_CHANNELS:
        raise InputError(
            f"The input {name} has {waveform.shape[-2]} channels of {waveform.shape[-1]} samples: its waveform must be "
            "(batch, channels, samples), so these two are probably the wrong way round."
        )
    if waveform.dtype in (torch.int64, torch.uint64):
        kind = str(waveform.dtype).removeprefix("torch.")
        raise InputError(f"The input {name} has samples of type {kind}: convert them to floats from -1 to 1 first.")
    # before they become float32, in which they could be infinite
    if waveform.is_floating_point() and waveform.numel():
        low, high = waveform.double().aminmax() if waveform.dtype.itemsize == 1 else waveform.aminmax()
        if (low < -1 or high > 1) and low.isfinite() and high.isfinite():
            return waveform.clamp(-1, 1)
    return waveform
