"""What depends on the device: errors of full memory are recognised, on every backend, and others are not."""

import errno

import cv2
import numpy as np
import pytest
import torch

from imtalker import InputError
from imtalker.models.backend import is_out_of_memory


def windows_error(number: int) -> OSError:
    """An OSError as Windows raises it; elsewhere `winerror` is not set by the constructor."""
    error = OSError(errno.EINVAL, "in the language of the system")
    error.winerror = number
    return error


FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"),
    torch.cuda.OutOfMemoryError("HIP out of memory. Tried to allocate 512.00 MiB."),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 3.81 GiB total capacity)"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("HIP error: out of memory\nHIP kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("miopenStatusAllocFailed"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB, other allocations: 1.05 GB)."),
    RuntimeError("Invalid buffer size: 24.00 GiB"),
    RuntimeError("Could not allocate tensor with 1073741824 bytes. There is not enough GPU video memory available!"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to "
        "allocate 4000000000000 bytes."
    ),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"),
    RuntimeError("Failed to allocate private MTLBuffer for size 4294967296"),
    RuntimeError("bad allocation"),  # C++ on Windows
    RuntimeError("std::bad_alloc"),
    RuntimeError("unable to mmap 2158024129 bytes from file <renderer.ckpt>: Cannot allocate memory (12)"),
    cv2.error("OpenCV(4.12.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 96000000 bytes"),
    RuntimeError("Couldn't open shared file mapping: <torch_17268_2911>, error code: <1455>"),
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(np.float32)),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    windows_error(1455),  # "The paging file is too small for this operation to complete"
    windows_error(8),  # "Not enough memory resources are available to process this command"
]
OTHER = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("The MPS framework doesn't support float64."),
    RuntimeError("Expected all tensors to be on the same device"),
    InputError("The wall of frames need 3.0 GB of memory and 1.0 GB are free"),
    cv2.error("OpenCV(4.12.0) resize.cpp:4208: error: (-215:Assertion failed) !ssize.empty() in function 'resize'"),
    RuntimeError("out of resource: shared memory, Required: 131072, Hardware limit: 101376."),
    ValueError("CUDA out of memory"),  # not an error of torch's
    OSError(errno.ENOSPC, "No space left on device"),
    windows_error(112),  # "There is not enough space on the disk"
    KeyboardInterrupt(),
]


def name(error: BaseException) -> str:
    return f"{type(error).__name__} {getattr(error, 'winerror', str(error)[:50])}"


@pytest.mark.parametrize("error", FULL, ids=name)
def test_full_memory_is_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHER, ids=name)
def test_other_errors_are_not_taken_for_full_memory(error):
    assert not is_out_of_memory(error)


def test_a_real_one():
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(found.value)
