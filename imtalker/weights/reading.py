"""Reading a weight file and recognising its kind, generation and configuration, before any model is built."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..media.tensors import read_names, read_tensors
from ..models.config import PUBLISHED, GeneratorConfig, RendererConfig, check_sizes, from_dict
from ..models.generator import Generator
from ..models.renderer import Renderer

CLASSES = {"renderer": Renderer, "generator": Generator}
KIND_NAMES = {
    "renderer": "a renderer",
    "generator": "a motion generator",
    "wav2vec2": "a wav2vec2 audio encoder",
    "smirk": "a SMIRK encoder",
    "l2cs": "an L2CS-Net",
}
AUDIO_PREFIX = "audio_encoder.wav2vec2."
NAMED_IN_MESSAGES = 4
StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """Weights as in their file: published names without prefix."""

    label: str  # the name in messages
    tensors: dict[str, Tensor]
    kind: str | None  # a key of KIND_NAMES, or None for something else
    config: RendererConfig | GeneratorConfig | None

    def describe(self) -> str:
        """What the weights are, as messages put it: `a renderer (v2)`."""
        if self.config:
            return f"{KIND_NAMES[self.kind]} ({self.config.generation})"
        if self.kind:
            return KIND_NAMES[self.kind]
        starts = list(dict.fromkeys(name.split(".")[0] for name in self.tensors))
        if not starts:
            return "a file without any weights"
        return f"something else (its keys start with {_first_names(starts)})"


@dataclass(frozen=True)
class Report:
    """How weights compare with the model they appear to be."""

    weights: Weights
    missing: list[str]
    unexpected: list[str]
    misshaped: list[str]

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.weights.tensors.values())

    @property
    def precisions(self) -> list[str]:
        return sorted({str(tensor.dtype).removeprefix("torch.") for tensor in self.weights.tensors.values()})

    @property
    def problems(self) -> str:
        """What does not fit, in words; empty if everything fits."""
        found = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.misshaped))
        return "; ".join(f"{len(names)} {what}: {_first_names(names)}" for what, names in found if names)


def read_weights(file: str | Path | StateDict) -> Weights:
    """Weights of any kind from a file or a dictionary, without prefixes; averaged (EMA) weights are preferred."""
    tree, metadata = (file, {}) if isinstance(file, Mapping) else read_tensors(file)
    label = "The given state dict" if isinstance(file, Mapping) else str(file)
    tensors = _state_dict(tree)
    kind = _kind(tensors)
    config = _config(label, kind, tensors, metadata)
    return Weights(label, tensors, kind, config)


def kind_of_file(path: str | Path) -> str | None:
    """The kind of weights in a file, a key of KIND_NAMES, by its names alone and so at once.

    None: something else, not readable, or only to be read as a whole.
    """
    try:
        return _kind(_state_dict(read_names(path) or {}))
    except InputError:
        return None


def _state_dict(tree: Mapping) -> dict[str, Tensor]:
    """The tensors of a checkpoint, without the training state around them."""
    state = tree.get("state_dict", tree)
    state = state if isinstance(state, Mapping) else {}
    if isinstance(state.get("model"), Mapping):
        state = state["model"]
    prefix = next((p for p in ("gen.", "model.") if any(str(name).startswith(p) for name in state)), "")
    tensors = _tensors(state, prefix)
    averaged = tree.get("ema_state_dict")
    if isinstance(averaged, Mapping):
        tensors.update(_tensors(averaged, ""))
    return tensors


def _tensors(state: Mapping, prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and name.startswith(prefix) and _is_dense(tensor)
    }


def _is_dense(value: object) -> bool:
    """False for sparse, quantised, nested, complex and meta tensors: these models have none, some have no size."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_nested or value.is_quantized or value.is_complex() or value.is_meta)
    )


def _kind(tensors: StateDict) -> str | None:
    starts = {name.split(".")[0] for name in tensors}
    if {"dense_feature_encoder", "frame_decoder"} & starts:
        return "renderer"
    if "fmt" in starts:
        return "generator"
    if "feature_extractor" in starts or any(name.startswith("wav2vec2.") for name in tensors):
        return "wav2vec2"
    if any("pose_encoder." in name or "pose_cam_layers." in name for name in tensors):
        return "smirk"
    if {"fc_yaw_gaze", "fc_pitch_gaze"} & starts:
        return "l2cs"
    return None


def _config(label: str, kind: str | None, tensors: StateDict, metadata: dict[str, str]):
    if kind not in CLASSES:
        return None
    if "config" in metadata:
        try:
            config = from_dict(kind, json.loads(metadata["config"]))
            check_sizes(config)
            return config
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{label} has a configuration that this version does not know ({error}): update this package."
            ) from error
    if kind == "renderer":
        v2 = any(name.startswith("dense_feature_encoder.down_block_0.") for name in tensors)
    else:
        v2 = "fmt.pos_embed" not in tensors
    return PUBLISHED[kind]["v2" if v2 else "v1"]


def has_audio(weights: Weights) -> bool:
    return any(name.startswith(AUDIO_PREFIX) for name in weights.tensors)


def compare_shapes(weights: Weights, found: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> Report:
    return Report(
        weights,
        missing=[name for name in expected if name not in found],
        unexpected=[name for name in found if name not in expected],
        misshaped=[
            f"{name} {tuple(found[name])} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    )


def _first_names(names: Iterable[str]) -> str:
    # names come from the file and may contain terminal escape codes
    names = ["".join(c if c.isprintable() else "?" for c in name) for name in names]
    shown = ", ".join(names[:NAMED_IN_MESSAGES])
    return shown + (f" and {len(names) - NAMED_IN_MESSAGES} more" if len(names) > NAMED_IN_MESSAGES else "")
