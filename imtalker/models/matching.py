"""Attention that also says where it looked, in blocks of queries: the plain PyTorch way."""

import torch
from torch import Tensor


def attend_and_match(q: Tensor, k: Tensor, v: Tensor, working_set: int) -> tuple[Tensor, Tensor]:
    """See backend.attend_and_match. Without gradients `working_set` bytes of logits exist at a time, and as many of
    weights."""
    batch, heads, count, width = q.shape
    keys = (k[0].transpose(1, 2) * width**-0.5).contiguous()
    # float32: sums over thousands of keys decide the match
    if torch.is_grad_enabled() and (q.requires_grad or keys.requires_grad or v.requires_grad):
        weights = (q @ keys).softmax(dim=-1, dtype=torch.float32)
        return weights.to(v.dtype) @ v, weights.sum(dim=1).argmax(dim=-1)
    chunk = max(1, min(count, working_set // (heads * k.shape[2] * 4)))
    output = torch.empty_like(q)
    match = torch.empty(batch, count, dtype=torch.long, device=q.device)
    # written again and again: fresh memory costs a CPU more than what is done in it
    logits = q.new_empty(heads, chunk, k.shape[2])
    weights = torch.empty_like(logits, dtype=torch.float32)
    for b in range(batch):
        for start in range(0, count, chunk):
            part = slice(start, min(start + chunk, count))
            x, w = (buffer[:, : part.stop - start] for buffer in (logits, weights))
            torch.bmm(q[b, :, part], keys, out=x)
            torch.softmax(x, dim=-1, dtype=torch.float32, out=w)
            match[b, part] = w.sum(dim=0).max(dim=-1).indices  # quicker than argmax, and the first of equal ones too
            output[b, :, part] = torch.bmm(w.to(v.dtype), v[0])
    return output, match
