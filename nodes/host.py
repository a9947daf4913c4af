"""All that touches ComfyUI's runtime: devices and memory, folders, progress and interruption, errors."""

import functools
import itertools
import logging
import math
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management as mm
import comfy.utils
import folder_paths
import psutil
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor, nn

from ..imtalker import Generator, InputError, Motion, Renderer, Source
from ..imtalker.audio import FPS
from ..imtalker.checkpoints import AVATAR, find_weights
from ..imtalker.download import download
from ..imtalker.face import YUNET_FILE
from ..imtalker.models import backend
from ..imtalker.models.audio_encoder import encoding_memory, longest_window

log = logging.getLogger("imtalker")

# Errors


class Refused(InputError):
    """An InputError as ComfyUI shows it: at the node, as one sentence."""


Refused.__module__ = "imtalker"  # shown to the artist; the module's own name is a path on this machine


class _WithoutTraceback(logging.Filter):
    """ComfyUI logs a traceback after every error's message; a sentence meant for the artist needs none."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(sys.exc_info()[1], Refused) and str(record.msg).startswith("Traceback"))


logging.getLogger().addFilter(_WithoutTraceback())


def answer(execute: Callable) -> Callable:
    """Wraps a node's `execute`: what the engine refuses, and a full device, are told in one sentence."""

    @functools.wraps(execute)
    def answering(*args, **kwargs):
        try:
            return execute(*args, **kwargs)
        except InputError as error:
            sentence = str(error)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            sentence = (
                "The device has not enough free memory even for the smallest step: close other programs that use it, "
                "set precision to fp16 in the loaders, or start ComfyUI with --cpu."
            )
            mm.unload_all_models()
        raise Refused(sentence)

    return answering


def is_out_of_memory(error: Exception) -> bool:
    # ComfyUI's own OOM_EXCEPTION is every Exception where torch was built without CUDA
    return backend.is_out_of_memory(error) or getattr(mm, "is_oom", lambda _: False)(error)


# Models

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Handle:
    """A model on a link. ComfyUI decides when its weights are on the device: ask `on_device` in every execute.

    The patcher is kept here because ComfyUI itself holds it weakly.
    """

    patcher: ModelPatcher

    @property
    def model(self) -> Renderer | Generator:
        return self.patcher.model


def load(build: Callable[..., nn.Module], precision: str, half: bool) -> Handle:
    """`build(dtype=...)` made known to ComfyUI. half: whether "auto" may be fp16 where the device is fast at it."""
    device = mm.get_torch_device()
    if mm.vram_state == mm.VRAMState.NO_VRAM:
        log.info("--novram leaves no room for a whole model on the device: IMTalker runs on the CPU.")
        device = torch.device("cpu")
    # nodes run in inference mode, but these weights are moved outside of it as well
    with torch.inference_mode(False):
        model = build(dtype=PRECISIONS.get(precision) or _automatic_precision(device, half))
    offload = device if device.type == "cpu" else mm.unet_offload_device()
    # ComfyUI itself would not count what is folded out of the weights
    size = sum(tensor.nbytes for tensor in itertools.chain(model.parameters(), model.buffers()))
    return Handle(ModelPatcher(model, load_device=device, offload_device=offload, size=size))


def _automatic_precision(device: torch.device, half: bool) -> torch.dtype:
    """What ComfyUI's flags and the device suggest; its flags for float8 and float64 mean diffusion models only."""
    dtype = mm.unet_dtype(device=device, supported_dtypes=[torch.float16, torch.float32] if half else [torch.float32])
    return dtype if dtype in PRECISIONS.values() else torch.float32


def on_device(handle: Handle, working_memory: float = 0) -> Renderer | Generator:
    """The model with all its weights on its device, beside `working_memory` bytes of room for what it computes."""
    patcher, model = handle.patcher, handle.model
    # in part, the layers of a model that does not cast its own weights would be on two devices
    mm.load_models_gpu([patcher], memory_required=working_memory, force_full_load=True)
    places = {tensor.device.type for tensor in itertools.chain(model.parameters(), model.buffers())}
    if places != {patcher.load_device.type}:
        log.warning("ComfyUI keeps part of the weights off the device: this step of IMTalker runs on the CPU.")
        patcher.detach()
    return model


def result_device() -> torch.device:
    return mm.intermediate_device()


