"""What depends on the device: the one place where a backend is chosen."""

import functools
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from . import matching

log = logging.getLogger("imtalker")

# Bytes that one step of a chunked computation may write: on a CPU what its caches hold, elsewhere what keeps the
# device busy and is small beside its memory.
WORKING_SET = {"cpu": 4 << 20}
DEFAULT_WORKING_SET = 128 << 20
# Frames rendered at once: on a CPU one frame's maps are all that its caches hold.
BATCH_SIZE = {"cpu": 1}
DEFAULT_BATCH_SIZE = 8
SHARE_OF_FREE_MEMORY = 0.5
ASSUMED_FREE = 2 << 30  # where nothing tells it


def working_set(device: torch.device) -> int:
    return WORKING_SET.get(device.type, DEFAULT_WORKING_SET)


def best_batch_size(device: torch.device) -> int:
    """Frames at once beyond which the device gets no faster."""
    return BATCH_SIZE.get(device.type, DEFAULT_BATCH_SIZE)


def batch_size(device: torch.device, bytes_per_frame: float) -> int:
    """How many frames to work on at once: the device's best, or what half of its free memory holds."""
    best = best_batch_size(device)
    if device.type != "cuda":
        return best
    return max(1, min(best, int(free_memory(device) * SHARE_OF_FREE_MEMORY / bytes_per_frame)))


def free_memory(device: torch.device) -> int:
    """Bytes free on a device, as far as it can be known."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        import psutil  # comes with ComfyUI
    except ImportError:
        return ASSUMED_FREE
    return psutil.virtual_memory().available


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may help; only CUDA has an exception of its own for it."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in ("MPS backend out of memory", "DefaultCPUAllocator: can't allocate memory")
    )


def release_memory(device: torch.device) -> None:
    """Gives the memory that PyTorch holds in reserve back to the device."""
    if device.type in ("cuda", "mps", "xpu"):
        getattr(torch, device.type).empty_cache()


def fetch(blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same blocks on the CPU. On CUDA one is copied, and worked on by the caller, while the next is computed."""
    waiting = None
    for block in blocks:
        if not block.is_cuda:
            yield block.cpu()
            continue
        copy = torch.empty(block.shape, dtype=block.dtype, pin_memory=True)
        copy.copy_(block, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        if waiting is not None:
            yield _finished(*waiting)
        waiting = copy, copied
    if waiting is not None:
        yield _finished(*waiting)


def _finished(copy: Tensor, copied: "torch.cuda.Event") -> Tensor:
    copied.synchronize()
    return copy


def recorder(device: torch.device) -> Callable[[Callable[[], object]], Callable[[], None]] | None:
    """How work is recorded on a device, or None: called with work, it does what it needs to and returns the replay.

    CUDA alone records, as a graph, and only outside autograd and on the default stream, so that a replay and what uses
    its memory follow each other. Written by PyTorch's rules for graphs; not run on a GPU yet.
    """
    if device.type != "cuda" or torch.is_grad_enabled():
        return None
    if torch.cuda.current_stream(device) != torch.cuda.default_stream(device):
        return None
    return functools.partial(_record_graph, _recording_stream(device))


def _record_graph(stream: "torch.cuda.Stream", work: Callable[[], object]) -> Callable[[], None]:
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    graph = torch.cuda.CUDAGraph()
    # the outer context puts the stream back even where PyTorch's own fails to end a spoilt recording
    with torch.cuda.stream(stream):
        work()  # what libraries allocate once and keep must not lie in the graph's memory
        # other threads (a decoder, a server) may use the device meanwhile: "global" would make them fail
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
    current.wait_stream(stream)
    return graph.replay


@functools.cache
def _recording_stream(device: torch.device) -> "torch.cuda.Stream":
    """One for all recordings: each stream's matrix products have a workspace of their own."""
    return torch.cuda.Stream(device)


def attend_and_match(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of q (B,h,N,d) over k, v (1,h,M,d), and for each query the key with the largest head-averaged weight.

    Returns the output (B,h,N,d) and indices (B,N), of equal weights the first. The N x M map is never held whole.
    """
    kernel = _triton_kernel(q.device) if q.is_cuda and not torch.is_grad_enabled() else None
    return kernel(q, k, v) if kernel else matching.attend_and_match(q, k, v, working_set(q.device))


@functools.cache
def _triton_kernel(device: torch.device) -> Callable | None:
    """The Triton kernel where it works: Triton is not everywhere, and where it is it may lack a compiler or driver."""
    try:
        from .matching_triton import attend_and_match as kernel

        example = torch.zeros(1, 1, 16, 16, device=device)
        kernel(example, example, example)
    except Exception as error:  # whatever Triton raises, the plain way gives the same result
        log.info("Triton cannot be used on %s (%s): attention in blocks instead.", device, error)
        return None
    return kernel
