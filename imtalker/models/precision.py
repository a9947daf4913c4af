"""Results that are not numbers: what a model in too narrow a precision gives."""

import torch
from torch import Tensor

from ..errors import InputError

REMEDIES = {
    torch.float16: "fp16 is too narrow for these weights; choose bf16 or fp32 instead (--dtype bfloat16 or float32).",
    torch.bfloat16: "choose fp32 instead (--dtype float32), and if that gives the same, fetch the weights again.",
    torch.float32: "the model's weights are damaged; fetch them again.",
}


def check_numbers(values: Tensor, what: str, precision: torch.dtype) -> Tensor:
    """Returns the values. Raises InputError if one is NaN or infinite.

    what: their name at the start of the message. precision: of the model that made them. Waits for the values' device.
    """
    if not torch.isfinite(values).all():
        raise InputError(f"{what} came out as NaN: {REMEDIES.get(precision, REMEDIES[torch.float32])}")
    return values
