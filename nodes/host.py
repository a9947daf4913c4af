"""Everything that touches ComfyUI's runtime: errors, devices and memory, progress and interruption."""

import functools
import itertools
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import comfy.model_management as mm
import comfy.utils
import psutil
import torch
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from torch import Tensor, nn

from ..imtalker import Generator, InputError, Motion, Renderer, Source
from ..imtalker.errors import printable
from ..imtalker.media.audio import FPS
from ..imtalker.models import backend
from ..imtalker.models.audio_encoder import encoding_memory, longest_window
from . import flags, types

log = logging.getLogger("imtalker")

T = TypeVar("T")

# Errors


class Refused(InputError):
    """An InputError as ComfyUI shows it at the node: one sentence."""


Refused.__module__ = "imtalker"  # shown in the message; the real name is a path on this machine


class _WithoutTraceback(logging.Filter):
    """Drops the traceback that ComfyUI logs after an error message, if the message is a sentence for the artist."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(sys.exc_info()[1], Refused) and str(record.msg).startswith("Traceback"))


logging.getLogger().addFilter(_WithoutTraceback())


def answer(execute: Callable) -> Callable:
    """Decorator for a node's `execute`, which gets its inputs as the doors of `types` give them.

    Turns InputError, what the operating system refuses, and out of memory into one sentence at the node.
    """

    @functools.wraps(execute)
    def wrapper(node, **inputs):
        try:
            return execute(node, **types.read(node, inputs))
        except InputError as error:
            sentence = str(error)
        except OSError as error:
            sentence = (
                f"{error.strerror or error}: {error.filename or 'a file or folder'} cannot be used. Check that it is "
                "there, that you may read and write it, and that the disk is not full."
            )
        except Exception as error:
            if not is_out_of_memory(error):
                if str(error) != printable(str(error)):
                    raise RuntimeError(printable(str(error))) from None
                raise
            sentence = (
                "Out of memory, even at one frame at a time: close other programs that use the device, set precision "
                "to fp16 in the loaders, or start ComfyUI with --cpu."
            )
            mm.unload_all_models()
        raise Refused(sentence)

    return wrapper


def is_out_of_memory(error: Exception) -> bool:
    # not mm.OOM_EXCEPTION: in a torch without CUDA it is Exception itself
    return backend.is_out_of_memory(error) or getattr(mm, "is_oom", lambda _: False)(error)


def not_connected(node: str, name: str) -> ExecutionBlocker:
    """In place of an output whose input is not connected: a node behind it says why it does not run."""
    return ExecutionBlocker(f"{node} has no {name} to hand on: connect its input {name}.")


# Models

flags.keep_to(args)

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Handle:
    """A model on a link. ComfyUI may move its weights at any time: call `on_device` in every execute.

    Holds the patcher because ComfyUI itself only keeps a weak reference.
    """

    patcher: ModelPatcher

    @property
    def model(self) -> Renderer | Generator:
        return self.patcher.model


def load(build: Callable[..., nn.Module], precision: str, half: bool) -> Handle:
    """Hands the model of `build(dtype=...)` to ComfyUI. half: "auto" may mean fp16 if the device is fast at it."""
    device = mm.get_torch_device()
    if mm.vram_state == mm.VRAMState.NO_VRAM:
        log.info("--novram leaves no room for a whole model on the device: IMTalker runs on the CPU.")
        device = torch.device("cpu")
    # nodes run in inference mode, but ComfyUI also moves weights outside of it
    with torch.inference_mode(False):
        model = build(dtype=PRECISIONS.get(precision) or _automatic_precision(device, half))
    offload = device if device.type == "cpu" else mm.unet_offload_device()
    # parameters and buffers: ComfyUI's own count misses tensors folded at load
    size = sum(tensor.nbytes for tensor in itertools.chain(model.parameters(), model.buffers()))
    return Handle(ModelPatcher(model, load_device=device, offload_device=offload, size=size))


def _automatic_precision(device: torch.device, half: bool) -> torch.dtype:
    """The dtype of ComfyUI's flags and device; float8 and float64 are for diffusion models only and mean float32."""
    dtype = mm.unet_dtype(device=device, supported_dtypes=[torch.float16, torch.float32] if half else [torch.float32])
    return dtype if dtype in PRECISIONS.values() else torch.float32


