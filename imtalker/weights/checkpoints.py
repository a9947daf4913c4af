"""Loads models from weight files, and saves, inspects and converts them."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..media.files import check_output, sha256_of
from ..media.tensors import save_safetensors
from ..models.config import GeneratorConfig, RendererConfig, to_dict
from ..models.folding import check_not_final, fold
from ..models.generator import Generator
from ..models.l2cs import GazeEncoder
from ..models.names import UNUSED, to_ours, to_published
from ..models.renderer import Renderer
from ..models.smirk import ExpressionEncoder, PoseEncoder
from .reading import (
    AUDIO_PREFIX,
    CLASSES,
    KIND_NAMES,
    Report,
    StateDict,
    Weights,
    compare_shapes,
    has_audio,
    read_weights,
)

POSE_PREFIXES = ("smirk_encoder.pose_encoder.", "pose_encoder.")  # the published file, the encoder alone
EXPRESSION_PREFIXES = ("smirk_encoder.expression_encoder.", "expression_encoder.")
L2CS_UNUSED = "fc_finetune."  # left over from the authors' experiments
AVATAR = Path(__file__).parents[1] / "avatar"  # the weights shipped with the package


def load_renderer(
    file: str | Path | StateDict,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    final: bool = False,
) -> Renderer:
    """Loads a renderer from a .ckpt or .safetensors file, or a dictionary of tensors; the weights tell the generation.

    dtype: None for float32. final: the model will only be used, not trained or saved; takes less memory.
    Raises InputError, before anything runs, for weights that do not fit exactly, or are NaN or infinite.
    """
    return _load(_expect(read_weights(file), "renderer"), device, dtype, final)


def load_generator(
    file: str | Path | StateDict,
    wav2vec: str | Path | StateDict | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    final: bool = False,
) -> Generator:
    """Loads a motion generator, as `load_renderer` does a renderer.

    wav2vec: folder in Hugging Face layout, file or tensors; needed only if the generator's file has no wav2vec2.
    """
    weights = _expect(read_weights(file), "generator")
    if not has_audio(weights):
        if wav2vec is None:
            raise InputError(
                f"{weights.label} holds no wav2vec2 weights: give the folder wav2vec2-base-960h as well "
                f"(python -m imtalker download fetches it)."
            )
        weights.tensors.update(read_wav2vec(wav2vec))
    return _load(weights, device, dtype, final)


def read_wav2vec(file: str | Path | StateDict) -> dict[str, Tensor]:
    """wav2vec2 weights under a generator's names for them, without the letter head (lm_head)."""
    if not isinstance(file, Mapping):
        file = Path(file)
        if os.path.isdir(file):
            names = ("model.safetensors", "pytorch_model.bin")
            folder = file
            file = next((folder / name for name in names if os.path.isfile(folder / name)), None)
            if file is None:
                raise InputError(
                    f"The folder {folder} holds neither {' nor '.join(names)}: download wav2vec2-base-960h."
                )
    weights = read_weights(file)
    if weights.kind != "wav2vec2":
        raise InputError(f"{weights.label} is {weights.describe()}: choose a wav2vec2 audio encoder.")
    names = {name: name.removeprefix("wav2vec2.") for name in weights.tensors if not name.startswith("lm_head.")}
    return {AUDIO_PREFIX + name: weights.tensors[key] for key, name in names.items()}


def load_smirk(file: str | Path | StateDict, device: str | torch.device = "cpu") -> PoseEncoder:
    """Loads SMIRK's pose encoder, in float32, from its authors' file or a dictionary of tensors, as `load_renderer`.

    The published file also holds a shape encoder and an image generator, which are skipped, and an expression encoder,
    for `load_expressions`.
    """
    return _load_tracker(_expect(read_weights(file), "smirk"), PoseEncoder, POSE_PREFIXES, device)


