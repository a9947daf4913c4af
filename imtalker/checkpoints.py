"""Files of weights in, configured models out; and back."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import InputError
from .files import read_tensors, save_safetensors
from .models.config import PUBLISHED, GeneratorConfig, RendererConfig, check_sizes, from_dict, to_dict
from .models.folding import fold
from .models.generator import Generator
from .models.l2cs import GazeEncoder
from .models.names import UNUSED, to_ours, to_published
from .models.renderer import Renderer
from .models.smirk import PoseEncoder

CLASSES = {"renderer": Renderer, "generator": Generator}
TRACKERS = {"smirk": PoseEncoder, "l2cs": GazeEncoder}
KIND_NAMES = {
    "renderer": "a renderer",
    "generator": "a motion generator",
    "wav2vec2": "a wav2vec2 audio encoder",
    "smirk": "a SMIRK encoder",
    "l2cs": "an L2CS-Net",
}
AUDIO_PREFIX = "audio_encoder.wav2vec2."
SMIRK_PREFIXES = ("smirk_encoder.pose_encoder.", "pose_encoder.")  # the published file, its encoder alone
L2CS_UNUSED = "fc_finetune."  # left over from an experiment of the authors'
NAMED_IN_MESSAGES = 4
AVATAR = Path(__file__).parent / "avatar"  # weights that come with the package

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """Weights as a file holds them: published names without prefix, before any model is built."""

    label: str  # what messages call them
    tensors: dict[str, Tensor]
    kind: str | None  # a key of KIND_NAMES, or None for something else
    config: RendererConfig | GeneratorConfig | None

    def describe(self) -> str:
        """ "a renderer (v2)", for messages."""
        if self.config:
            return f"{KIND_NAMES[self.kind]} ({self.config.generation})"
        if self.kind:
            return KIND_NAMES[self.kind]
        starts = list(dict.fromkeys(name.split(".")[0] for name in self.tensors))
        return f"something else (its keys start with {_some(starts)})" if starts else "a file without any weights"


@dataclass(frozen=True)
class Report:
    """How a file of weights compares with the model it seems to be."""

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
        """Empty where the file fits its model exactly."""
        found = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.misshaped))
        return "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in found if names)


def load_renderer(
    file: str | Path | StateDict, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Renderer:
    """The renderer in a .ckpt or .safetensors file, or in a dictionary of tensors; generation found from the weights.

    dtype None is float32. Raises InputError, before anything runs, for any weights that do not fit exactly.
    """
    return _load(_expect(read_weights(file), "renderer"), device, dtype)


def load_generator(
    file: str | Path | StateDict,
    wav2vec: str | Path | StateDict | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Generator:
    """The motion generator, as `load_renderer`.

    wav2vec: folder in Hugging Face layout, file or tensors; needed only where the generator's file lacks wav2vec2.
    """
    weights = _expect(read_weights(file), "generator")
    if not _has_audio(weights):
        if wav2vec is None:
            raise InputError(
                f"{weights.label} holds no wav2vec2 weights; give the folder wav2vec2-base-960h as well "
                f"(python -m imtalker download fetches it)."
            )
        weights.tensors.update(read_wav2vec(wav2vec))
    return _load(weights, device, dtype)


def read_weights(file: str | Path | StateDict) -> Weights:
    """Weights of any kind, from a file or a dictionary: prefixes stripped, averaged (EMA) weights preferred."""
    tree, metadata = (file, {}) if isinstance(file, Mapping) else read_tensors(file)
    label = "The given state dict" if isinstance(file, Mapping) else str(file)
    tensors = _state_dict(tree)
    kind = _kind(tensors)
    config = _config(label, kind, tensors, metadata)
    return Weights(label, tensors, kind, config)


def read_wav2vec(file: str | Path | StateDict) -> dict[str, Tensor]:
    """wav2vec2 weights under the names a generator has for them; the head for letters (lm_head) is left out."""
    if not isinstance(file, Mapping):
        file = Path(file)
        if file.is_dir():
            names = ("model.safetensors", "pytorch_model.bin")
            folder = file
            file = next((folder / name for name in names if (folder / name).is_file()), None)
            if file is None:
                raise InputError(f"The folder {folder} holds neither {' nor '.join(names)}; fetch wav2vec2-base-960h.")
    weights = read_weights(file)
    if weights.kind != "wav2vec2":
        raise InputError(f"{weights.label} is {weights.describe()}; a wav2vec2 audio encoder is wanted.")
    names = {name: name.removeprefix("wav2vec2.") for name in weights.tensors if not name.startswith("lm_head.")}
    return {AUDIO_PREFIX + name: weights.tensors[key] for key, name in names.items()}


def load_smirk(
    file: str | Path | StateDict, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> PoseEncoder:
    """SMIRK's pose encoder, from its authors' file or a dictionary of tensors, as `load_renderer`.

    The encoders of shape and expression and the image generator that a published file also holds are left out.
    """
    return _load_tracker(_expect(read_weights(file), "smirk"), device, dtype)


def load_l2cs(
    file: str | Path | StateDict, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> GazeEncoder:
    """L2CS-Net with a ResNet-50 and 90 bins, from its authors' file or a dictionary of tensors, as `load_renderer`."""
    return _load_tracker(_expect(read_weights(file), "l2cs"), device, dtype)


