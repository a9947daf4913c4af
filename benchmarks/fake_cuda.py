"""Stand-ins for torch.cuda on fake devices: streams, events, graphs, pinned memory and Triton's launches.

They keep the order that a GPU would: an operation on one stream sees what another wrote only after waiting for it, and
the CPU sees a copy only after its event or stream was waited for. What is read too early, or launched on another device
than its tensors, is written to `log.faults`.
"""

import itertools
import math
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import torch
from torch import Tensor

from .kernel_work import KERNEL_WORK


class Stream:
    """Work in order. `seen` says how much of every stream's work is finished before the next operation starts."""

    def __init__(self, device=None, priority=0, **_):
        self.device = _device(device)
        self.done, self.seen = 0, {}

    def moment(self) -> dict:
        return self.seen | {self: self.done}

    def wait_stream(self, other: "Stream") -> None:
        _join(self.seen, other.moment())

    def wait_event(self, event: "Event") -> None:
        _join(self.seen, event.seen)

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        stand_ins().log.sync("stream", self.device)

    def query(self) -> bool:
        return True


class Event:
    def __init__(self, *_, **__):
        self.seen: dict = {}

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or torch.cuda.current_stream()
        self.seen = stream.moment()

    def wait(self, stream: Stream | None = None) -> None:
        (stream or torch.cuda.current_stream()).wait_event(self)

    def synchronize(self) -> None:
        stand_ins().waited(self.seen)

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: "Event") -> float:
        return 0.0


class Graph:
    """Keeps the operations of a capture; a replay logs them again as `replayed`."""

    def __init__(self, *_, **__):
        self.operations: list = []

    def replay(self) -> None:
        stand_ins().replay(self)

    def reset(self) -> None:
        self.operations = []

    def capture_begin(self, *_, **__) -> None:
        stand_ins().capture(self)

    def capture_end(self) -> None:
        stand_ins().capture(None)

    def pool(self) -> tuple:
        return (0, id(self))


_current: list["StandIns"] = []


def stand_ins() -> "StandIns":
    return _current[-1]


def _device(device) -> torch.device:
    if device is None:
        return torch.device("cuda", torch.cuda.current_device())
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if device.index is None else device


def _join(seen: dict, other: dict) -> None:
    for stream, done in other.items():
        seen[stream] = max(seen.get(stream, 0), done)


class _Current(threading.local):
    """The current device and its current streams, which each thread has for itself."""

    def __init__(self):
        self.device, self.streams = 0, {}


