"""Link types, one meaning each, and how inputs of ComfyUI's own types become the engine's."""

import logging
from collections.abc import Sequence

import torch
from comfy_api.latest import io
from torch import Tensor

from ..imtalker.errors import InputError
from ..imtalker.media.audio import Audio

log = logging.getLogger("imtalker")

Renderer = io.Custom("IMTALKER_RENDERER")  # host.Handle on an imtalker.Renderer
Generator = io.Custom("IMTALKER_GENERATOR")  # host.Handle on an imtalker.Generator
Source = io.Custom("IMTALKER_SOURCE")  # imtalker.Source
AudioFeatures = io.Custom("IMTALKER_AUDIO")  # imtalker.AudioFeatures
Motion = io.Custom("IMTALKER_MOTION")  # imtalker.Motion
Control = io.Custom("IMTALKER_CONTROL")  # imtalker.Control
Crop = io.Custom("IMTALKER_CROP")  # imtalker.face.crop.Crop, or a list with one for each picture

# ComfyUI's own type; versions before its face nodes have no node that outputs it
FaceLandmarks = io.Custom("FACE_LANDMARKS")


def control_output() -> Control.Output:
    return Control.Output(display_name="control", tooltip="For Sample Motion, or the control input of another control.")


def to_engine(audio: dict | None) -> Audio:
    """ComfyUI's AUDIO, {"waveform": (batch,channels,samples), "sample_rate"}. InputError for None: a silent video."""
    if audio is None:
        raise InputError("The input connected to audio has no sound: load a file with speech in it.")
    return Audio(audio["waveform"], audio["sample_rate"])


def to_comfy(audio: Audio) -> dict:
    """The inverse of `to_engine`."""
    return {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}


def silence(seconds: float) -> Audio:
    """Mono silence at 44.1 kHz, at least one sample."""
    return Audio(torch.zeros(1, max(1, round(seconds * 44100))), 44100)


def one_per_frame(what: str, value: object, count: int) -> Sequence:
    """`count` items: a single one is repeated, extra ones are dropped with a warning. InputError for too few."""
    items = value if isinstance(value, (list, Tensor)) else [value]
    if len(items) == 1:
        return [items[0]] * count
    if len(items) < count:
        raise InputError(f"{what} has {len(items)} frames but {count} are needed: connect 1 or {count}.")
    if len(items) > count:
        log.warning("%s has %d frames but only %d are needed; the rest is ignored.", what, len(items), count)
    return items[:count]
