"""CUDA graphs: work recorded once, to be replayed with one launch. Follows PyTorch's rules; not run on a GPU yet."""

import contextlib
import functools
import threading
import traceback
from collections.abc import Callable

import torch

# Two recordings at once break each other, and so does giving memory back during one: one at a time in a process.
LOCK = threading.RLock()


def record_graph(
    device: torch.device, is_out_of_memory: Callable[[BaseException], bool], work: Callable[[], object]
) -> Callable[[], None]:
    """Runs `work` on this device, records it, and returns the replay.

    Raises MemoryError or RuntimeError, in place of an error whose traceback would keep the recording's memory; the
    device and PyTorch's allocator are then as before.
    """
    with LOCK, torch.cuda.device(device):
        current, stream = torch.cuda.current_stream(device), _recording_stream(device)
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        stream.wait_stream(current)
        try:
            # the outer context restores the stream even if PyTorch's own cannot end a failed recording
            with torch.cuda.stream(stream):
                work()  # what libraries allocate once and keep must lie outside the graph's memory
                # other threads (a decoder, a server) may use the device meanwhile; "global" would make them fail
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    work()
        except Exception as error:  # drivers raise anything
            # full memory may only show as a recording that became invalid on the way
            kind = MemoryError if any(map(is_out_of_memory, _with_causes(error))) else RuntimeError
            failure = kind(f"{type(error).__name__}: {error}")
        else:
            return graph.replay
        finally:
            current.wait_stream(stream)
        _release(graph, pool, device)
        raise failure


def _with_causes(error: BaseException | None) -> list[BaseException]:
    """The error and those it replaced, latest first; empties their tracebacks, whose variables hold memory."""
    errors = []
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        errors.append(error)
        error = error.__context__
    return errors


def _release(graph: "torch.cuda.CUDAGraph", pool: tuple[int, int], device: torch.device) -> None:
    """Undoes what a failed recording leaves in PyTorch's allocator: up to 2.11 it believes that the recording goes on,
    and then refuses to free any memory; up to 2.14 it keeps the recording's memory for ever (pytorch#180395, #190348).
    """
    # the name up to 2.7, then the present one
    end = getattr(torch._C, "_cuda_endAllocateCurrentStreamToPool", None) or torch._C._cuda_endAllocateToPool
    with contextlib.suppress(RuntimeError):  # it has ended by itself, as it should
        end(device.index, pool)
    graph.reset()
    torch.cuda.empty_cache()
    ours = [part for part in torch.cuda.memory_snapshot() if tuple(part["segment_pool_id"]) == tuple(pool)]
    if ours and not any(part["active_size"] for part in ours):
        torch._C._cuda_releasePool(device.index, pool)
        torch.cuda.empty_cache()


@functools.cache
def _recording_stream(device: torch.device) -> "torch.cuda.Stream":
    """One capture stream per device: cuBLAS allocates a workspace per stream."""
    return torch.cuda.Stream(device)
