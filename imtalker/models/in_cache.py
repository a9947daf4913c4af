"""Attention on a CPU in float32, a part at a time, so that each part stays in the caches of its processor.

A weight is exp(logit), without the usual shift by the row's largest logit, and a row of ones beside the values gives
the weights' sum: fewer passes over a part than a softmax takes. Where such sums leave float32's range the result is
None, and the caller takes its plain way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PART = 512 << 10  # bytes of weights that a thread works on: half of a usual L2 cache
# Sums of weights between these have full precision, and their products with values a range to spare.
SMALLEST, LARGEST = 1e-25, 1e30


def attend_and_match(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
    """See backend.attend_and_match."""
    batch, heads, count, width = q.shape
    output = torch.empty_like(q)
    sums = q.new_empty(batch, heads, count)
    match = torch.empty(batch, count, dtype=torch.long)
    step = min(count, max(32, _part_of(k.shape[2])))
    memory, average = q.new_empty(2, k.shape[2] * step)
    for b in range(batch):
        if b < len(k):  # images may share the keys and values of one
            # Without their mean the keys give the same attention, and no weights that sum to less than one per key.
            keys = (k[b] - k[b].mean(1, keepdim=True)) * width**-0.5
            values = F.pad(v[b].transpose(1, 2), (0, 0, 0, 1), value=1.0)
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            # of another size for the last part
            weights, total = (m[: k.shape[2] * (part.stop - start)].view(k.shape[2], -1) for m in (memory, average))
            for head in range(heads):
                torch.mm(keys[head], q[b, head, part].t(), out=weights).exp_()
                attended = values[head] @ weights
                sums[b, head, part] = attended[-1]
                torch.div(attended[:-1], attended[-1], out=output[b, head, part].t())
                share = attended[-1].reciprocal()
                torch.mul(weights, share, out=total) if head == 0 else total.addcmul_(weights, share)
            match[b, part] = _first_largest(total)
    return (output, match) if _usable(sums) else None


def _first_largest(weights: Tensor) -> Tensor:
    """(M,N) -> for each column the row of its largest value, the first among equals: `max(0)`, several times faster."""
    rows, columns = weights.shape
    size = next(n for n in range(min(64, rows), 0, -1) if rows % n == 0)
    blocks = weights.view(-1, size, columns)
    block = blocks.amax(1).max(0).indices
    return block * size + blocks[block, :, torch.arange(columns)].max(1).indices


@dataclass(frozen=True)
class Swin:
    """A Swin block's weights (out,in) and biases, the norms' affine part folded in."""

    heads: int
    qkv: tuple[Tensor, Tensor]  # one layer for q (scaled), k and v
    logit_bias: Tensor  # (groups,heads,n,n), for windows with the same mask
    proj: tuple[Tensor, Tensor]
    mlp: tuple[Tensor, Tensor]  # first layer
    mlp_out: tuple[Tensor, Tensor]


def swin_block(x: Tensor, block: Swin, order: Tensor, groups: Sequence[int], apart: float) -> Tensor | None:
    """Tokens (B,S*S,C) -> (B,S*S,C), a few windows at a time from their first norm to their last sum.

    order: (windows,n), each window's tokens; groups: how many windows share each mask; logit biases below `apart` mean
    a weight of 0.
    """
    heads, width, cells = block.heads, x.shape[-1], order.shape[1]
    weight, bias = (_with_ones(tensor, heads, value) for tensor, value in zip(block.qkv, (0.0, 1.0)))
    # exp is slow where its result is below float32's range
    factors = block.logit_bias.clamp(min=apart).exp().mul_(block.logit_bias > apart).transpose(2, 3).contiguous()
    step = max(1, _part_of(cells**2))
    memory = x.new_empty(min(step, max(groups)), cells, cells)
    output = torch.empty_like(x)
    sums = []
    for image, result in zip(x, output):
        for windows, factor in zip(order.split(groups), factors):
            for part in windows.split(step):
                rows = part.flatten()
                tokens = image.index_select(0, rows)
                qkv = torch.addmm(bias[:, None], weight, F.layer_norm(tokens, (width,)).t())
                attended, added = _attend(qkv.view(len(qkv), -1, cells), factor, memory[: len(part)], width)
                sums.append(added)
                tokens.add_(block.proj[1]).addmm_(attended.t(), block.proj[0].t())
                hidden = F.gelu(F.linear(F.layer_norm(tokens, (width,)), *block.mlp))
                result.index_copy_(0, rows, tokens.add_(block.mlp_out[1]).addmm_(hidden, block.mlp_out[0].t()))
    return output if _usable(torch.stack([limit for pair in sums for limit in pair])) else None


def _with_ones(qkv: Tensor, heads: int, value: float) -> Tensor:
    """The weight or bias (3C,...) of q, k and v -> (3C+heads,...): after each head's values a row of `value`.

    With 0 in the weight and 1 in the bias, the layer's output has a row of ones there.
    """
    q_and_k, v = qkv.split([len(qkv) // 3 * 2, len(qkv) // 3])
    v = v.unflatten(0, (heads, -1))
    return torch.cat([q_and_k, torch.cat([v, v.new_full((heads, 1, *v.shape[2:]), value)], dim=1).flatten(0, 1)])


def _attend(qkv: Tensor, factor: Tensor, memory: Tensor, width: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """q, k and v with ones (3C+heads,W,n), factors (heads,keys,queries) -> (C,W*n), and the extremes of all sums."""
    heads = len(factor)
    windows, cells = qkv.shape[1:]
    q, k, v = qkv.transpose(0, 1).split([width, width, width + heads], dim=1)
    output = qkv.new_empty(heads, width // heads, windows, cells)
    sums = qkv.new_empty(heads, windows, cells)
    parts = zip(q.chunk(heads, dim=1), k.chunk(heads, dim=1), v.chunk(heads, dim=1))
    for head, (queries, keys, values) in enumerate(parts):
        weights = torch.bmm(keys.transpose(1, 2), queries, out=memory).exp_().mul_(factor[head])
        attended = torch.bmm(values, weights)
        sums[head] = attended[:, -1]
        torch.div(attended[:, :-1], attended[:, -1:], out=output[head].transpose(0, 1))
    return output.flatten(2).flatten(0, 1), torch.aminmax(sums)


def _part_of(numbers: int) -> int:
    """How many rows of so many float32 numbers the threads work on at a time."""
    return PART * torch.get_num_threads() // (4 * numbers)


def _usable(sums: Tensor) -> bool:
    smallest, largest = torch.aminmax(sums)
    return bool(smallest > SMALLEST) and bool(largest < LARGEST)  # both are false for NaN
