"""Everything that depends on the device: the only place that chooses a backend."""

import errno
import functools
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from . import matching

log = logging.getLogger("imtalker")

# Bytes that one step of a chunked computation may write: on a CPU what fits its caches, elsewhere enough to keep the
# device busy yet little beside its memory.
WORKING_SET = {"cpu": 4 << 20}
DEFAULT_WORKING_SET = 128 << 20
# Frames rendered at a time: the maps of one frame already fill a CPU's caches.
BATCH_SIZE = {"cpu": 1}
DEFAULT_BATCH_SIZE = 8
SHARE_OF_FREE_MEMORY = 0.5
ASSUMED_FREE = 2 << 30  # bytes, if nothing reports them

# Errors without a class of their own, by their texts: CUDA's and ROCm's runtime and libraries, MPS, DirectML, the CPU
# (one text from Linux, one from Windows), and a file that Windows cannot map.
OUT_OF_MEMORY_TEXTS = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "HIP out of memory",
    "HIP error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "HIPBLAS_STATUS_ALLOC_FAILED",
    "rocblas_status_memory_error",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HOST_ALLOCATION_FAILED",
    "DEVICE_ALLOCATION_FAILED",
    "miopenStatusAllocFailed",
    "MPS backend out of memory",
    "Invalid buffer size",
    "not enough GPU video memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "error code: <1455>",
)
WINDOWS_ERRORS = (8, 14, 1455)  # not enough memory, out of memory, paging file too small


def working_set(device: torch.device) -> int:
    return WORKING_SET.get(device.type, DEFAULT_WORKING_SET)


def best_batch_size(device: torch.device) -> int:
    """Frames at a time, beyond which the device gets no faster."""
    return BATCH_SIZE.get(device.type, DEFAULT_BATCH_SIZE)


def batch_size(device: torch.device, bytes_per_frame: float) -> int:
    """Frames to process at a time: the device's best number, or as many as half of its free memory holds."""
    best = best_batch_size(device)
    if device.type != "cuda":
        return best
    return max(1, min(best, int(free_memory(device) * SHARE_OF_FREE_MEMORY / bytes_per_frame)))


def free_memory(device: torch.device) -> int:
    """Free bytes on a device, or an estimate."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        import psutil  # comes with ComfyUI
    except ImportError:
        return ASSUMED_FREE
    return psutil.virtual_memory().available


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory has run out, on the device or on the computer, so that a smaller batch may help."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) in WINDOWS_ERRORS
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY_TEXTS)


def release_memory(device: torch.device) -> None:
    """Returns PyTorch's cached memory to the device."""
    if device.type in ("cuda", "mps", "xpu"):
        getattr(torch, device.type).empty_cache()


def to_cpu(blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """Copies each block to the CPU. On CUDA, a block is copied and used while the next one is computed."""
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
    """A function that records work on this device and returns its replay, or None where nothing can be recorded.

    Only CUDA records, as a graph, and only outside autograd and on the default stream, so that a replay and the work
    that uses its memory run in order. Follows PyTorch's rules for graphs; not run on a GPU yet.
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
    # the outer context restores the stream even if PyTorch's own cannot end a failed recording
    with torch.cuda.stream(stream):
        work()  # what libraries allocate once and keep must lie outside the graph's memory
        # other threads (a decoder, a server) may use the device meanwhile; "global" would make them fail
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
    current.wait_stream(stream)
    return graph.replay


@functools.cache
def _recording_stream(device: torch.device) -> "torch.cuda.Stream":
    """One capture stream per device: cuBLAS allocates a workspace per stream."""
    return torch.cuda.Stream(device)


def attend_and_match(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of q (B,h,N,d) over k, v (1,h,M,d), and for each query the key with the largest head-averaged weight.

    Returns the output (B,h,N,d) and indices (B,N), the first among equal weights. The whole N x M map never exists.
    """
    kernel = _triton_kernel(q.device) if q.is_cuda and not torch.is_grad_enabled() else None
    return kernel(q, k, v) if kernel else matching.attend_and_match(q, k, v, working_set(q.device))


@functools.cache
def _triton_kernel(device: torch.device) -> Callable | None:
    """The Triton kernel, or None if it does not run: Triton may be missing, or lack a compiler or driver."""
    try:
        from .matching_triton import attend_and_match as kernel

        example = torch.zeros(1, 1, 16, 16, device=device)
        kernel(example, example, example)
    except Exception as error:  # Triton raises anything; plain PyTorch gives the same result
        log.info("Triton does not run on %s (%s): using PyTorch for attention.", device, error)
        return None
    return kernel