def models_folder(name: str) -> Path:
    """A folder of weights by its path, or "avatar": the project's own small models, for drawn heads."""
    return AVATAR if name == AVATAR.name else Path(name)


def find_weights(folder: str | Path, kind: str) -> Path:
    """The file of the kind in a folder, by the published name: .safetensors before .ckpt."""
    for suffix in (".safetensors", ".ckpt"):
        if (path := Path(folder) / f"{kind}{suffix}").is_file():
            return path
    raise InputError(
        f"{folder} holds neither {kind}.safetensors nor {kind}.ckpt; fetch the published weights with "
        f"python -m imtalker download --to {folder}"
    )


def inspect(file: str | Path | StateDict) -> Report:
    """What a file is, and what of it is missing, unexpected or of the wrong shape."""
    weights = read_weights(file)
    if weights.config is None:
        return Report(weights, [], [], [])
    return _compare(weights, _build(weights))


def save_weights(model: Renderer | Generator, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes a model as .safetensors: published names, its configuration in the metadata."""
    kind = "renderer" if isinstance(model, Renderer) else "generator"
    tensors = {to_published(kind, name): _stored(tensor, dtype) for name, tensor in model.state_dict().items()}
    save_safetensors(path, tensors, _metadata(kind, model.config))


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """In `dtype`, or as it is where that cannot hold its numbers: a norm's variance may be beyond float16."""
    smaller = tensor.to(dtype or tensor.dtype)
    return smaller if torch.equal(smaller.isfinite(), tensor.isfinite()) else tensor


def convert(
    file: str | Path, to: str | Path, split_wav2vec: bool = False, dtype: torch.dtype | None = None
) -> list[Path]:
    """Writes the weights of any accepted file as .safetensors, without prefix, constants or training state.

    split_wav2vec: the audio encoder goes to a file of its own beside it, NAME.wav2vec2.safetensors.
    Returns the files written. Raises InputError for weights that `load_*` would refuse.
    """
    to = Path(to)
    if to.suffix != ".safetensors":
        raise InputError(f"{to} must end in .safetensors.")
    weights = read_weights(file)
    if weights.config is None:
        raise InputError(f"{file} is {weights.describe()}; only renderers and generators are converted.")
    _check(_compare(weights, _build(weights), audio_optional=True))
    tensors = {
        # the newer spelling of weight norm, whichever the file has
        to_published(weights.kind, to_ours(weights.kind, name)): _stored(tensor, dtype)
        for name, tensor in weights.tensors.items()
        if not UNUSED.search(name)
    }
    metadata = _metadata(weights.kind, weights.config) | {"source_sha256": _sha256(file)}
    outputs = {to: {name: tensor for name, tensor in tensors.items() if not name.startswith(AUDIO_PREFIX)}}
    audio = {name: tensor for name, tensor in tensors.items() if name.startswith(AUDIO_PREFIX)}
    if split_wav2vec and audio:
        beside = to.with_name(f"{to.stem}.wav2vec2.safetensors")
        outputs[beside] = {"wav2vec2." + name.removeprefix(AUDIO_PREFIX): tensor for name, tensor in audio.items()}
    else:
        outputs[to].update(audio)
    for path, part in outputs.items():
        save_safetensors(path, part, metadata if path == to else {"format": "imtalker", "kind": "wav2vec2"})
    return list(outputs)


def _state_dict(tree: Mapping) -> dict[str, Tensor]:
    """The tensors of a checkpoint, out of whatever training wrapped around them."""
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
    """Sparse, quantised and nested tensors are no weights of these models, and some cannot even be asked their size."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_nested or value.is_quantized)


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
            raise InputError(f"{label} carries a configuration that this version does not know: {error}") from error
    if kind == "renderer":
        v2 = any(name.startswith("dense_feature_encoder.down_block_0.") for name in tensors)
    else:
        v2 = "fmt.pos_embed" not in tensors
    return PUBLISHED[kind]["v2" if v2 else "v1"]


def _expect(weights: Weights, kind: str) -> Weights:
    if weights.kind != kind:
        raise InputError(f"{weights.label} is {weights.describe()}; {KIND_NAMES[kind]} is wanted here.")
    return weights


def _has_audio(weights: Weights) -> bool:
    return any(name.startswith(AUDIO_PREFIX) for name in weights.tensors)


def _build(weights: Weights) -> nn.Module:
    """The model without memory for its weights, so that they are never initialised only to be overwritten."""
    try:
        with torch.device("meta"):
            return CLASSES[weights.kind](weights.config).eval().requires_grad_(False)
    except (ValueError, RuntimeError, ZeroDivisionError, IndexError, AssertionError) as error:
        message = " ".join(str(error).split())
        raise InputError(f"{weights.label} carries a configuration of which no model can be made: {message}") from error


def _compare(weights: Weights, model: nn.Module, audio_optional: bool = False) -> Report:
    expected = {to_published(weights.kind, name): tensor.shape for name, tensor in model.state_dict().items()}
    names = {name: to_published(weights.kind, to_ours(weights.kind, name)) for name in weights.tensors}
    found = {names[name]: tensor.shape for name, tensor in weights.tensors.items() if not UNUSED.search(name)}
    if audio_optional and not _has_audio(weights):
        expected = {name: shape for name, shape in expected.items() if not name.startswith(AUDIO_PREFIX)}
    return _report(weights, found, expected)


def _report(weights: Weights, found: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> Report:
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


def _check(report: Report) -> None:
    if report.problems:
        raise InputError(
            f"{report.weights.label} seems to be {report.weights.describe()} but does not fit it "
            f"({report.problems}); it is damaged or of another model, so fetch it again."
        )


def _load(weights: Weights, device: str | torch.device, dtype: torch.dtype | None) -> nn.Module:
    model = _build(weights)
    _check(_compare(weights, model))
    tensors = {}
    for name in list(weights.tensors):
        tensor = weights.tensors.pop(name)  # the file's copy goes as ours is made
        if not UNUSED.search(name):
            # a copy, not the mapped file: the file may be replaced while the model lives
            tensors[to_ours(weights.kind, name)] = tensor.to(device, torch.float32, copy=True)
    model.load_state_dict(tensors, assign=True)
    # folded in float32, whatever precision the device then computes in
    return fold(model.requires_grad_(False)).to(device, dtype or torch.float32)


def _load_tracker(weights: Weights, device: str | torch.device, dtype: torch.dtype | None) -> nn.Module:
    with torch.device("meta"):
        model = TRACKERS[weights.kind]().eval()
    prefix = next((p for p in SMIRK_PREFIXES if any(name.startswith(p) for name in weights.tensors)), "")
    tensors = {
        name.removeprefix(prefix): tensor.to(device, dtype or torch.float32, copy=True)
        for name, tensor in weights.tensors.items()
        if name.startswith(prefix) and not (UNUSED.search(name) or name.startswith(L2CS_UNUSED))
    }
    found, expected = (
        {name: tensor.shape for name, tensor in state.items()} for state in (tensors, model.state_dict())
    )
    _check(_report(weights, found, expected))
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(False)


def _metadata(kind: str, config: RendererConfig | GeneratorConfig) -> dict[str, str]:
    return {
        "format": "imtalker",
        "kind": kind,
        "generation": config.generation,
        "config": json.dumps(to_dict(config)),
    }


def _sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _some(names: Iterable[str]) -> str:
    # as a file has them, and so perhaps with what moves a terminal's cursor
    names = ["".join(c if c.isprintable() else "?" for c in name) for name in names]
    shown = ", ".join(names[:NAMED_IN_MESSAGES])
    return shown + (f" and {len(names) - NAMED_IN_MESSAGES} more" if len(names) > NAMED_IN_MESSAGES else "")
