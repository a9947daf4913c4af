"""Attention that also returns its best match, as two CUDA kernels in Triton.

The first is flash attention that stores each row's log-sum-exp. From that the second computes the weights of every head
without another softmax, sums them over the heads a block of keys at a time, and keeps the largest. Nothing of size
N x M is ever in memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_QUERIES, BLOCK_KEYS = 64, 64
LOG2_E = 1.4426950408889634


def attend_and_match(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """See backend.attend_and_match. q (B,h,N,d), k and v (1,h,M,d), in one precision; float32 without TF32."""
    batch, heads, count, width = q.shape
    keys = k.shape[2]
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    output = torch.empty_like(q)
    log_sums = torch.empty(batch, heads, count, device=q.device, dtype=torch.float32)
    match = torch.empty(batch, count, device=q.device, dtype=torch.int64)
    scale = width**-0.5 * LOG2_E
    # tl.dot needs at least 16 in each dimension
    depth = max(16, triton.next_power_of_2(width))
    blocks = triton.cdiv(count, BLOCK_QUERIES)
    sizes = {"DEPTH": depth, "QUERIES": BLOCK_QUERIES, "KEYS": BLOCK_KEYS}
    _attend[(blocks, batch * heads)](q, k, v, output, log_sums, scale, heads, count, keys, width, **sizes)
    _match[(blocks, batch)](q, k, log_sums, match, scale, heads, count, keys, width, **sizes)
    return output, match


@triton.jit
def _load(start, row, rows, column, width, base):
    """Rows of a matrix (rows,width), padded with zeros."""
    inside = (row[:, None] < rows) & (column[None, :] < width)
    return tl.load(start + base + row[:, None] * width + column[None, :], mask=inside, other=0.0)


@triton.jit
def _logits(q, k, key, keys, scale):
    """Logits to base 2; -inf for padded keys."""
    product = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    return tl.where(key[None, :] < keys, product, float("-inf"))


@triton.jit
def _attend(
    q, k, v, output, log_sums, scale, heads, count, keys, width,
    DEPTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One head of one image, one block of queries."""
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    number = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, DEPTH)
    here = number * count * width
    there = (number % heads) * keys * width
    queries = _load(q, row, count, column, width, here)
    largest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    result = tl.zeros([QUERIES, DEPTH], tl.float32)
    for start in range(0, keys, KEYS):
        key = start + tl.arange(0, KEYS)
        logits = _logits(queries, _load(k, key, keys, column, width, there), key, keys, scale)
        now_largest = tl.maximum(largest, tl.max(logits, 1))
        weights = tl.exp2(logits - now_largest[:, None])
        shrink = tl.exp2(largest - now_largest)
        total = total * shrink + tl.sum(weights, 1)
        values = _load(v, key, keys, column, width, there)
        result = result * shrink[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        largest = now_largest
    result = result / total[:, None]
    inside = (row[:, None] < count) & (column[None, :] < width)
    target = output + here + row[:, None] * width + column[None, :]
    tl.store(target, result.to(output.dtype.element_ty), mask=inside)
    tl.store(log_sums + number * count + row, largest + tl.log2(total), mask=row < count)


@triton.jit
def _match(
    q, k, log_sums, match, scale, heads, count, keys, width,
    DEPTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """All heads of one image, one block of queries."""
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    image = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, DEPTH)
    best = tl.full([QUERIES], -1.0, tl.float32)
    where = tl.zeros([QUERIES], tl.int64)
    for start in range(0, keys, KEYS):
        key = start + tl.arange(0, KEYS)
        weights = tl.zeros([QUERIES, KEYS], tl.float32)
        for head in range(0, heads):
            number = image * heads + head
            queries = _load(q, row, count, column, width, number * count * width)
            there = (number % heads) * keys * width
            logits = _logits(queries, _load(k, key, keys, column, width, there), key, keys, scale)
            log_sum = tl.load(log_sums + number * count + row, mask=row < count, other=0.0)
            weights += tl.exp2(logits - log_sum[:, None])
        # padded keys must lose even to weights of zero
        weights = tl.where(key[None, :] < keys, weights, -1.0)
        top = tl.max(weights, 1)
        # the first among equal weights, within a block and across blocks
        first = start + tl.argmax(weights, 1, tie_break_left=True)
        better = top > best
        best = tl.where(better, top, best)
        where = tl.where(better, first.to(tl.int64), where)
    tl.store(match + image * count + row, where, mask=row < count)