def load_expressions(file: str | Path | StateDict, device: str | torch.device = "cpu") -> ExpressionEncoder | None:
    """SMIRK's encoder of expression, eyelids and jaw, as `load_smirk`; None for a file of the pose encoder alone."""
    weights = _expect(read_weights(file), "smirk")
    if not any(name.startswith(EXPRESSION_PREFIXES) for name in weights.tensors):
        return None
    return _load_tracker(weights, ExpressionEncoder, EXPRESSION_PREFIXES, device)


def load_l2cs(file: str | Path | StateDict, device: str | torch.device = "cpu") -> GazeEncoder:
    """Loads L2CS-Net (ResNet-50, 90 bins), in float32, from its authors' file or a dictionary, as `load_renderer`."""
    return _load_tracker(_expect(read_weights(file), "l2cs"), GazeEncoder, (), device)


def models_folder(name: str) -> Path:
    """A folder of weights by its path, or "avatar" for the project's own small models of drawn heads."""
    return AVATAR if name == AVATAR.name else Path(name)


def find_weights(folder: str | Path, kind: str) -> Path:
    """The weight file of this kind in a folder, by its published name; .safetensors is preferred to .ckpt."""
    for suffix in (".safetensors", ".ckpt"):
        if os.path.isfile(path := Path(folder) / f"{kind}{suffix}"):
            return path
    raise InputError(
        f"{folder} holds neither {kind}.safetensors nor {kind}.ckpt: download the published weights with "
        f"python -m imtalker download --to {folder}"
    )


def inspect(file: str | Path | StateDict) -> Report:
    """Says what a file is, and which tensors are missing, unexpected or of the wrong shape."""
    weights = read_weights(file)
    if weights.config is None:
        return Report(weights, [], [], [])
    return _compare(weights, _build(weights))