def on_device(handle: Handle, working_memory: float = 0) -> Renderer | Generator:
    """The model, all its weights on its device, with `working_memory` bytes left free for its computations."""
    patcher, model = handle.patcher, handle.model
    # force_full_load: our layers do not cast, so a partial load would spread them over two devices
    mm.load_models_gpu([patcher], memory_required=working_memory, force_full_load=True)
    devices = {tensor.device.type for tensor in itertools.chain(model.parameters(), model.buffers())}
    if devices != {patcher.load_device.type}:
        log.warning("ComfyUI keeps part of the weights off the device: this step of IMTalker runs on the CPU.")
        patcher.detach()
    return model


def result_device() -> torch.device:
    return mm.intermediate_device()


def check_room(byte_count: int, what: str, instead: str) -> None:
    """InputError if a result of `byte_count` bytes does not fit into free memory; instead: what to do."""
    free = psutil.virtual_memory().available
    if byte_count > free:
        raise InputError(
            f"{what} need {byte_count / 2**30:.1f} GB of memory and {free / 2**30:.1f} GB are free: {instead}"
        )


def audio_memory(generator: Generator, seconds: float) -> float:
    """Bytes to encode audio: grows with length only up to the longest attention window."""
    config, bytes_per_number = generator.config.audio, next(generator.parameters()).element_size()
    return encoding_memory(config, min(math.ceil(seconds * FPS), longest_window(config)), bytes_per_number)


# Rendering and progress


def render(handle: Handle, source: Source, motion: Motion, batch_size: int) -> Iterator[Tensor]:
    """Renders blocks of frames (n,H,W,3), 0..1, float32 on the handle's device. batch_size 0: automatic."""
    batch = batch_size or backend.best_batch_size(handle.patcher.load_device)
    # one frame more: the overhead of any batch
    renderer = on_device(handle, (batch + 1) * handle.model.bytes_per_frame)
    yield from renderer.stream(source, motion, batch_size or None)


def watched(items: Iterable[T]) -> Iterator[T]:
    """Passes items on; each is a chance to interrupt."""
    for item in items:
        check_interrupted()
        yield item


def counted(items: Iterable[T], progress: "Progress") -> Iterator[T]:
    """Passes items on; each is one step of progress."""
    for item in items:
        yield item
        progress.step()


def previewed(blocks: Iterable[Tensor], progress: "Progress") -> Iterator[Tensor]:
    """Passes blocks of frames (n,H,W,3) on; each frame is one step of progress, the last of a block may be shown."""
    for block in blocks:
        yield block
        progress.step(len(block), block[-1])


def check_interrupted() -> None:
    """Raises if the artist pressed the stop button; no handler may swallow the exception."""
    mm.throw_exception_if_processing_interrupted()


class Progress:
    """The node's progress bar, with preview pictures; each step is a chance to interrupt."""

    PREVIEW_SECONDS = 0.25  # between previews, so that encoding them does not slow rendering
    PREVIEW_SIDE = 512

    def __init__(self, total: int):
        self.done, self.total = 0, total
        self.bar = comfy.utils.ProgressBar(total)
        self.last_preview = 0.0

    def step(self, count: float = 1, picture: Tensor | None = None) -> None:
        """Adds `count` steps, fractions too; picture (H,W,3) in 0..1 may be shown in the node."""
        check_interrupted()
        self.done += count
        preview = None
        if picture is not None and time.monotonic() - self.last_preview > self.PREVIEW_SECONDS:
            image = Image.fromarray(picture.mul(255).to("cpu", torch.uint8).numpy())
            # ComfyUI enlarges a smaller one, and then names that size
            preview = ("JPEG", image, min(self.PREVIEW_SIDE, max(image.size)))
            self.last_preview = time.monotonic()
        self.bar.update_absolute(round(self.done), self.total, preview)
