"""A second pack in the server's custom_nodes: sources and sinks for the tests, and package names that could clash."""

import copy
import json
import math

import numpy as np
import torch

from . import oddities
from .imtalker import WHOSE as ENGINE
from .nodes import WHOSE


class Output:
    """Answers with lines of text."""

    RETURN_TYPES, OUTPUT_NODE, FUNCTION, CATEGORY = (), True, "answer", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


class Neighbour(Output):
    def answer(self):
        import nodes

        return {"ui": {"text": [WHOSE, ENGINE, str(hasattr(nodes, "NODE_CLASS_MAPPINGS"))]}}


class LoadedModels(Output):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"after": ("VIDEO", {})}}

    @classmethod
    def IS_CHANGED(cls, after):
        return float("nan")

    def answer(self, after):
        import comfy.model_management as mm

        return {"ui": {"text": [type(patcher.model).__name__ for patcher in mm.loaded_models()]}}


class ShowControl(Output):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"control": ("IMTALKER_CONTROL", {})}}

    def answer(self, control):
        rows = {name: part.tolist() for name, part in control.parts().items()}
        return {"ui": {"text": [json.dumps(rows | {"fps": control.fps})]}}


class Maker:
    FUNCTION, CATEGORY = "make", "test"
    INPUTS = ""

    @classmethod
    def INPUT_TYPES(cls):
        pairs = (pair.split(":") for pair in cls.INPUTS.split())
        return {"required": {name: (kind, {}) for name, kind in pairs}}


class MadeUpAudio(Maker):
    INPUTS = "samples:INT channels:INT rate:INT value:FLOAT"
    RETURN_TYPES = ("AUDIO",)

    def make(self, samples, channels, rate, value):
        return ({"waveform": torch.full((1, channels, samples), value), "sample_rate": rate},)


class MadeUpMotion(Maker):
    INPUTS = "frames:INT size:INT"
    RETURN_TYPES = ("IMTALKER_MOTION",)

    def make(self, frames, size):
        return (engine().Motion(torch.zeros(1, size).expand(frames, size)),)


class MadeUpCrop(Maker):
    INPUTS = "x:FLOAT y:FLOAT size:FLOAT height:INT width:INT"
    RETURN_TYPES = ("IMTALKER_CROP",)

    def make(self, **sides):
        return (engine().face.crop.Crop(**sides),)


class KeepControl(Output):
    """Writes the control to a file in output/."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"control": ("IMTALKER_CONTROL", {})}}

    @classmethod
    def IS_CHANGED(cls, control):
        return float("nan")

    def answer(self, control):
        import folder_paths

        control.save(f"{folder_paths.get_output_directory()}/control.safetensors")
        return {"ui": {"text": ["kept"]}}


class MadeUpLandmarks(Maker):
    """Landmarks of a face that turns to the image's right by 0.1 rad a frame; no face in every fourth frame."""

    INPUTS = "frames:INT height:INT width:INT"
    RETURN_TYPES = ("FACE_LANDMARKS",)

    def make(self, frames, height, width):
        faces = [[turned_face(0.1 * n, height, width)] if n % 4 != 3 else [] for n in range(frames)]
        return ({"frames": faces, "image_size": (height, width), "connection_sets": {}},)


def turned_face(yaw, height, width):
    matrix = np.eye(4, dtype=np.float32)
    matrix[[0, 0, 2, 2], [0, 2, 0, 2]] = math.cos(yaw), math.sin(yaw), -math.sin(yaw), math.cos(yaw)
    box = np.array([0.3 * width, 0.2 * height, 0.7 * width, 0.8 * height], np.float32)
    points = np.random.default_rng(0).uniform(0, 1, (468, 3)).astype(np.float32)  # no irises
    return {
        "landmarks_xy": box[:2] + points[:, :2] * (box[2:] - box[:2]),
        "landmarks_3d": points * 192,
        "bbox_xyxy": box,
        "score": 0.9,
        "transformation_matrix": matrix,
    }


class MadeUpRig(Maker):
    """A rig whose channels are the first values of a motion: yaw, mouth, blink and brows."""

    INPUTS = "size:INT"
    RETURN_TYPES = ("IMTALKER_RIG",)

    def make(self, size):
        rig = engine().motion.rig
        parts = {"yaw": "head", "mouth": "mouth", "blink": "eyes", "brows": "brows"}
        channels = tuple(rig.Channel(name, part, -1.0, 1.0, 1.0, "names") for name, part in parts.items())
        values = torch.eye(size)
        return (rig.Rig(channels, values[:, :4], values[:4], torch.zeros(1, size)),)


class MadeUpBox(Maker):
    """A BBOX as other packs define it: one (x, y, width, height)."""

    INPUTS = "x:INT y:INT width:INT height:INT"
    RETURN_TYPES = ("BBOX",)

    def make(self, x, y, width, height):
        return ((x, y, width, height),)


class TightMemory(Maker):
    """A renderer on a device with memory for this many frames."""

    INPUTS = "renderer:IMTALKER_RENDERER frames:INT"
    RETURN_TYPES = ("IMTALKER_RENDERER",)

    def make(self, renderer, frames):
        def forward(source, latents):
            if len(latents) > frames:
                raise torch.cuda.OutOfMemoryError
            return type(model).forward(model, source, latents)

        model = renderer.model
        tight = copy.deepcopy(model)
        tight.forward = forward
        patcher = renderer.patcher
        return (type(renderer)(type(patcher)(tight, patcher.load_device, patcher.offload_device)),)


def engine():
    """The package `imtalker` that our pack imported."""
    import sys

    return next(module for name, module in sys.modules.items() if name.endswith("ComfyUI-IMTalker.imtalker"))


KINDS = [
    Neighbour,
    LoadedModels,
    ShowControl,
    MadeUpAudio,
    MadeUpMotion,
    MadeUpCrop,
    MadeUpBox,
    MadeUpLandmarks,
    MadeUpRig,
    TightMemory,
    KeepControl,
    *oddities.KINDS,
]
NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in KINDS}
