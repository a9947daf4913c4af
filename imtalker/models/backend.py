"""What depends on the device: the one place where a backend is chosen."""

import torch
from torch import Tensor

# Bytes that one step of a chunked computation may write: on a CPU what its caches hold, elsewhere what keeps the
# device busy and is small beside its memory.
WORKING_SET = {"cpu": 4 << 20}
DEFAULT_WORKING_SET = 128 << 20


def working_set(device: torch.device) -> int:
    return WORKING_SET.get(device.type, DEFAULT_WORKING_SET)


def attend_and_match(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of q (B,h,N,d) over k, v (1,h,M,d), and for each query the key with the largest head-averaged weight.

    Returns the output (B,h,N,d) and indices (B,N), of equal weights the first. The N x M map is never held whole.
    """
    from . import matching

    return matching.attend_and_match(q, k, v, working_set(q.device))
