"""Fake CUDA devices: runs models on `cuda:0` and `cuda:1` without a GPU or arithmetic, and logs what a GPU would do.

    with FakeDevice() as gpu:
        renderer.to("cuda:1", torch.float16)
        with gpu.stage("render"):
            renderer.render(source, motion)
    gpu.operations, gpu.syncs, gpu.transfers, gpu.faults, gpu.peak

Tensors on a CUDA device are PyTorch's FakeTensors: shapes, strides, precisions and devices without values. Tensors on
the CPU stay real. Weights that were moved to a device have lost their values when they come back. What is copied from
a device holds zeros; a number that is read from one is 0, and a truth value True, unless `answer` says otherwise.
Mixing devices raises, as it does on a GPU. Works on a CPU build of PyTorch and without a compiler. Streams, events,
graphs, pinned memory and Triton's launches: benchmarks/fake_cuda.py.
"""

import ctypes
import math
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from imtalker.errors import InputError

from .fake_cuda import StandIns

aten = torch.ops.aten
ROOT = Path(__file__).parents[1]  # as the engine is imported, not resolved
ALLOCATION = 512  # bytes that PyTorch's allocator rounds up to

# return no new memory, or memory that nothing has written yet
FREE = {"detach", "alias", "lift_fresh", "_unsafe_view", "_reshape_alias", "set_", "resize_", "empty", "empty_like"}
FREE |= {"empty_strided", "new_empty", "new_empty_strided", "is_same_size", "unbind"}
SYNCHRONISING = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim"}
SYNCHRONISING |= {"unique_consecutive", "equal", "repeat_interleave"}
GATHERING = {"index", "_unsafe_index", "gather", "index_select", "embedding"}  # read what they return, not all
COPYING = GATHERING | {"clone", "_to_copy", "copy_", "cat", "stack", "constant_pad_nd", "roll", "repeat", "fill_"}
NEEDS_ROWS = {"native_layer_norm", "_softmax", "_log_softmax"}  # copy an input that is not contiguous


@dataclass
class Operation:
    """What one kernel does. Inputs and outputs are (shape, precision, device) of each tensor."""

    name: str
    stage: str
    source: str  # file:line of ours that called for it
    inputs: list[tuple]
    outputs: list[tuple]
    bytes_read: int
    bytes_written: int
    flops: int = 0
    # elementwise, reduction, matmul, convolution, depthwise, grouped, attention, copy, layout, transfer or triton
    kind: str = "elementwise"
    device: torch.device | None = None
    stream: object = None
    replayed: bool = False  # by a graph: needs no launch of its own
    details: dict = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return self.bytes_read + self.bytes_written

    @property
    def precision(self) -> torch.dtype:
        """Of the arithmetic: the first input's, or the output's."""
        return (self.inputs or self.outputs)[0][1]


@dataclass(frozen=True)
class Sync:
    """The CPU waits for a device."""

    name: str
    stage: str
    source: str
    device: torch.device


@dataclass(frozen=True)
class Transfer:
    """A copy between the computer and a device, or between devices."""

    source_device: torch.device
    target_device: torch.device
    bytes: int
    non_blocking: bool
    pinned: bool
    stage: str
    source: str


def why_not() -> str | None:
    """Why fake devices cannot be had here, in a sentence; None if they can."""
    try:
        _device_guards()
    except (OSError, ValueError, InputError) as error:
        return f"This build of PyTorch takes no fake CUDA devices: {error}."
    return None


def _device_guards() -> "ctypes.Array":
    """PyTorch's table of what switches devices, one entry per type: the CPU's is 0, CUDA's 1."""
    folder = Path(torch.__file__).parent / "lib"
    library = next((path for path in sorted(folder.glob("*c10.*")) if path.suffix in (".so", ".dylib")), None)
    if library is None:
        raise InputError("its libc10 was not found (this works on Linux and macOS)")
    count = 2
    return (ctypes.c_void_p * count).in_dll(ctypes.CDLL(str(library)), "_ZN3c104impl26device_guard_impl_registryE")


def read_bytes(tensor: Tensor) -> int:
    """Bytes that reading a tensor once touches: expanded dimensions count once."""
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride()) if stride or size == 1)
    return tensor.element_size() * math.prod(sizes)


def described(tensors) -> list[tuple]:
    return [(tuple(t.shape), t.dtype, t.device) for t in tensors]


