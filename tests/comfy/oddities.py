"""Odd values for every link, made inside ComfyUI: part of the neighbour pack, which has its node `Odd` from here."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import torch

TONE = torch.sin(torch.arange(16000) / 5)[None, None] * 0.5
PICTURE = torch.linspace(0, 1, 80 * 80 * 3).reshape(1, 80, 80, 3)
NAN, INF = float("nan"), float("inf")


class Lazy(Mapping):
    """The AUDIO of a silent video, as VHS makes it."""

    def __getitem__(self, key):
        raise Exception("VHS failed to extract audio from clip.mp4")

    __iter__ = __len__ = lambda self: self["waveform"]


def sound(waveform=TONE, rate=16000):
    return {"waveform": waveform, "sample_rate": rate}


def video(images=PICTURE, rate=Fraction(25), audio=None):
    from comfy_api.latest import InputImpl, Types

    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=rate))


def file(name, **window):
    import folder_paths
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(f"{folder_paths.get_input_directory()}/{name}", **window)


# what nodes should work with
GOOD = {
    "AUDIO": {
        "rate is a float": lambda: sound(rate=16000.0),
        "numpy": lambda: sound(TONE.numpy(), np.int64(16000)),
        "tensor rate": lambda: sound(rate=torch.tensor(16000)),
        "list": lambda: sound(TONE.tolist()),
        "one dimension": lambda: sound(TONE[0, 0]),
        "float64": lambda: sound(TONE.double()),
        "int16": lambda: sound((TONE * 32767).short()),
        "loud int32": lambda: sound((TONE.double() * 2**31).int()),
        "1e8": lambda: sound(TONE * 1e8),
        "batch": lambda: sound(TONE.repeat(2, 1, 1)),
    },
    "IMAGE": {
        "without batch": lambda: PICTURE[0],
        "grey": lambda: PICTURE[..., :1],
        "rgba": lambda: torch.cat([PICTURE, PICTURE[..., :1]], -1),
        "uint8": lambda: (PICTURE * 255).byte(),
        "float16": lambda: PICTURE.half(),
        "numpy": lambda: PICTURE.numpy(),
        "infinite": lambda: torch.full_like(PICTURE, INF),
    },
    "MASK": {
        "one": lambda: torch.ones(80, 80),
        "four dimensions": lambda: torch.ones(1, 1, 80, 80),
        "half": lambda: torch.ones(1, 80, 80).half(),
        "bool": lambda: torch.ones(1, 80, 80) > 0,
    },
    "VIDEO": {
        "odd sides": lambda: video(torch.rand(3, 61, 81, 3)),
        "sound of no use": lambda: video(audio={"waveform": None}),
        "float rate": lambda: video(rate=25.0),
        "file": lambda: file("driving.mp4"),
    },
    "FLOAT": {"numpy": lambda: np.float32(1), "tensor": lambda: torch.tensor(1.0), "int": lambda: 1},
    "INT": {"float": lambda: 64.0, "numpy": lambda: np.int32(64), "tensor": lambda: torch.tensor([64])},
}
# what they must refuse, in one sentence
BAD = {
    "anything": {
        "nothing": lambda: None,
        "text": lambda: "\udcc7\n\x1b[2Jx",
        "object": object,
        "nan": lambda: NAN,
        "dict": lambda: {"samples": torch.zeros(1, 4, 8, 8)},
        "empty list": list,
    },
    "AUDIO": {
        "lazy": Lazy,
        "no rate": lambda: {"waveform": TONE},
        "rate 0": lambda: sound(rate=0),
        "rate nan": lambda: sound(rate=NAN),
        "nan": lambda: sound(TONE * NAN),
        "empty": lambda: sound(TONE[..., :0]),
        "complex": lambda: sound(TONE.to(torch.complex64)),
        "wrong way round": lambda: sound(TONE.movedim(1, 2)),
    },
    "IMAGE": {
        "empty": lambda: PICTURE[:0],
        "no pixels": lambda: PICTURE[:, :0],
        "nan": lambda: PICTURE * NAN,
        "two channels": lambda: PICTURE[..., :2],
        "latent": lambda: torch.zeros(1, 16, 1, 10, 10),
    },
    "MASK": {"empty": lambda: torch.ones(0, 8, 8), "nan": lambda: torch.full((8, 8), NAN), "image": lambda: PICTURE},
    "VIDEO": {
        "no frames": lambda: video(PICTURE[:0]),
        "nan": lambda: video(PICTURE * NAN),
        "rate 0": lambda: video(rate=0),
    },
    "FLOAT": {"infinite": lambda: INF, "huge": lambda: 10**400, "array": lambda: np.zeros(3)},
    "INT": {"infinite": lambda: INF, "huge": lambda: 10**400, "half": lambda: 0.5, "below": lambda: -1},
}


class AnyType(str):
    """Fits every input, as the `*` of other packs."""

    def __ne__(self, other):
        return False

    __hash__ = str.__hash__


class Odd:
    """Outputs an odd value by the type and name in these tables."""

    RETURN_TYPES, FUNCTION, CATEGORY = (AnyType("*"),), "make", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"table": ("STRING", {}), "name": ("STRING", {})}}

    def make(self, table, name):
        return ((BAD if name in BAD.get(table, {}) else GOOD)[table][name](),)


class OddRgba(Odd):
    """A background of 160 x 120 whose colour is .616 at an alpha of .25: .904 over white."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return (torch.tensor([0.616, 0.616, 0.616, 0.25]).expand(1, 120, 160, 4).clone(),)


class TrimmedVideo(Odd):
    """A part of a file in input/."""

    RETURN_TYPES = ("VIDEO",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {}), "start_time": ("FLOAT", {}), "duration": ("FLOAT", {})}}

    def make(self, name, **window):
        return (file(name, **window),)


class PointsEditor(Odd):
    """The box of KJNodes' editor: corners unless it says otherwise."""

    RETURN_TYPES = ("BBOX",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"bbox_format": (["xyxy", "xywh"],)}}

    def make(self, bbox_format):
        return ([(60, 30, 100, 80) if bbox_format == "xyxy" else (60, 30, 40, 50)],)


class Sink:
    """Takes anything, so that what leads to it runs."""

    RETURN_TYPES, OUTPUT_NODE, FUNCTION, CATEGORY = (), True, "take", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": (AnyType("*"), {})}}

    def take(self, value):
        return {"ui": {"text": [type(value).__name__]}}


KINDS = [Odd, OddRgba, TrimmedVideo, PointsEditor, Sink]
