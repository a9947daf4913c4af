"""Attention that also returns its best match, in plain PyTorch, a block of queries at a time."""

import torch
from torch import Tensor


def attend_and_match(q: Tensor, k: Tensor, v: Tensor, working_set: int) -> tuple[Tensor, Tensor]:
    """See backend.attend_and_match. About `working_set` bytes of attention weights exist at a time, at most.

    In float32 whatever the inputs are, as in the Triton kernel: rounded logits would choose other keys.
    """
    batch, heads, count, width = q.shape
    chunk = max(1, min(count, working_set // (heads * k.shape[2] * 4)))
    output = torch.empty_like(q)
    match = torch.empty(batch, count, dtype=torch.long, device=q.device)
    with torch.autocast(q.device.type, enabled=False):
        for b in range(batch):
            if b < len(k):  # images may share the keys and values of one
                keys = (k[b].float().transpose(1, 2) * width**-0.5).contiguous()
                values = v[b].float()
            for start in range(0, count, chunk):
                part = slice(start, start + chunk)
                weights = torch.bmm(q[b, :, part].float(), keys).softmax(dim=-1)
                # faster than argmax, and also the first among equals
                match[b, part] = weights.sum(dim=0).max(dim=-1).indices
                output[b, :, part] = torch.bmm(weights, values)
    return output, match