def _apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """nn.Module._apply, with new parameters: a real one cannot become fake, nor a fake one real."""
    for child in module.children() if recurse else ():
        child._apply(function)
    with torch.no_grad():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(function(value), value.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = function(value)
    return module


class _Dispatch(TorchDispatchMode):
    """Hands every operation of PyTorch to a FakeDevice."""

    def __init__(self, owner: "FakeDevice"):
        super().__init__()
        self.owner = owner

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        with self.owner.lock:
            return self.owner.dispatch(self, func, args, kwargs or {})


def cudnn_layout(x: Tensor, weight: Tensor) -> torch.memory_format:
    """The layout in which cuDNN convolves: channels last if the input or the weight is."""
    if x.ndim == 4 and torch.channels_last in map(torch._prims_common.suggest_memory_format, (x, weight)):
        return torch.channels_last
    return torch.contiguous_format


class FakeDevice:
    """See the module. A context; not to be entered twice.

    devices: how many GPUs there are. answer: the value of a number that is read from a device. watched: folders whose
    lines are named as the source of an operation, besides this repository's. free: bytes free on each device.
    """

    def __init__(
        self,
        devices: int = 2,
        answer: Callable[[Tensor], object] | None = None,
        watched: tuple[str | Path, ...] = (),
        free: int = 60 << 30,
    ):
        self.devices, self.free = devices, free
        self.answer = answer or (lambda tensor: tensor.dtype == torch.bool or tensor.dtype.is_floating_point * 0.0)
        self.watched = tuple(str(ROOT / name) for name in ("imtalker", "nodes")) + tuple(map(str, watched))
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.lock = threading.RLock()  # FakeTensorMode is for one thread at a time
        self.clear()
        self._stage = ""
        self._live: dict[int, int] = {}
        self.live = self.peak = 0

    def clear(self) -> None:
        """Empties the log; what is alive stays alive."""
        self.operations: list[Operation] = []
        self.syncs: list[Sync] = []
        self.transfers: list[Transfer] = []
        self.faults: list[str] = []  # what would read wrong memory on a GPU, or run on the wrong device

    def __enter__(self):
        if reason := why_not():
            raise InputError(reason)
        with ExitStack() as stack:
            if not torch.cuda.is_available():
                guards = _device_guards()
                before = guards[1]
                guards[1] = guards[0]  # the CPU's does nothing; without one, PyTorch refuses tensors of CUDA
                stack.callback(guards.__setitem__, 1, before)
            stack.enter_context(mock.patch.object(nn.Module, "_apply", _apply))
            stack.enter_context(warnings.catch_warnings())
            # a fake tensor's address is 0
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
            self.cuda = stack.enter_context(StandIns(self))
            stack.enter_context(_Dispatch(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def in_thread(self) -> TorchDispatchMode:
        """A context for threads other than the one that entered this: each chooses for itself, as on a real device."""
        return _Dispatch(self)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Operations inside belong to this stage, unless to one within."""
        before, self._stage = self._stage, name
        try:
            yield
        finally:
            self._stage = before

    def follow(self, model: nn.Module, stages: dict[str, str]) -> None:
        """Names the stage of each given submodule while it runs. Stays on the model."""
        for name, stage in stages.items():
            module, before = model.get_submodule(name), []

            def enter(*_, stage=stage, before=before):
                before.append(self._stage)
                self._stage = stage

            def leave(*_, before=before):
                self._stage = before.pop()

            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave, always_call=True)

    # what PyTorch calls

    def dispatch(self, mode: TorchDispatchMode, func, args: tuple, kwargs: dict):
        """Runs one operation: on the CPU as it is, on a device without values."""
        if func.namespace == "prim":  # device, layout: nothing runs
            return func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        args, kwargs = tree_map_only(torch.device, self._numbered, (args, kwargs))
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not any(isinstance(x, FakeTensor) or (isinstance(x, torch.device) and x.type == "cuda") for x in leaves):
            return self._on_cpu(func, name, tensors, args, kwargs)
        if name in SYNCHRONISING:
            self.sync(name, next(t.device for t in tensors if isinstance(t, FakeTensor)))
        if name in ("_local_scalar_dense", "item", "is_nonzero"):
            return self.answer(args[0])
        if name in ("_to_copy", "copy_"):
            moved = self._transfer(func, name, args, kwargs)
            if moved is not None:
                return moved
        if name == "upsample_nearest2d":
            return self._nearest(*args, **kwargs)
        if name == "scaled_dot_product_attention":
            return self._attention(*args, **kwargs)
        if name in ("is_pinned", "_pin_memory", "pin_memory"):
            return False if name == "is_pinned" else args[0]
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with mode:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        with self.fake:
            result = func(*args, **kwargs)
            if name == "convolution" and result.ndim == 4:  # cuDNN's choice, which FakeTensor does not make
                result = torch.empty_like(result, memory_format=cudnn_layout(args[0], args[1]))
        self._log(func, name, args, kwargs, tensors, result)
        return result

    def _numbered(self, device: torch.device) -> torch.device:
        """ "cuda" is the current device."""
        return torch.device("cuda", self.cuda.device) if device.type == "cuda" and device.index is None else device

    def _on_cpu(self, func, name: str, tensors: list[Tensor], args: tuple, kwargs: dict):
        """Real work on the CPU; pinned memory is ordinary memory that is remembered."""
        for tensor in tensors:
            self.cuda.read_on_cpu(tensor, self.source())
        if name in ("is_pinned", "pin_memory", "_pin_memory"):
            return self.cuda.is_pinned(args[0]) if name == "is_pinned" else self.cuda.pin(args[0].clone())
        pin = kwargs.get("pin_memory")
        result = func(*args, **(kwargs | {"pin_memory": False} if pin else kwargs))
        return self.cuda.pin(result) if pin else result

    def _transfer(self, func, name: str, args: tuple, kwargs: dict) -> Tensor | None:
        """The result of a copy that leaves or reaches a device; None if it stays on one."""
        if name == "_to_copy":
            origin, target = args[0], kwargs.get("device") or args[0].device
            target, non_blocking = torch.device(target), kwargs.get("non_blocking", False)
        else:
            origin, target = args[1], args[0].device
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        if origin.device == target or (origin.device.type == "cpu" and not origin.ndim and name == "copy_"):
            return None
        on_cpu = (
            args[0] if name == "copy_" and target.type == "cpu" else origin if origin.device.type == "cpu" else None
        )
        device = origin.device if origin.is_cuda else target
        pinned = on_cpu is not None and self.cuda.is_pinned(on_cpu)
        if target.type == "cpu":
            with torch.utils._python_dispatch._disable_current_modes():
                if name == "copy_":
                    result = args[0].zero_()
                else:
                    result = torch.zeros(origin.shape, dtype=kwargs.get("dtype") or origin.dtype)
            if non_blocking and pinned:
                self.cuda.lands(result, device)
            else:
                self.sync("copy to the CPU", device)
        else:
            with self.fake:
                result = func(*args, **kwargs)
        size = origin.numel() * min(origin.element_size(), result.element_size())
        self.transfers.append(
            Transfer(origin.device, target, size, bool(non_blocking), pinned, self._stage, self.source())
        )
        self.add(
            "copy", [origin], [result], kind="transfer", read=size, written=0, device=device, details={"pinned": pinned}
        )
        return result

    def _nearest(self, x: Tensor, size: list[int] | None, scales: list[float] | float | None = None, *_) -> Tensor:
        """One kernel, in the input's precision; FakeTensor would take it apart, in float32."""
        size = size or [int(side * scale) for side, scale in zip(x.shape[2:], scales)]
        layout = torch._prims_common.suggest_memory_format(x)
        with self.fake:
            result = torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=layout)
        self.add("upsample_nearest2d", [x], [result], kind="copy")
        return result

    def _attention(self, q, k, v, mask=None, dropout=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
        """Fused attention as CUDA runs it: flash at half precision without a mask, else memory-efficient."""
        for tensor in (q, k, v):
            if tensor.stride(-1) != 1:
                self.add("layout copy of attention's input", [tensor], [tensor], kind="layout")
        batch, heads, count, width = q.shape
        columns = v.shape[-1]
        strides = (count * heads * columns, columns, heads * columns, 1)
        with self.fake:
            result = torch.empty_strided((batch, heads, count, columns), strides, dtype=q.dtype, device=q.device)
            result = result + 0 * (q[..., :1] + k[..., :1, :1] + v[..., :1, :1])  # devices and precisions must agree
        flash = q.dtype in (torch.float16, torch.bfloat16) and mask is None
        inputs = [q, k, v] + ([mask] if mask is not None else [])
        logits = batch * heads * count * k.shape[2]
        depth = max(width, 32 if q.element_size() == 2 else 16)  # fused kernels pad narrower heads
        name = "flash attention" if flash else "efficient attention"
        details = {"logits": logits}
        self.add(name, inputs, [result], 2 * logits * (depth + max(columns, depth)), "attention", details=details)
        return result

    def _log(self, func, name: str, args: tuple, kwargs: dict, tensors: list[Tensor], result) -> None:
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, FakeTensor) and leaf.is_cuda]
        if func.is_view or name in FREE or not (outputs or any(t.is_cuda for t in tensors)):
            for output in outputs:
                self._alive(output)
            return
        tensors = [t for t in tensors if t.is_cuda]
        flops, kind = 0, "copy" if name in COPYING else "elementwise"
        if func._overloadpacket in flop_registry:
            flops = flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
            kind = "matmul"
        if name in NEEDS_ROWS and not args[0].is_contiguous():
            self.add("layout copy of the input", [args[0]], [args[0]], kind="layout")
        if kind == "matmul" and name.startswith(("convolution", "_convolution", "cudnn_convolution")):
            self._convolution(name, args, outputs, flops)
            return
        if kind == "matmul":
            for tensor in tensors:
                if tensor.ndim > 1 and 1 not in tensor.stride()[-2:] and min(tensor.shape[-2:]) > 1:
                    self.add("layout copy of a matrix", [tensor], [tensor], kind="layout")
        elif torch.Tag.reduction in func.tags or name in NEEDS_ROWS or name in ("max", "argmax", "mean", "sum", "topk"):
            kind = "reduction"
        if name in GATHERING:
            read = sum(map(read_bytes, outputs)) + sum(read_bytes(t) for t in tensors if t.dtype == torch.int64)
            self.add(name, tensors, outputs, flops, kind, read=read)
        else:
            self.add(name, [args[1]] if name == "copy_" else tensors, outputs, flops, kind)

    def _convolution(self, name: str, args: tuple, outputs: list[Tensor], flops: int) -> None:
        """cuDNN: every tensor in one layout, the bias as a kernel of its own."""
        if "backward" in name:
            self.add(name, [t for t in args[:3] if isinstance(t, Tensor)], outputs, flops, "convolution")
            return
        x, weight, bias = args[:3]
        layout = cudnn_layout(x, weight)
        for what, tensor in (("input", x), ("weight", weight)):
            if not tensor.is_contiguous(memory_format=layout):
                self.add(f"layout copy of a convolution's {what}", [tensor], [tensor], kind="layout")
        groups = args[8]
        kind = "depthwise" if groups > 1 and groups == x.shape[1] else "grouped" if groups > 1 else "convolution"
        details = {"kernel": tuple(weight.shape), "groups": groups, "layout": str(layout)}
        self.add("convolution", [x, weight], outputs, flops, kind, details=details)
        if bias is not None:
            self.add("bias of a convolution", [*outputs, bias], outputs)

    # the log

    def sync(self, name: str, device: torch.device) -> None:
        """The CPU waits for all that was asked of a device."""
        self.syncs.append(Sync(name, self._stage, self.source(), device))
        self.cuda.waits(device)

    def add(
        self,
        name: str,
        inputs: list[Tensor],
        outputs: list[Tensor],
        flops: int = 0,
        kind: str = "elementwise",
        *,
        read: int | None = None,
        written: int | None = None,
        device: torch.device | None = None,
        details: dict | None = None,
    ) -> None:
        """Logs a kernel that reads and writes each of these tensors once, unless `read` or `written` says otherwise."""
        on_device = [t for t in (*inputs, *outputs) if t.is_cuda]
        device = device or on_device[0].device
        read = sum(read_bytes(t) for t in inputs if t.is_cuda) if read is None else read
        written = sum(read_bytes(t) for t in outputs if t.is_cuda) if written is None else written
        row = Operation(
            name, self._stage, self.source(), described(inputs), described(outputs), read, written, flops, kind
        )
        row.device, row.details = device, details or {}
        row.stream = self.cuda.ran(device, inputs, outputs, row)
        self.operations.append(row)
        for output in outputs:
            if output.is_cuda:
                self._alive(output)

    def source(self) -> str:
        """The innermost line of ours that is being run."""
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(self.watched):
                return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            frame = frame.f_back
        return ""

    def _alive(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        self._live[key] = -(-storage.nbytes() // ALLOCATION) * ALLOCATION
        self.live += self._live[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.live -= self._live.pop(key, 0)
