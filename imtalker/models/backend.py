"""Everything that depends on the device: the only place that chooses a backend."""

import contextlib
import errno
import functools
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..media.planes import Planes, to_planes
from . import capture, in_cache, matching

T = TypeVar("T")

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

# Errors without a class of their own, by parts of their texts in lower case: CUDA's, ROCm's and Triton's runtime and
# libraries, MPS, DirectML, the CPU (on Linux and on Windows), C++, OpenCV, and a file that Windows cannot map.
OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "outofmemory",
    "alloc_failed",
    "allocation_failed",
    "allocfailed",
    "rocblas_status_memory_error",
    "invalid buffer size",
    "failed to allocate private mtlbuffer",
    "not enough gpu video memory",
    "not enough memory",
    "insufficient memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad allocation",
    "bad_alloc",
    "error code: <1455>",
)
WINDOWS_ERRORS = (8, 14, 1455)  # not enough memory, out of memory, paging file too small

_allowed = {"graphs": True, "pinned": True}
_refused: set[Hashable] = set()  # cases in which a kernel does not run, see with_kernel
_said: set[str] = set()  # what is told once


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
    by_text = isinstance(error, RuntimeError) or type(error).__module__ == "cv2"
    return by_text and any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def release_memory(device: torch.device) -> None:
    """Returns PyTorch's cached memory to the device."""
    if device.type in ("cuda", "mps", "xpu"):
        with capture.LOCK:
            getattr(torch, device.type).empty_cache()


def allow(graphs: bool, pinned: bool) -> None:
    """Tells what the host lets us use on CUDA: recorded graphs, and pinned memory for copies."""
    _allowed.update(graphs=graphs, pinned=pinned)


def guard(device: torch.device) -> contextlib.AbstractContextManager:
    """Makes a CUDA device this thread's current one, on which streams, events, kernels and pinned memory depend.

    PyTorch's own operations need none; a whole thread is never moved to a device, as models may be on several.
    """
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


class Download:
    """A tensor on its way to the CPU: on CUDA it lands while other work is computed, elsewhere at once."""

    def __init__(self, x: Tensor):
        self._landed = None
        if not x.is_cuda:
            self._tensor = x.cpu()
            return
        with guard(x.device):
            self._tensor = _landing_place(x)
            copies = _copy_stream(x.device)
            copies.wait_stream(torch.cuda.current_stream(x.device))
            x.record_stream(copies)  # its memory is not given to others before
            with torch.cuda.stream(copies):
                self._tensor.copy_(x, non_blocking=True)
            self._landed = torch.cuda.Event()
            self._landed.record(copies)

    @property
    def landed(self) -> bool:
        return self._landed is None or self._landed.query()

    def wait(self) -> Tensor:
        """The tensor on the CPU, once it is there."""
        if self._landed is not None:
            self._landed.synchronize()
        return self._tensor


@functools.cache
def _copy_stream(device: torch.device) -> "torch.cuda.Stream":
    """Copies have a stream of their own, so that the next block does not wait for them."""
    return torch.cuda.Stream(device)