def check_room(byte_count: int, what: str, instead: str) -> None:
    """Refuses a result that does not fit into the computer's free memory."""
    free = psutil.virtual_memory().available
    if byte_count > free:
        raise InputError(
            f"{what} need {byte_count / 2**30:.1f} GB of memory and {free / 2**30:.1f} GB are free: {instead}"
        )


def audio_memory(generator: Generator, seconds: float) -> float:
    """Bytes to encode a sound: the frames that attend to each other, which are no more in an hour than in minutes."""
    config, size = generator.config.audio, _number_size(generator)
    return encoding_memory(config, min(math.ceil(seconds * FPS), longest_window(config)), size)


def _number_size(model: nn.Module) -> int:
    return next(model.parameters()).element_size()


# Rendering


def render(handle: Handle, source: Source, motion: Motion, batch_size: int) -> Iterator[Tensor]:
    """Blocks of frames (n,H,W,3), 0..1, float32 on the CPU. batch_size 0: as many as suit the device."""
    batch = batch_size or backend.best_batch_size(handle.patcher.load_device)
    # about one frame's worth is there for any number
    renderer = on_device(handle, (batch + 1) * handle.model.bytes_per_frame)
    yield from backend.fetch(renderer.stream(source, motion, batch_size or None))


def watched(blocks: Iterator[Tensor], progress: "Progress") -> Iterator[Tensor]:
    """The same blocks of frames (n,H,W,3): each frame is a step of progress, the last of a block may be shown."""
    for block in blocks:
        yield block
        progress.step(len(block), block[-1])


def check_interrupted() -> None:
    """Ends the node where the artist pressed the button; what it raises must pass every handler on the way."""
    mm.throw_exception_if_processing_interrupted()


class Progress:
    """The node's progress bar, with a picture now and then; each step is a chance to interrupt."""

    SECONDS = 0.25  # between two pictures, so that drawing them does not slow the work
    SIDE = 512

    def __init__(self, total: int):
        self.done, self.total = 0, total
        self.bar = comfy.utils.ProgressBar(total)
        self.shown = 0.0

    def step(self, count: float = 1, picture: Tensor | None = None) -> None:
        """`count` more are done, fractions counting; picture (H,W,3) in 0..1 may be shown in the node."""
        check_interrupted()
        self.done += count
        preview = None
        if picture is not None and time.monotonic() - self.shown > self.SECONDS:
            pixels = picture.mul(255).to("cpu", torch.uint8).numpy()
            preview = ("JPEG", Image.fromarray(pixels), self.SIDE)
            self.shown = time.monotonic()
        self.bar.update_absolute(round(self.done), self.total, preview)


# Files

FOLDER = "imtalker"
PUBLISHED = "published (downloaded on first use)"
OURS = [PUBLISHED, AVATAR.name]  # what a loader offers beside files of one's own


def _register() -> None:
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER), is_default=True)
    folders, _ = folder_paths.folder_names_and_paths[FOLDER]  # those of extra_model_paths.yaml among them
    folder_paths.folder_names_and_paths[FOLDER] = (folders, folder_paths.supported_pt_extensions)


_register()


def model_folders() -> list[str]:
    """models/imtalker first, then those of extra_model_paths.yaml."""
    return folder_paths.get_folder_paths(FOLDER)


def detector_folders() -> list[str]:
    """Where the face detector may lie: models/imtalker, and models/detection where this ComfyUI has it."""
    detection, *_ = folder_paths.folder_names_and_paths.get("detection", ([],))
    return [*model_folders(), *detection]


def model_files() -> list[str]:
    """Files of weights that may be a renderer or a generator."""
    return [name for name in folder_paths.get_filename_list(FOLDER) if not _is_wav2vec2(name)]


def wav2vec2_files() -> list[str]:
    """Folders in Hugging Face layout and single files that look like wav2vec2."""
    names = filter(_is_wav2vec2, folder_paths.get_filename_list(FOLDER))
    return sorted({os.path.dirname(name) or name for name in names})


def _is_wav2vec2(name: str) -> bool:
    return bool(re.search(r"wav2vec2?[^/\\]*[/\\]|^wav2vec|\.wav2vec2?\.\w+$", name, re.IGNORECASE))


def check_choice(choice: str) -> bool | str:
    """For validate_inputs of a loader: True, or the sentence that says what is wrong."""
    return True if choice in (*OURS, *model_files()) else _missing(choice)


