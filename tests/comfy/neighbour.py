"""Another pack beside ours in the server's custom_nodes: sources for tests, and package names that could clash."""

import torch

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
        return (engine().crop.Crop(**sides),)


class MadeUpBox(Maker):
    """As packs with a BBOX of their own give it: one (x, y, width, height)."""

    INPUTS = "x:INT y:INT width:INT height:INT"
    RETURN_TYPES = ("BBOX",)

    def make(self, x, y, width, height):
        return ((x, y, width, height),)


class TightMemory(Maker):
    """A renderer on a device with memory for so many frames."""

    INPUTS = "renderer:IMTALKER_RENDERER frames:INT"
    RETURN_TYPES = ("IMTALKER_RENDERER",)

    def make(self, renderer, frames):
        def forward(source, latents):
            if len(latents) > frames:
                raise torch.cuda.OutOfMemoryError
            return type(model).forward(model, source, latents)

        model = renderer.model
        tight = type(model)(model.config).eval()
        tight.load_state_dict(model.state_dict())
        tight.forward = forward
        patcher = renderer.patcher
        return (type(renderer)(type(patcher)(tight, patcher.load_device, patcher.offload_device)),)


def engine():
    """The package `imtalker` as the pack beside this one has it."""
    import sys

    return next(module for name, module in sys.modules.items() if name.endswith("ComfyUI-IMTalker.imtalker"))


NODE_CLASS_MAPPINGS = {
    kind.__name__: kind
    for kind in (Neighbour, LoadedModels, MadeUpAudio, MadeUpMotion, MadeUpCrop, MadeUpBox, TightMemory)
}
