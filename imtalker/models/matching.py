"""Attention that also returns its best match, in plain PyTorch, a block of queries at a time."""

import torch
from torch import Tensor


def attend_and_match(q: Tensor, k: Tensor, v: Tensor, working_set: int) -> tuple[Tensor, Tensor]:
    """See backend.attend_and_match. About `working_set` bytes of attention weights exist at a time, at most."""
    batch, heads, count, width = q.shape
    chunk = max(1, min(count, working_set // (heads * k.shape[2] * 4)))
    output = torch.empty_like(q)
    match = torch.empty(batch, count, dtype=torch.long, device=q.device)
    keys = (k[0].transpose(1, 2) * width**-0.5).contiguous()
    for b in range(batch):
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            # in float32: sums over thousands of keys decide the match
            weights = torch.bmm(q[b, :, part], keys).softmax(dim=-1, dtype=torch.float32)
            # faster than argmax, and also the first among equals
            match[b, part] = weights.sum(dim=0).max(dim=-1).indices
            output[b, :, part] = torch.bmm(weights.to(v.dtype), v[0])
    return output, match
