"""All that touches ComfyUI's runtime: devices and memory, folders, progress and interruption, errors."""

import functools
import itertools
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import comfy.model_management as mm
import comfy.utils
import psutil
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor, nn

from ..imtalker import Generator, InputError, Motion, Renderer, Source
from ..imtalker.media.audio import FPS
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
    yield from backend.to_cpu(renderer.stream(source, motion, batch_size or None))


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
