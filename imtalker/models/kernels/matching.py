"""Attention that also returns its best match, as two CUDA kernels in Triton.

The first is flash attention that stores each row's log-sum-exp. From that the second computes the weights of every head
without another softmax, sums them over the heads a block of keys at a time, and keeps the largest. Nothing of size
N x M is ever in memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .attention import attend, block_queries, dot_keys, load_rows, rows, scale, sizes


def attend_and_match(q: Tensor, k: Tensor, v: Tensor, products: str, warps: int) -> tuple[Tensor, Tensor]:
    """See backend.attend_and_match. q (B,h,N,d), k and v (1 or B,h,M,d), in one precision; sums are float32.

    products, warps: see backend.products.
    """
    batch, heads, count, width = q.shape
    log_sums = torch.empty(batch, heads, count, device=q.device, dtype=torch.float32)
    match = torch.empty(batch, count, device=q.device, dtype=torch.int64)
    output = attend(q, k, v, products, warps, log_sums)
    q, k = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k))
    queries = block_queries(q.dtype, warps)
    _match[(triton.cdiv(count, queries), batch)](
        q, k, log_sums, match, scale(width), heads, count, k.shape[2], *q.stride()[:3], *rows(k),
        **sizes(width, count, k.shape[2], queries), PRODUCTS=products, num_warps=warps, num_stages=2,
    )  # fmt: skip
    return output, match


@triton.jit
def _match(
    q, k, log_sums, match, scale, heads, count, keys, q_image, q_head, q_row, k_image, k_head, k_row,
    WIDTH: tl.constexpr, DEPTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, WHOLE: tl.constexpr,
    PRODUCTS: tl.constexpr,
):  # fmt: skip
    """All heads of one image, one block of queries."""
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    image = tl.program_id(1).to(tl.int64)
    q += image * q_image
    k += image * k_image
    log_sums += image * heads * count
    best = tl.full([QUERIES], -1.0, tl.float32)
    where = tl.zeros([QUERIES], tl.int32)
    for start in range(0, keys, KEYS):
        key = start + tl.arange(0, KEYS)
        weights = tl.zeros([QUERIES, KEYS], tl.float32)
        for head in range(0, heads):
            queries = load_rows(q + head * q_head, row, q_row, count, WIDTH, DEPTH, WHOLE)
            tile = load_rows(k + head * k_head, key, k_row, keys, WIDTH, DEPTH, WHOLE)
            log_sum = tl.load(log_sums + head * count + row, mask=row < count, other=0.0)
            weights += tl.exp2(dot_keys(queries, tile, key, keys, WHOLE, PRODUCTS) * scale - log_sum[:, None])
        here, index = tl.max(weights, 1, return_indices=True)
        where = tl.where(here > best, start + index, where)
        best = tl.maximum(here, best)
    tl.store(match + image * count + row, where.to(tl.int64), mask=row < count)
