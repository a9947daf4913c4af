"""The links between our nodes, one type and one meaning each, and ComfyUI's AUDIO in the engine's terms."""

import torch
from comfy_api.latest import io

from ..imtalker.errors import InputError
from ..imtalker.media.audio import Audio

Renderer = io.Custom("IMTALKER_RENDERER")  # host.Handle on an imtalker.Renderer
Generator = io.Custom("IMTALKER_GENERATOR")  # host.Handle on an imtalker.Generator
Source = io.Custom("IMTALKER_SOURCE")  # imtalker.Source
AudioFeatures = io.Custom("IMTALKER_AUDIO")  # imtalker.AudioFeatures
Motion = io.Custom("IMTALKER_MOTION")  # imtalker.Motion
Control = io.Custom("IMTALKER_CONTROL")  # imtalker.Control
Crop = io.Custom("IMTALKER_CROP")  # imtalker.face.crop.Crop, or a list with one for each picture

# ComfyUI's own, of its face nodes; an older ComfyUI has nothing that gives it
FaceLandmarks = io.Custom("FACE_LANDMARKS")


def sound(audio: dict | None) -> Audio:
    """ComfyUI's AUDIO, {"waveform": (batch,channels,samples), "sample_rate"}; a video without sound gives None."""
    if audio is None:
        raise InputError("There is no sound in what is connected to audio: load a file with speech in it.")
    return Audio(audio["waveform"], audio["sample_rate"])


def to_comfy(audio: Audio) -> dict:
    """The inverse of `sound`."""
    return {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}


def silence(seconds: float) -> Audio:
    return Audio(torch.zeros(1, max(1, round(seconds * 44100))), 44100)
