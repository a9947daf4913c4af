"""Convolutions and the passes over their output: in Triton one pass, in PyTorch (and on a CPU) the few it takes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import with_kernel

NAME = "the passes after a convolution"


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    slope: float = 1.0,
    *,
    padding: int = 0,
    stride: int = 1,
    scale: Tensor | None = None,
    before: Tensor | None = None,
    after: Tensor | None = None,
    then: Tensor | None = None,
) -> Tensor:
    """(leaky(conv(x) * scale + bias + before) + after) * then.

    slope: of the leaky ReLU, 1 for none; scale, then (B,C); bias: C numbers; before, after: maps of the result's shape.
    """

    def kernel() -> Tensor:
        from .kernels.passes import finish

        return finish(F.conv2d(x, weight, None, stride, padding), bias, slope, scale, before, after, then)

    def plain() -> Tensor:
        y = F.conv2d(x, weight, bias if scale is None else None, stride, padding)
        y = y if scale is None else _scaled(y, scale, bias)
        y = y if before is None else y.add_(before)
        y = _leaky_(y, slope)
        if after is not None:
            y = y + after if torch.is_grad_enabled() else y.add_(after)
        return _times(y, then)

    given = tuple(part is not None for part in (bias, scale, before, after, then))
    return with_kernel(NAME, ("finish", len(weight), given), x, kernel, plain)


def convolve_and_blur(x: Tensor, weight: Tensor, bias: Tensor, slope: float, padding: int, blur_padding: int) -> Tensor:
    """blur(leaky(conv(x) + bias))."""

    def kernel() -> Tensor:
        from .kernels.passes import blur as smooth

        return smooth(F.conv2d(x, weight, None, padding=padding), blur_padding, 1.0, (bias, slope), None, None, None)

    def plain() -> Tensor:
        return blur(convolve(x, weight, bias, slope, padding=padding), blur_padding)

    return with_kernel(NAME, ("activate and blur", len(weight)), x, kernel, plain)


def blur(
    x: Tensor,
    padding: int,
    gain: float = 1.0,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    slope: float = 1.0,
    then: Tensor | None = None,
) -> Tensor:
    """Depthwise smoothing with the outer product of [1,3,3,1]/8, times gain; with a bias, leaky(that * scale + bias)
    * then.

    Maps (B,C,H,W) -> (B,C,H+2*padding-3,W+2*padding-3).
    """

    def kernel() -> Tensor:
        from .kernels.passes import blur as smooth

        return smooth(x, padding, gain, None, scale, None if bias is None else (bias, slope), then)

    def plain() -> Tensor:
        taps = x.new_full((4,), 3 / 8)  # made there: numbers from the CPU would be waited for, and cannot be recorded
        taps[::3] = 1 / 8
        weight = (gain * torch.outer(taps, taps)).expand(x.shape[1], 1, 4, 4)
        y = F.conv2d(x, weight, padding=padding, groups=x.shape[1])
        return _times(y if bias is None else _leaky_(_scaled(y, scale, bias), slope), then)

    given = tuple(part is not None for part in (scale, bias, then))
    return with_kernel(NAME, ("blur", x.shape[1], given), x, kernel, plain)


def convolve_doubled(x: Tensor, weight: Tensor, bias: Tensor, slope: float, add_to: Tensor | None = None) -> Tensor:
    """leaky(conv of the doubled map + bias + add_to), from the map itself (B,C,S,S) and the kernels of `phases`.

    (B,o,2S,2S), written over the map `add_to` if given.
    """

    def kernel() -> Tensor:
        from .kernels.passes import interleave as interleaved

        return interleaved(F.conv2d(x, weight, padding=1), bias, slope, add_to)

    def plain() -> Tensor:
        return _leaky_(interleave(F.conv2d(x, weight, bias.repeat(4), padding=1), add_to), slope)

    return with_kernel(NAME, ("interleave", len(bias), add_to is None), x, kernel, plain)


def interleave(x: Tensor, add_to: Tensor | None = None) -> Tensor:
    """The output of `phases` kernels on a map padded by 1, (B,4o,S+1,S+1) -> one map (B,o,2S,2S).

    Added to the map `add_to` (B,o,2S,2S), if given.
    """
    batch, channels, side = x.shape[0], x.shape[1] // 4, x.shape[2] - 1
    if add_to is None:
        shape = batch, channels, 2 * side, 2 * side
        output = torch.empty(shape, device=x.device, dtype=x.dtype, memory_format=torch.channels_last)
    else:
        output = add_to
    for number, part in enumerate(x.chunk(4, dim=1)):
        row, column = divmod(number, 2)
        part = part[..., row : row + side, column : column + side]
        pixels = output[..., row::2, column::2]
        if add_to is None:
            pixels.copy_(part)
        else:
            pixels.add_(part)
    return output


def _scaled(x: Tensor, scale: Tensor | None, bias: Tensor) -> Tensor:
    bias = bias[:, None, None]
    return x + bias if scale is None else torch.addcmul(bias, x, scale[:, :, None, None])


def _times(x: Tensor, factors: Tensor | None) -> Tensor:
    if factors is None:
        return x
    factors = factors[:, :, None, None]
    return x * factors if torch.is_grad_enabled() else x.mul_(factors)


def _leaky_(x: Tensor, slope: float) -> Tensor:
    return x if slope == 1 else F.leaky_relu_(x, slope)