class StandIns:
    """Replaces what of torch.cuda the engine uses, while entered. `log` is the FakeDevice."""

    def __init__(self, log):
        self.log = log
        self.now = _Current()
        self.default = {number: None for number in range(log.devices)}
        self.cpu: dict[Stream, int] = {}  # what the CPU has waited for
        self.written: dict[int, tuple] = {}  # storage -> (stream, its count) of the last write
        self.landing: dict[int, tuple] = {}  # CPU memory that a copy is on its way to
        self.pinned: dict[int, int] = {}
        self.capturing: Graph | None = None
        self.capture_stream: Stream | None = None
        self.pools = itertools.count(1)

    def __enter__(self):
        _current.append(self)
        self._stack = ExitStack()
        for number in self.default:
            self.default[number] = Stream(torch.device("cuda", number))
        fakes = {
            "is_available": lambda: False,  # FakeTensorMode asks, to leave drivers alone
            "device_count": lambda: self.log.devices,
            "current_device": lambda: self.device,
            "set_device": self._set_device,
            "device": self._use_device,
            "Stream": Stream,
            "Event": Event,
            "CUDAGraph": Graph,
            "graph": self._graph,
            "stream": self._use_stream,
            "current_stream": lambda device=None: self.stream(_device(device).index),
            "default_stream": lambda device=None: self.default[_device(device).index],
            "set_stream": self._set_stream,
            "synchronize": lambda device=None: self.log.sync("synchronize", _device(device)),
            "is_current_stream_capturing": lambda: self.stream(self.device) is self.capture_stream,
            "graph_pool_handle": lambda: (0, next(self.pools)),
            "memory_snapshot": lambda: [],
            "empty_cache": lambda: None,
            "memory_reserved": lambda device=None: self.log.live,
            "memory_allocated": lambda device=None: self.log.live,
            "max_memory_allocated": lambda device=None: self.log.peak,
            "reset_peak_memory_stats": lambda device=None: setattr(self.log, "peak", self.log.live),
            "mem_get_info": lambda device=None: (self.log.free, self.log.free + self.log.live),
            "get_device_name": lambda device=None: "fake device",
            "get_device_capability": lambda device=None: (8, 9),
            "get_device_properties": lambda device=None: SimpleNamespace(
                name="fake device", major=8, minor=9, multi_processor_count=128, total_memory=self.log.free
            ),
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
        }
        for name, fake in fakes.items():
            self._stack.enter_context(mock.patch.object(torch.cuda, name, fake))
        self._stack.enter_context(mock.patch.object(Tensor, "record_stream", return_value=None))
        self._stack.enter_context(mock.patch.object(Tensor, "is_pinned", lambda tensor, *_: self.is_pinned(tensor)))
        self._stack.enter_context(mock.patch.object(Tensor, "pin_memory", lambda tensor, *_: self.pin(tensor.clone())))
        self._triton()
        return self

    def __exit__(self, *error):
        _current.remove(self)
        return self._stack.__exit__(*error)

    @property
    def device(self) -> int:
        return self.now.device

    @device.setter
    def device(self, number: int) -> None:
        self.now.device = number

    def stream(self, number: int) -> Stream:
        """A device's current stream."""
        return self.now.streams.get(number, self.default[number])

    # order

    def ran(self, device: torch.device, inputs: list[Tensor], outputs: list[Tensor], row) -> Stream:
        """Puts an operation on its device's current stream; returns the stream."""
        stream = self.stream(device.index)
        for tensor in inputs:
            if tensor.is_cuda and (write := self.written.get(_key(tensor))):
                writer, number = write
                if writer is not stream and stream.seen.get(writer, 0) < number:
                    self.fault(f"{row.name} reads what another stream may still be writing", row)
        stream.done += 1
        _join(stream.seen, self.cpu)
        for tensor in outputs:
            if tensor.is_cuda:
                self.written[_key(tensor)] = stream, stream.done
        if stream is self.capture_stream:
            self.capturing.operations.append(row)
        return stream

    def lands(self, tensor: Tensor, device: torch.device) -> None:
        """A copy into pinned memory has been asked for; it is the next operation on the device's stream."""
        stream = self.stream(device.index)
        self.landing[_key(tensor)] = stream, stream.done + 1

    def read_on_cpu(self, tensor: Tensor, source: str) -> None:
        if not self.landing:
            return
        key = _key(tensor)
        if key in self.landing:
            stream, number = self.landing[key]
            if self.cpu.get(stream, 0) < number:
                self.log.faults.append(f"{source}: memory is used before its copy from {stream.device} has landed")
            del self.landing[key]

    def waits(self, device: torch.device) -> None:
        """The CPU waits for a whole device."""
        if self.capture_stream is not None and self.stream(device.index) is self.capture_stream:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        for stream in {self.stream(device.index), self.default[device.index], *self.cpu, *self._writers()}:
            if stream.device == device:
                self.waited(stream.moment())

    def waited(self, seen: dict) -> None:
        _join(self.cpu, seen)

    def _writers(self) -> set[Stream]:
        return {stream for stream, _ in (*self.written.values(), *self.landing.values())}

    def fault(self, text: str, row) -> None:
        self.log.faults.append(f"{row.source}: {text}")

    # devices, streams and graphs

    def _set_device(self, device) -> None:
        self.device = _device(device).index

    def _set_stream(self, stream: Stream) -> None:
        self.device = stream.device.index
        self.now.streams[self.device] = stream

    @contextmanager
    def _use_device(self, device):
        before, number = self.device, -1 if device is None else _device(device).index
        self.device = before if number < 0 else number
        try:
            yield
        finally:
            self.device = before

    @contextmanager
    def _use_stream(self, stream: Stream | None):
        if stream is None:
            yield
            return
        device, number = self.device, stream.device.index
        before = self.stream(number)
        self._set_stream(stream)
        try:
            yield
        finally:
            self.now.streams[number], self.device = before, device

    @contextmanager
    def _graph(self, graph: Graph, pool=None, stream: Stream | None = None, capture_error_mode: str = "global"):
        self.log.sync("start of a capture", torch.device("cuda", self.device))
        with self._use_stream(stream or Stream()):
            graph.capture_begin()
            try:
                yield
            finally:
                graph.capture_end()

    def capture(self, graph: Graph | None) -> None:
        if graph is not None and self.capturing is not None:
            raise RuntimeError("CUDA error: two captures at once")
        self.capturing, self.capture_stream = graph, graph and self.stream(self.device)

    def replay(self, graph: Graph) -> None:
        stream = self.stream(self.device)
        stream.done += 1
        for number, row in enumerate(graph.operations):
            self.log.operations.append(replace(row, stream=stream, replayed=number > 0))

    # pinned memory

    def pin(self, tensor: Tensor) -> Tensor:
        self.pinned[_key(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        return _key(tensor) in self.pinned

    # Triton

    def _triton(self) -> None:
        try:
            from triton.runtime.jit import JITFunction
        except ImportError:
            return

        def run(function, *arguments, grid, warmup=False, **options):
            self.launched(function, arguments, grid, options)

        self._stack.enter_context(mock.patch.object(JITFunction, "run", run))

    def launched(self, function, arguments: tuple, grid, options: dict) -> None:
        """Logs a launch of a Triton kernel; its arguments' bytes count once each."""
        named = dict(zip(function.arg_names, arguments)) | options
        tensors = [value for value in named.values() if isinstance(value, Tensor)]
        device = tensors[0].device
        if device.index != self.device:
            self.log.faults.append(
                f"{self.log.source()}: {function.__name__} runs on cuda:{self.device}, its tensors are on {device}"
            )
        grid = grid(named) if callable(grid) else grid
        work = KERNEL_WORK.get(function.__name__, lambda named, grid: {})(named, grid)
        self.log.add(
            function.__name__, tensors, [], work.get("flops", 0), "triton", device=device,
            read=work.get("bytes_read"), written=work.get("bytes_written"),
            details={"programs": math.prod(grid), **work},
        )  # fmt: skip


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
