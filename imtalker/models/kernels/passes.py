"""What follows a convolution, in one pass over its output: scale, bias, sum, activation; the blur; interleaving.

Maps are (B,C,H,W) stored channels last, so an image is rows of C numbers. A program takes `BLOCK` numbers of one image.
Sums are float32, the results in the maps' precision.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, WARPS = 1024, 4


def finish(
    x: Tensor,
    bias: Tensor | None,
    slope: float,
    scale: Tensor | None,
    before: Tensor | None,
    after: Tensor | None,
    then: Tensor | None,
) -> Tensor:
    """(leaky(x * scale + bias + before) + after) * then, (B,C,H,W), written over x.

    bias: C numbers; slope: of the leaky ReLU, 1 for none; scale, then (B,C); before, after: maps of x's shape.
    """
    x, before, after = _last(x), _last(before), _last(after)
    batch, channels, height, width = x.shape
    size = channels * height * width
    scale, then = (part if part is None else part.contiguous() for part in (scale, then))
    _finish[_grid(batch, size)](
        x, bias, scale, before, after, then, slope, size, CHANNELS=channels, BLOCK=BLOCK, num_warps=WARPS
    )
    return x


def interleave(parts: Tensor, bias: Tensor | None, slope: float, add_to: Tensor | None) -> Tensor:
    """The output of `phases` kernels (B,4C,S+1,S+1) -> leaky(their map + bias + add_to) (B,C,2S,2S), over add_to."""
    parts = _last(parts)
    batch, channels, side = parts.shape[0], parts.shape[1] // 4, 2 * parts.shape[2] - 2
    output = _last(add_to)
    if output is None:
        shape = batch, channels, side, side
        output = torch.empty(shape, device=parts.device, dtype=parts.dtype, memory_format=torch.channels_last)
    size = channels * side**2
    flags = {"ADD": add_to is not None, "CHANNELS": channels, "BLOCK": BLOCK}
    _interleave[_grid(batch, size)](parts, output, bias, slope, side, size, **flags, num_warps=WARPS)
    return output


def blur(
    x: Tensor,
    padding: int,
    gain: float,
    first: tuple[Tensor, float] | None,
    scale: Tensor | None,
    last: tuple[Tensor, float] | None,
    then: Tensor | None,
) -> Tensor:
    """Depthwise smoothing with the outer product of [1,3,3,1]/8, times gain: (B,C,H,W) -> (B,C,H+2*padding-3, ...).

    first: bias and slope of leaky(x + bias), applied to x before; scale (B,C), last and the factors `then` (B,C):
    applied to the smoothed map.
    """
    x = _last(x)
    batch, channels, height, width = x.shape
    rows, columns = height + 2 * padding - 3, width + 2 * padding - 3
    shape = batch, channels, rows, columns
    output = torch.empty(shape, device=x.device, dtype=x.dtype, memory_format=torch.channels_last)
    size = channels * rows * columns
    bias, slope = first or (None, 1.0)
    last_bias, last_slope = last or (None, 1.0)
    scale, then = (part if part is None else part.contiguous() for part in (scale, then))
    _blur[_grid(batch, size)](
        x, output, bias, slope, scale, last_bias, last_slope, then, gain / 64, height, width, rows, columns, size,
        PADDING=padding, CHANNELS=channels, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return output


def _grid(batch: int, size: int) -> tuple[int, int]:
    return triton.cdiv(size, BLOCK), batch


def _last(x: Tensor | None) -> Tensor | None:
    return x if x is None else x.contiguous(memory_format=torch.channels_last)


@triton.jit
def _leaky(x, slope):
    return tl.where(x >= 0, x, x * slope)


@triton.jit
def _finish(
    x, bias, scale, before, after, then, slope, size, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    channel = place % CHANNELS
    image = tl.program_id(1).to(tl.int64)
    base = image * size
    value = tl.load(x + base + place, mask=inside).to(tl.float32)
    if scale is not None:
        value *= tl.load(scale + image * CHANNELS + channel).to(tl.float32)
    if bias is not None:
        value += tl.load(bias + channel).to(tl.float32)
    if before is not None:
        value += tl.load(before + base + place, mask=inside).to(tl.float32)
    value = _leaky(value, slope)
    if after is not None:
        value += tl.load(after + base + place, mask=inside).to(tl.float32)
    if then is not None:
        value *= tl.load(then + image * CHANNELS + channel).to(tl.float32)
    tl.store(x + base + place, value.to(x.dtype.element_ty), mask=inside)


@triton.jit
def _interleave(
    parts, output, bias, slope, side, size, ADD: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    channel = place % CHANNELS
    column = place // CHANNELS % side
    row = place // CHANNELS // side
    # row 2r + i of the map is row r + i of the part for odd (i = 1) or even rows
    odd_row, odd_column = row % 2, column % 2
    from_side = side // 2 + 1
    pixel = (row // 2 + odd_row) * from_side + column // 2 + odd_column
    source = (pixel * 4 + 2 * odd_row + odd_column) * CHANNELS + channel
    image = tl.program_id(1).to(tl.int64)
    value = tl.load(parts + image * 4 * CHANNELS * from_side * from_side + source, mask=inside).to(tl.float32)
    target = output + image * size + place
    if bias is not None:
        value += tl.load(bias + channel).to(tl.float32)
    if ADD:
        value += tl.load(target, mask=inside).to(tl.float32)
    tl.store(target, _leaky(value, slope).to(output.dtype.element_ty), mask=inside)


@triton.jit
def _blur(
    x, output, bias, slope, scale, last_bias, last_slope, then, gain, height, width, rows, columns, size,
    PADDING: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    channel = place % CHANNELS
    column = place // CHANNELS % columns
    row = place // CHANNELS // columns
    image = tl.program_id(1).to(tl.int64)
    x += image * height * width * CHANNELS
    total = tl.zeros([BLOCK], tl.float32)
    if bias is not None:
        add = tl.load(bias + channel).to(tl.float32)
    for i in tl.static_range(4):
        from_row = row + i - PADDING
        for j in tl.static_range(4):
            from_column = column + j - PADDING
            there = inside & (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
            value = tl.load(x + (from_row * width + from_column) * CHANNELS + channel, mask=there, other=0.0)
            value = value.to(tl.float32)
            if bias is not None:
                value = tl.where(there, _leaky(value + add, slope), 0.0)
            total += value * ((3 if i == 1 or i == 2 else 1) * (3 if j == 1 or j == 2 else 1))
    total *= gain
    if scale is not None:
        total *= tl.load(scale + image * CHANNELS + channel).to(tl.float32)
    if last_bias is not None:
        total = _leaky(total + tl.load(last_bias + channel).to(tl.float32), last_slope)
    if then is not None:
        total *= tl.load(then + image * CHANNELS + channel).to(tl.float32)
    tl.store(output + image * size + place, total.to(output.dtype.element_ty), mask=inside)
