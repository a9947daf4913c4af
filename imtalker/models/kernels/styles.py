"""The styles of a modulated convolution and the scales of its outputs, in one launch.

A program takes `ROWS` outputs of one image. It makes the image's style, a small product, for itself: all programs need
the whole of it, and waiting for another launch takes longer.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, WARPS = 16, 8
STEP = 8  # numbers of the latent at a time: they fit the registers for all channels


def style_and_scale(
    latent: Tensor, weight: Tensor, bias: Tensor, energy: Tensor, epsilon: float, smallest: float
) -> tuple[Tensor, Tensor]:
    """See styles.style_and_scale; smallest: the least number that a style is divided by."""
    latent, weight, energy = latent.contiguous(), weight.contiguous(), energy.contiguous()
    (batch, size), (outputs, channels) = latent.shape, energy.shape
    style, scale = latent.new_empty(batch, channels), latent.new_empty(batch, outputs)
    _style_and_scale[(triton.cdiv(outputs, ROWS), batch)](
        latent, weight, bias, energy, style, scale, epsilon, smallest, torch.finfo(scale.dtype).max, size, channels,
        outputs, WIDTH=triton.next_power_of_2(channels), ROWS=ROWS, STEP=STEP, num_warps=WARPS,
    )  # fmt: skip
    return style, scale


@triton.jit
def _style_and_scale(
    latent, weight, bias, energy, style, scale, epsilon, smallest, most, size, channels, outputs,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, WIDTH)
    inside = channel < channels
    value = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    for start in range(0, size, STEP):
        number = start + tl.arange(0, STEP)
        given = tl.load(latent + image * size + number, mask=number < size, other=0.0).to(tl.float32)
        there = inside[:, None] & (number < size)[None, :]
        tile = tl.load(weight + channel[:, None] * size + number[None, :], mask=there, other=0.0).to(tl.float32)
        value += tl.sum(tile * given[None, :], 1)
    largest = tl.max(tl.abs(value), 0)
    largest = tl.where(largest < smallest, smallest, largest)
    value /= largest
    if tl.program_id(0) == 0:
        tl.store(style + image * channels + channel, value.to(style.dtype.element_ty), mask=inside)
    output = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = (output < outputs)[:, None] & inside[None, :]
    tile = tl.load(energy + output[:, None] * channels + channel[None, :], mask=there, other=0.0).to(tl.float32)
    squares = tl.sum(tile * (value * value)[None, :], 1) + epsilon / (largest * largest)
    found = tl.rsqrt(squares)
    found = tl.where(found > most, most, found)
    tl.store(scale + image * outputs + output, found.to(scale.dtype.element_ty), mask=output < outputs)
