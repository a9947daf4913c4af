"""What all doors share: one catch for objects that raise anything, and arrays of any kind as tensors."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...imtalker.errors import InputError
from ...imtalker.models.backend import is_out_of_memory


def enter(name: str, door: Callable[..., object], value: object, **settings: object) -> object:
    """Takes `value` through a door: door(name, value, **settings).

    InputError: the door refused it, or the value, which comes from other packs, raised something while it was read.
    Errors that `must_pass` come through.
    """
    try:
        return door(name, value, **settings)
    except Exception as error:
        if must_pass(error):
            raise
        raise InputError(
            f"The input {name} got {kind_of(value)} that cannot be read ({type(error).__name__}: {str(error)[:200]}): "
            "connect another node."
        ) from error


def must_pass(error: Exception) -> bool:
    """Whether an error says nothing about the value that was read: a sentence, no memory left, the stop button."""
    # the stop button's is an Exception in ComfyUI 0.3.64
    stopped = type(error).__name__ == "InterruptProcessingException"
    return stopped or isinstance(error, InputError) or is_out_of_memory(error)


def kind_of(value: object) -> str:
    """What a value is, for messages: "a Tensor", "nothing"."""
    if value is None:
        return "nothing"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def tensor_of(name: str, value: object) -> Tensor:
    """A tensor, array or nested list of numbers as a plain dense tensor without gradient, on its own device."""
    if isinstance(value, Tensor):
        if value.is_meta:
            raise InputError(f"The input {name} got a tensor without numbers: connect another node.")
        tensor = value.detach()
        tensor = tensor.dequantize() if tensor.is_quantized else tensor
        return tensor if tensor.layout == torch.strided else tensor.to_dense()
    if isinstance(value, np.ndarray):
        # copied: torch cannot share arrays that are read-only, reversed or in another byte order
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if isinstance(value, (list, tuple)) and value:
        if any(isinstance(item, (Tensor, np.ndarray)) for item in value):
            return torch.stack([tensor_of(name, item) for item in value])
        return torch.as_tensor(value)
    raise InputError(f"The input {name} got {kind_of(value)} where numbers are needed: connect another node.")
