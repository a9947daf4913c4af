"""A whole Swin block as one kernel: what `windows.SwinBlock` computes, read and written once.

A program takes one window of one image. Heads of 4 or 8 channels are too narrow for matrix units, so queries, keys and
values are made 16 channels at a time, and a head's logits come from queries in which the other heads' channels are 0.
Registers are the limit: loops that are not unrolled, queries computed after keys and values, and rows read twice keep
every size and precision from spilling (tests/models/test_ahead_of_time.py).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..in_cache import Swin

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
NARROWEST = 16  # rows or columns of a product


def swin_block(x: Tensor, block: Swin, order: Tensor, group: Tensor, products: str, warps: int) -> Tensor:
    """Tokens (B,S*S,C) -> (B,S*S,C), in one precision with the weights; sums and norms are float32.

    order (S*S,): tokens, window by window; group (windows,), int32: each window's row of the block's logit bias;
    products, warps: see backend.products. Raises ValueError for sizes that are not powers of two or too small.
    """
    batch, tokens, width = x.shape
    cells = block.logit_bias.shape[-1]
    depth = width // block.heads
    if min(width, cells) < NARROWEST or any(size & (size - 1) for size in (width, depth, cells)):
        raise ValueError(f"no kernel for {block.heads} heads of {depth} channels in windows of {cells} cells")
    x = x.contiguous()
    y = torch.empty_like(x)
    _swin_block[(tokens // cells, batch)](
        x, y, order, group, block.logit_bias, *block.qkv, *block.proj, *block.mlp, *block.mlp_out, tokens,
        WIDTH=width, HEADS=block.heads, DEPTH=depth, PART=max(NARROWEST, depth), CELLS=cells, PRODUCTS=products,
        num_warps=warps, num_stages=1,
    )  # fmt: skip
    return y


@triton.jit
def _normal(x, WIDTH: tl.constexpr):
    """Each row with mean 0 and variance 1, as torch's layer norm."""
    x -= tl.sum(x, 1)[:, None] / WIDTH
    return x * tl.rsqrt(tl.sum(x * x, 1) / WIDTH + 1e-5)[:, None]


@triton.jit
def _linear(x, weight, bias, row, column, WIDTH: tl.constexpr, PRODUCTS: tl.constexpr):
    """Some outputs (`row`) of a layer stored as (outputs,WIDTH): (n,WIDTH) -> (n,rows), float32."""
    tile = tl.load(weight + row[None, :] * WIDTH + column[:, None])
    return tl.dot(x, tile, input_precision=PRODUCTS) + tl.load(bias + row)[None, :].to(tl.float32)


@triton.jit
def _swin_block(
    x, y, order, group, logit_bias, qkv, qkv_bias, proj, proj_bias, up, up_bias, down, down_bias, tokens,
    WIDTH: tl.constexpr, HEADS: tl.constexpr, DEPTH: tl.constexpr, PART: tl.constexpr, CELLS: tl.constexpr,
    PRODUCTS: tl.constexpr,
):  # fmt: skip
    window = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64) * tokens * WIDTH
    precision: tl.constexpr = x.dtype.element_ty
    cell = tl.arange(0, CELLS)
    channel = tl.arange(0, WIDTH)
    part = tl.arange(0, PART)
    entry = cell[:, None] * CELLS + cell[None, :]
    table = logit_bias + tl.load(group + window) * HEADS * CELLS * CELLS

    rows = tl.load(order + window * CELLS + cell).to(tl.int32)
    result = tl.load(x + image + rows[:, None] * WIDTH + channel[None, :]).to(tl.float32)
    normal = _normal(result, WIDTH).to(precision)
    for first in range(0, WIDTH, PART):
        own = first + part
        k = _linear(normal, qkv, qkv_bias, WIDTH + own, channel, WIDTH, PRODUCTS).to(precision)
        v = _linear(normal, qkv, qkv_bias, 2 * WIDTH + own, channel, WIDTH, PRODUCTS).to(precision)
        q = _linear(normal, qkv, qkv_bias, own, channel, WIDTH, PRODUCTS).to(precision)
        attended = tl.zeros([CELLS, PART], tl.float32)
        for head in range(0, PART // DEPTH):
            mine = (part // DEPTH == head)[None, :]
            bias = tl.load(table + (first // DEPTH + head) * CELLS * CELLS + entry).to(tl.float32)
            logits = tl.dot(tl.where(mine, q, 0.0), tl.trans(k), bias, input_precision=PRODUCTS)
            weights = tl.exp2(logits * LOG2_E - (tl.max(logits, 1) * LOG2_E)[:, None])
            values = tl.dot(weights.to(precision), v, input_precision=PRODUCTS) / tl.sum(weights, 1)[:, None]
            attended = tl.where(mine, values, attended)
        back = tl.load(proj + channel[None, :] * WIDTH + own[:, None])
        result = tl.dot(attended.to(precision), back, result, input_precision=PRODUCTS)
    result += tl.load(proj_bias + channel)[None, :].to(tl.float32)

    normal = _normal(result, WIDTH).to(precision)
    for first in range(0, 2 * WIDTH, PART):
        own = first + part
        hidden = _linear(normal, up, up_bias, own, channel, WIDTH, PRODUCTS)
        hidden = 0.5 * hidden * (1 + tl.erf(hidden * 0.7071067811865476))
        back = tl.load(down + channel[None, :] * 2 * WIDTH + own[:, None])
        result = tl.dot(hidden.to(precision), back, result, input_precision=PRODUCTS)
    result += tl.load(down_bias + channel)[None, :].to(tl.float32)
    # volatile, or the compiler would keep the rows in registers all the while
    rows = tl.load(order + window * CELLS + cell, volatile=True).to(tl.int32)
    tl.store(y + image + rows[:, None] * WIDTH + channel[None, :], result.to(precision))