def check_files(*choices: str | None) -> bool | str:
    """For validate_inputs of what is only ever read from models/imtalker; a linked name (None) is checked later."""
    return next((_missing(choice) for choice in choices if choice and choice not in model_files()), True)


def _missing(name: str) -> str:
    return f"{name!r} is not in models/{FOLDER}: put it there and press R, or choose another file."


def wav2vec2_path(choice: str) -> str | None:
    """The file or folder chosen; for "auto" the first there is, or None."""
    name = next(iter(wav2vec2_files()), None) if choice == "auto" else choice
    if name is None:
        return None
    for folder in model_folders():
        path = _inside(folder, name)
        if os.path.exists(path):
            return path
    raise InputError(_missing(name))


def local_path(choice: str, published: str) -> str | None:
    """The file that the choice in a loader stands for, `published` being PUBLISHED's; None where there is none yet."""
    if choice == AVATAR.name:
        return str(find_weights(AVATAR, os.path.splitext(published)[0]))
    return folder_paths.get_full_path(FOLDER, published if choice == PUBLISHED else choice)


def weights_path(choice: str, published: str) -> str:
    """As `local_path`, but downloads a published file into models/imtalker where it is missing."""
    path = local_path(choice, published)
    if path:
        return path
    if choice != PUBLISHED:
        raise InputError(_missing(choice))
    folder = model_folders()[0]
    os.makedirs(folder, exist_ok=True)
    log.info("Downloading %s to %s", published, folder)
    bar = comfy.utils.ProgressBar(1)
    # the face detector is small, and wanted wherever a picture is not cropped already
    files = download(folder, lambda _, done, total: bar.update_absolute(done, total or done), [published, YUNET_FILE])
    return str(files[0])


def fingerprint(path: str | None) -> tuple:
    """Changes when a file is replaced."""
    if path is None or not os.path.exists(path):
        return (path,)
    state = os.stat(path)
    return path, state.st_mtime, state.st_size


def media_files(suffixes: tuple[str, ...], outputs: bool = False) -> list[str]:
    """Files in input/ (and output/, marked " [output]") that end so, by their names below that folder, for a combo."""
    found = _files_below(folder_paths.get_input_directory(), suffixes)
    if outputs:
        found += [f"{name} [output]" for name in _files_below(folder_paths.get_output_directory(), suffixes)]
    return found


def media_path(name: str) -> str:
    """The file of a name from `media_files`; InputError where it is gone or lies elsewhere."""
    name, folder = folder_paths.annotated_filepath(name)
    path = _inside(folder or folder_paths.get_input_directory(), name)
    if not os.path.isfile(path):
        raise InputError(f"There is no file {name!r} in {os.path.basename(folder or 'input')}: choose another.")
    return path


def check_media(*names: str | None) -> bool | str:
    """For validate_inputs: True, or the sentence that says what is wrong; a linked name (None) is checked later."""
    try:
        for name in filter(None, names):
            media_path(name)
    except InputError as error:
        return str(error)
    return True


def media_fingerprint(*names: str | None) -> list[tuple]:
    """Changes when one of the files is replaced."""
    return [fingerprint(media_path(name)) if check_media(name) is True else (name,) for name in filter(None, names)]


def new_output(prefix: str, suffix: str) -> tuple[str, str, str]:
    """A numbered file that does not exist yet in output/: (path, name, subfolder)."""
    output = folder_paths.get_output_directory()
    _inside(output, prefix)
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output)
    name = f"{name}_{counter:05}_{suffix}"
    return os.path.join(folder, name), name, subfolder


def new_temporary(suffix: str) -> str:
    """A file that lives until ComfyUI ends."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"imtalker_{uuid.uuid4().hex}{suffix}")


def _files_below(root: str, suffixes: tuple[str, ...]) -> list[str]:
    files = (path for path in Path(root).rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path.relative_to(root).as_posix() for path in files)


def _inside(folder: str, name: str) -> str:
    """Refuses names that lead out of the folder; ComfyUI 0.3 does not."""
    folder = os.path.abspath(folder)
    path = os.path.abspath(os.path.join(folder, name))
    # normalised text, not real paths: a link that someone put into the folder is meant to be followed
    if not path.startswith(folder + os.sep):
        raise InputError(f"{name!r} leads out of ComfyUI's folders: choose a file below {os.path.basename(folder)}.")
    return path
