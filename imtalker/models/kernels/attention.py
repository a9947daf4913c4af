"""Attention over a whole map for narrow heads, whose weights are never in memory (flash attention).

PyTorch's own kernels pad heads of 16 channels to 32; this one computes with 16.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = 1.4426950408889634
BLOCK_KEYS = 64


def attend(q: Tensor, k: Tensor, v: Tensor, products: str, warps: int, log_sums: Tensor | None = None) -> Tensor:
    """Attention of q (B,h,N,d) over k, v (B or 1,h,M,d), in one precision -> (B,h,N,d), in memory as (B,N,h,d).

    Sums are float32.
    products, warps: see backend.products. log_sums (B,h,N) float32, if given, receives each query's logarithm, to base
    2, of the sum of its weights before they are divided by it; weights are powers of 2.
    """
    batch, heads, count, width = q.shape
    keys = k.shape[2]
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    output = q.new_empty(batch, count, heads, width).transpose(1, 2)
    queries = block_queries(q.dtype, warps)
    _attend[(triton.cdiv(count, queries), batch * heads)](
        q, k, v, output, log_sums, scale(width), heads, count, keys,
        *q.stride()[:3], *rows(k), *rows(v), *output.stride()[:3],
        **sizes(width, count, keys, queries), PRODUCTS=products, num_warps=warps, num_stages=2,
    )  # fmt: skip
    return output


def scale(width: int) -> float:
    """Of logits to base 2."""
    return width**-0.5 * LOG2_E


def rows(x: Tensor) -> tuple[int, int, int]:
    """The steps in memory from image to image, head to head and row to row of keys or values that images may share."""
    return (0 if len(x) == 1 else x.stride(0)), x.stride(1), x.stride(2)


def block_queries(dtype: torch.dtype, warps: int) -> int:
    """How many queries the registers of a program hold (8 warps: there are no matrix units)."""
    return 64 if dtype == torch.float32 or warps == 8 else 128


def sizes(width: int, count: int, keys: int, queries: int) -> dict[str, int]:
    """Of a program's tiles; products need at least 16 numbers in each dimension."""
    whole = count % queries == 0 and keys % BLOCK_KEYS == 0
    return {
        "WIDTH": width, "DEPTH": max(16, triton.next_power_of_2(width)), "QUERIES": queries, "KEYS": BLOCK_KEYS,
        "WHOLE": whole,
    }  # fmt: skip


@triton.jit
def load_rows(start, row, step, rows, WIDTH: tl.constexpr, DEPTH: tl.constexpr, WHOLE: tl.constexpr):
    """Rows of a matrix (rows,WIDTH), padded with zeros to (len(row),DEPTH)."""
    column = tl.arange(0, DEPTH)
    places = start + row[:, None] * step + column[None, :]
    if WHOLE and WIDTH == DEPTH:
        return tl.load(places)
    return tl.load(places, mask=(row[:, None] < rows) & (column[None, :] < WIDTH), other=0.0)


@triton.jit
def dot_keys(queries, keys, key, count, WHOLE: tl.constexpr, PRODUCTS: tl.constexpr):
    """Logits before their scale; -inf for padded keys."""
    product = tl.dot(queries, tl.trans(keys), input_precision=PRODUCTS)
    if WHOLE:
        return product
    return tl.where(key[None, :] < count, product, float("-inf"))


@triton.jit
def _attend(
    q, k, v, output, log_sums, scale, heads, count, keys,
    q_image, q_head, q_row, k_image, k_head, k_row, v_image, v_head, v_row, o_image, o_head, o_row,
    WIDTH: tl.constexpr, DEPTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, WHOLE: tl.constexpr,
    PRODUCTS: tl.constexpr,
):  # fmt: skip
    """One head of one image, one block of queries."""
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    number = tl.program_id(1).to(tl.int64)
    image, head = number // heads, number % heads
    q += image * q_image + head * q_head
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head
    queries = load_rows(q, row, q_row, count, WIDTH, DEPTH, WHOLE)
    largest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    result = tl.zeros([QUERIES, DEPTH], tl.float32)
    for start in range(0, keys, KEYS):
        key = start + tl.arange(0, KEYS)
        tile = load_rows(k, key, k_row, keys, WIDTH, DEPTH, WHOLE)
        logits = dot_keys(queries, tile, key, keys, WHOLE, PRODUCTS)
        now_largest = tl.maximum(largest, tl.max(logits, 1))
        weights = tl.exp2(logits * scale - (now_largest * scale)[:, None])
        shrink = tl.exp2((largest - now_largest) * scale)
        total = total * shrink + tl.sum(weights, 1)
        values = load_rows(v, key, v_row, keys, WIDTH, DEPTH, WHOLE)
        result = tl.dot(weights.to(values.dtype), values, result * shrink[:, None], input_precision=PRODUCTS)
        largest = now_largest
    column = tl.arange(0, DEPTH)
    target = output + image * o_image + head * o_head + row[:, None] * o_row + column[None, :]
    inside = (row[:, None] < count) & (column[None, :] < WIDTH)
    tl.store(target, (result / total[:, None]).to(output.dtype.element_ty), mask=inside)
    if log_sums is not None:
        tl.store(log_sums + number * count + row, largest * scale + tl.log2(total), mask=row < count)