def save_weights(model: Renderer | Generator, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes a model as .safetensors, with published names and its configuration in the metadata.

    Raises RuntimeError for a model loaded as final.
    """
    check_not_final(model)
    kind = "renderer" if isinstance(model, Renderer) else "generator"
    tensors = {to_published(kind, name): _cast_if_finite(tensor, dtype) for name, tensor in model.state_dict().items()}
    save_safetensors(path, tensors, _metadata(kind, model.config))


def _cast_if_finite(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """In `dtype` unless its numbers overflow there: a norm's variance may be beyond float16."""
    smaller = tensor.to(dtype or tensor.dtype)
    return smaller if torch.equal(smaller.isfinite(), tensor.isfinite()) else tensor


def convert(
    file: str | Path, to: str | Path, split_wav2vec: bool = False, dtype: torch.dtype | None = None
) -> list[Path]:
    """Writes the weights of any accepted file as .safetensors, without prefix, constants or training state.

    split_wav2vec: writes the audio encoder to its own file beside it, NAME.wav2vec2.safetensors.
    Returns the written files. Raises InputError for weights that `load_*` would refuse.
    """
    to = check_output(to, ".safetensors", inputs=[file])
    weights = read_weights(file)
    if weights.config is None:
        raise InputError(f"{file} is {weights.describe()}: only renderers and generators can be converted.")
    _check(_compare(weights, _build(weights), audio_optional=True))
    for name, tensor in weights.tensors.items():
        if not UNUSED.search(name):
            _finite(weights, name, tensor.float())
    tensors = {
        # to ours and back: gives the new spelling of weight norm
        to_published(weights.kind, to_ours(weights.kind, name)): _cast_if_finite(tensor, dtype)
        for name, tensor in weights.tensors.items()
        if not UNUSED.search(name)
    }
    metadata = _metadata(weights.kind, weights.config) | {"source_sha256": sha256_of(file)}
    outputs = {to: {name: tensor for name, tensor in tensors.items() if not name.startswith(AUDIO_PREFIX)}}
    audio = {name: tensor for name, tensor in tensors.items() if name.startswith(AUDIO_PREFIX)}
    if split_wav2vec and audio:
        beside = check_output(to.with_name(f"{to.stem}.wav2vec2.safetensors"), inputs=[file])
        outputs[beside] = {"wav2vec2." + name.removeprefix(AUDIO_PREFIX): tensor for name, tensor in audio.items()}
    else:
        outputs[to].update(audio)
    for path, part in outputs.items():
        save_safetensors(path, part, metadata if path == to else {"format": "imtalker", "kind": "wav2vec2"})
    return list(outputs)


def _expect(weights: Weights, kind: str) -> Weights:
    if weights.kind != kind:
        raise InputError(f"{weights.label} is {weights.describe()}: choose {KIND_NAMES[kind]} here.")
    return weights


def _build(weights: Weights) -> nn.Module:
    """The model without memory for its weights, so they are not initialised only to be overwritten."""
    try:
        with torch.device("meta"):
            return CLASSES[weights.kind](weights.config).eval().requires_grad_(False)
    except (ValueError, RuntimeError, ZeroDivisionError, IndexError, AssertionError) as error:
        message = " ".join(str(error).split())
        raise InputError(f"{weights.label} has an impossible configuration ({message}): fetch it again.") from error


def _compare(weights: Weights, model: nn.Module, audio_optional: bool = False) -> Report:
    expected = {to_published(weights.kind, name): tensor.shape for name, tensor in model.state_dict().items()}
    names = {name: to_published(weights.kind, to_ours(weights.kind, name)) for name in weights.tensors}
    found = {names[name]: tensor.shape for name, tensor in weights.tensors.items() if not UNUSED.search(name)}
    if audio_optional and not has_audio(weights):
        expected = {name: shape for name, shape in expected.items() if not name.startswith(AUDIO_PREFIX)}
    return compare_shapes(weights, found, expected)


def _check(report: Report) -> None:
    if report.problems:
        raise InputError(
            f"{report.weights.label} looks like {report.weights.describe()} but does not fit ({report.problems}): "
            f"it is damaged or belongs to another model; fetch it again."
        )


def _load(weights: Weights, device: str | torch.device, dtype: torch.dtype | None, final: bool) -> nn.Module:
    model = _build(weights)
    _check(_compare(weights, model))
    tensors = {}
    for name in list(weights.tensors):
        tensor = weights.tensors.pop(name)  # frees the file's copy as ours is made
        if not UNUSED.search(name):
            # a copy, because the mapped file may be replaced while the model is in use
            tensors[to_ours(weights.kind, name)] = _finite(weights, name, tensor.to(device, torch.float32, copy=True))
    model.load_state_dict(tensors, assign=True)
    # folded in float32, before any cast
    return fold(model.requires_grad_(False), final).to(device, dtype or torch.float32)


def _load_tracker(
    weights: Weights, kind: type[nn.Module], prefixes: Sequence[str], device: str | torch.device
) -> nn.Module:
    """prefixes: of the model's own tensors in files that hold others too."""
    with torch.device("meta"):
        model = kind().eval()
    prefix = next((p for p in prefixes if any(name.startswith(p) for name in weights.tensors)), "")
    tensors = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.tensors.items()
        if name.startswith(prefix) and not (UNUSED.search(name) or name.startswith(L2CS_UNUSED))
    }
    found, expected = (
        {name: tensor.shape for name, tensor in state.items()} for state in (tensors, model.state_dict())
    )
    # before any copy: a small file can claim huge tensors
    _check(compare_shapes(weights, found, expected))
    tensors = {
        name: _finite(weights, name, tensor.to(device, torch.float32, copy=True)) for name, tensor in tensors.items()
    }
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(False)


def _finite(weights: Weights, name: str, tensor: Tensor) -> Tensor:
    # a sum is cheaper than a mask, and only a sum that overflows is not proof enough
    if not (tensor.sum().isfinite() or tensor.isfinite().all()):
        raise InputError(f"{weights.label} holds NaN or infinite numbers in {name}: it is damaged; fetch it again.")
    return tensor


def _metadata(kind: str, config: RendererConfig | GeneratorConfig) -> dict[str, str]:
    return {
        "format": "imtalker",
        "kind": kind,
        "generation": config.generation,
        "config": json.dumps(to_dict(config)),
    }
