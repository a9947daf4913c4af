"""Work that repeats, recorded once and replayed: on CUDA, one launch instead of thousands."""

import copy
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
from torch import Tensor, nn

from . import backend


class Recording:
    """Calls a function of tensors, and replays it from the second call with the same signature on.

    Captured graphs are keyed by their signature: the settings, the inputs' shapes, precisions and device, and the
    weights' addresses. A replay works at the addresses it was recorded with, so a recording is dropped once its weights
    were moved, cast or replaced; weights changed in place take effect. One recording is kept, in its own memory, until
    the signature changes or `forget` is called.

    The function is simply called the first time for each signature, on devices without a `backend.recorder`, while
    another thread replays, and after a recording has failed, unless for want of memory (spec: performance, 8).
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._failed = False
        self._forget()

    def __reduce__(self):
        return Recording, ()  # a copy of a model records for itself

    def run(
        self,
        function: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        weights: Iterable[Tensor],
        settings: Hashable,
    ) -> Tensor:
        """Returns `function(*inputs)`. The function reads only these tensors and `weights`, and changes none.

        settings: everything else that the result depends on.
        """
        record = None if self._failed else backend.recorder(inputs[0].device)
        if record is None or not self._lock.acquire(blocking=False):
            return function(*inputs)
        try:
            signature = (
                settings,
                tuple((x.shape, x.dtype, x.device) for x in inputs),
                tuple((w.data_ptr(), w.dtype) for w in weights),
            )
            if signature != self._signature:
                self._forget()
                result = function(*inputs)
                self._signature, self._result = signature, _buffer(result)
                return result
            if self._replay is None:
                self._inputs = [_buffer(x) for x in inputs]
            for buffer, x in zip(self._inputs, inputs):
                buffer.copy_(x)
            if self._replay is None:
                self._replay = self._record(record, function)
            if self._replay is None:
                self._forget()
                return function(*inputs)
            self._replay()
            return self._result.clone()
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Frees the recording and its memory."""
        with self._lock:
            self._forget()

    def _record(self, record: Callable, function: Callable[..., Tensor]) -> Callable[[], None] | None:
        # the result is ours too: nothing allocated while recording is read afterwards
        inputs, result = self._inputs, self._result
        try:
            return record(lambda: result.copy_(function(*inputs)))
        except Exception as error:  # drivers raise anything; calling the function gives the same result
            self._failed = not backend.is_out_of_memory(error)
            backend.log.info("Steps cannot be recorded on %s (%s): running them one by one.", result.device, error)
            return None

    def _forget(self) -> None:
        self._signature = self._replay = self._result = None
        self._inputs: list[Tensor] = []


class Weights:
    """The parameters and buffers of some modules, faster than asking the modules: a replay takes a few milliseconds."""

    def __init__(self, modules: Iterable[nn.Module]):
        self._modules = list(modules)
        self._owners: list[dict[str, Tensor | None]] = []

    def __deepcopy__(self, memo: dict) -> "Weights":
        return Weights(copy.deepcopy(self._modules, memo))

    def tensors(self) -> list[Tensor]:
        if not self._owners:
            parts = [part for module in self._modules for part in module.modules()]
            self._owners = [owner for part in parts for owner in (part._parameters, part._buffers)]
        return [tensor for owner in self._owners for tensor in owner.values() if tensor is not None]


def _buffer(like: Tensor) -> Tensor:
    """Memory that can be written both inside and outside inference mode; tensors made inside cannot."""
    with torch.inference_mode(False):
        return torch.empty(like.shape, dtype=like.dtype, device=like.device)