def to_cpu(blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """Copies each block to the CPU. On CUDA, a block is copied and used while the next one is computed."""
    waiting = None
    for block in blocks:
        download = Download(block)
        if waiting is not None:
            yield waiting.wait()
        waiting = download if block.is_cuda else None
        if waiting is None:
            yield download.wait()
    if waiting is not None:
        yield waiting.wait()


def to_file(blocks: Iterable[Tensor]) -> Iterator[Tensor | Planes]:
    """Frames (n,H,W,3) in 0..1 on their way from their device to `write_video`.

    From a device they come as planes made there, an eighth of the bytes. A CPU converts faster while it encodes.
    """
    moved = to_cpu(block if block.device.type == "cpu" else to_planes(block) for block in blocks)
    return (Planes(block) if block.dtype == torch.uint8 else block for block in moved)


def upload(x: Tensor, like: Tensor) -> Tensor:
    """A tensor from the CPU in the precision and on the device of another; does not wait for work on that device."""
    x = x.to(like.dtype)
    if x.is_cuda or not like.is_cuda:
        return x.to(like.device)
    with guard(like.device):
        return _landing_place(x).copy_(x).to(like.device, non_blocking=True)


def _landing_place(like: Tensor) -> Tensor:
    """Memory of the CPU for a copy of a tensor: pinned if it can be had, otherwise the copy is only slower."""
    if _allowed["pinned"]:
        try:
            return torch.empty(like.shape, dtype=like.dtype, device="cpu", pin_memory=True)
        except RuntimeError as error:  # drivers under WSL2 and in containers limit or refuse it
            if "pinned" not in _said:
                _said.add("pinned")
                log.info("No pinned memory can be had (%s): copies from the device are slower.", _first_line(error))
    return torch.empty(like.shape, dtype=like.dtype, device="cpu")


def recorder(device: torch.device) -> Callable[[Callable[[], object]], Callable[[], None]] | None:
    """A function that records work on this device and returns its replay, or None where nothing can be recorded.

    Only CUDA records, as a graph, and only outside autograd and on the default stream, so that a replay and the work
    that uses its memory run in order. See capture.record_graph.
    """
    if device.type != "cuda" or not _allowed["graphs"] or torch.is_grad_enabled():
        return None
    if torch.cuda.current_stream(device) != torch.cuda.default_stream(device):
        return None
    return functools.partial(capture.record_graph, device, is_out_of_memory)


def keeps_in_cache(x: Tensor) -> bool:
    """Whether to compute with x as in_cache.py does: float32 on a CPU, outside autograd."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()


def attend_and_match(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of q (B,h,N,d) over k, v (1 or B,h,M,d), and the best key of each query.

    That is the key with the largest head-averaged weight. Returns the output (B,h,N,d) and indices (B,N), the first
    among equal weights. The whole N x M map never exists.
    """

    def kernel() -> tuple[Tensor, Tensor]:
        from .kernels.matching import attend_and_match

        return attend_and_match(q, k, v, *products(compute_capability(q.device), q.dtype))

    def plain() -> tuple[Tensor, Tensor]:
        if keeps_in_cache(q) and (found := in_cache.attend_and_match(q, k, v)) is not None:
            return found
        return matching.attend_and_match(q, k, v, working_set(q.device))

    return with_kernel("attention with matches", (q.shape[1], q.shape[3]), q, kernel, plain)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of q (B,h,N,d) over k, v (B,h,M,d) -> (B,h,N,d)."""

    def kernel() -> Tensor:
        from .kernels import attention

        return attention.attend(q, k, v, *products(compute_capability(q.device), q.dtype))

    def plain() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    # PyTorch's kernels pad narrower heads to 32 channels, but have matrix units where Triton has none
    ours = q.shape[3] <= 16 and has_matrix_units(compute_capability(q.device), q.dtype)
    return with_kernel("attention", (q.shape[1:], k.shape[2]), q, kernel, plain) if ours else plain()


def attends_fused(x: Tensor) -> bool:
    """Whether PyTorch has attention with a mask, for heads of 8 channels, whose weights are never in memory."""
    return x.is_cuda and not torch.is_grad_enabled()


def swin_block(x: Tensor, block: in_cache.Swin, order: Tensor, group: Tensor, plain: Callable[[], Tensor]) -> Tensor:
    """A Swin block of tokens (B,S*S,C), see kernels/swin.py, or `plain()`, the same in PyTorch."""

    def kernel() -> Tensor:
        from .kernels import swin

        return swin.swin_block(x, block, order, group, *products(compute_capability(x.device), x.dtype))

    return with_kernel("Swin blocks", (x.shape[-1], block.heads, block.logit_bias.shape[-1]), x, kernel, plain)


def compute_capability(device: torch.device) -> int | None:
    """Of NVIDIA's devices, 89 for an RTX 4090; None for others: AMD's are "cuda" too, but numbered in another way."""
    if device.type != "cuda" or torch.version.hip:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def has_matrix_units(capability: int | None, dtype: torch.dtype) -> bool:
    """Whether Triton reaches matrix units for products in this precision, or it is float32, which PyTorch does not
    multiply on them either."""
    return dtype == torch.float32 or capability is None or capability >= 80


def products(capability: int | None, dtype: torch.dtype) -> tuple[str, int]:
    """How a kernel multiplies tiles of 64 rows: Triton's `input_precision`, which matters for float32, and warps.

    tf32x3 makes a float32 product of three on matrix units. On the A100 and H100 these are 8 times faster than float32
    units, elsewhere as fast or hardly faster. Triton has no matrix units for sm_75. Without them, a tile of 4 warps
    does not fit the registers.
    """
    if dtype == torch.float32 and capability in (80, 90):
        return "tf32x3", 4
    return "ieee", 8 if dtype == torch.float32 or not has_matrix_units(capability, dtype) else 4


def with_kernel(name: str, shape: Hashable, x: Tensor, kernel: Callable[[], T], plain: Callable[[], T]) -> T:
    """`kernel()`, in Triton, on CUDA outside autograd; elsewhere and where it does not run `plain()`, the same in
    PyTorch.

    The first call is the test: Triton may be missing, lack a compiler or driver, or refuse this device, the precision
    of `x` or the `shape` (what it is compiled for, such as heads and width). Only then is it not tried again for these;
    after full memory it is.
    """
    case = name, x.device, x.dtype, shape
    if not x.is_cuda or torch.is_grad_enabled() or case in _refused:
        return plain()
    try:
        with guard(x.device):
            return kernel()
    except Exception as error:  # Triton raises anything; plain PyTorch gives the same result
        if is_out_of_memory(error):
            raise
        _refused.add(case)
        log.warning(
            "The kernel of %s does not run on %s in %s (%s: %s): using PyTorch, which is slower. %s",
            name, x.device, str(x.dtype).removeprefix("torch."), type(error).__name__, _first_line(error),
            "Install triton (on Windows triton-windows)." if isinstance(error, ImportError) else "",
        )  # fmt: skip
    return plain()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")
