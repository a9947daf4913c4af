"""Work that is always the same, recorded once and replayed: on CUDA one launch in the place of thousands."""

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
from torch import Tensor

from . import backend


class Recording:
    """Calls a function of tensors; from the second call of a kind on, what it did is replayed (spec: performance, 8).

    A kind is the settings, the inputs' shapes, precisions and device, and the weights' addresses: a replay works at the
    addresses of its recording, so that one whose weights were moved, cast or replaced is thrown away. Weights changed
    in place are seen by a replay. One recording is kept, in memory of its own, until another kind comes, or `forget`.

    The first call of a kind is plain, and so are all of them where `backend.recorder` has nothing for the device, while
    another thread replays, and after a recording has failed once.
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
        """What `function(*inputs)` gives; it reads no other tensors than these and `weights`, and changes none.

        settings: all else that the function's work depends on.
        """
        record = None if self._failed else backend.recorder(inputs[0].device)
        if record is None or not self._lock.acquire(blocking=False):
            return function(*inputs)
        try:
            kind = (
                settings,
                tuple((x.shape, x.dtype, x.device) for x in inputs),
                tuple((w.data_ptr(), w.dtype) for w in weights),
            )
            if kind != self._kind:
                self._forget()
                result = function(*inputs)
                self._kind, self._result = kind, _buffer(result)
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
        # the result's memory is ours as well: nothing that was made while recording is read afterwards
        inputs, result = self._inputs, self._result
        try:
            return record(lambda: result.copy_(function(*inputs)))
        except Exception as error:  # whatever the driver says, the plain way gives the same result
            self._failed = True
            backend.log.info("Steps cannot be recorded on %s (%s): they run one by one.", result.device, error)
            return None

    def _forget(self) -> None:
        self._kind = self._replay = self._result = None
        self._inputs: list[Tensor] = []


def _buffer(like: Tensor) -> Tensor:
    """Memory that can be written inside and outside of inference mode, unlike what is made inside."""
    with torch.inference_mode(False):
        return torch.empty(like.shape, dtype=like.dtype, device=like.device)
