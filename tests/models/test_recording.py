"""Replayed steps equal plain ones, whatever happens to the weights; a tape on the CPU replaces CUDA's graphs."""

import copy
import logging
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_generator
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.fake_device import FakeDevice, why_not
from imtalker import AudioFeatures
from imtalker.models import backend, capture


class Tape(TorchDispatchMode):
    """Like a graph, it records operations with the memory they read and write, and no Python."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.steps.append((operation, args, kwargs or {}, result))
        return result

    def replay(self):
        for operation, args, kwargs, result in self.steps:
            if operation._schema.is_mutable:
                operation(*args, **kwargs)
                continue
            outputs = [result] if isinstance(result, torch.Tensor) else result
            memory = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
            if any(x.untyped_storage().data_ptr() in memory for x in outputs):
                continue  # a view shows what its base holds
            again = operation(*args, **kwargs)
            for old, new in zip(outputs, [again] if isinstance(again, torch.Tensor) else again):
                old.copy_(new)


class Recorder:
    """Replaces `backend.recorder`."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, device):
        return None if torch.is_grad_enabled() else self.record

    def record(self, work):
        work()
        with Tape() as tape:
            work()
        self.recorded += 1

        def replay():
            self.replayed += 1
            tape.replay()

        return replay


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(backend, "recorder", recorder)
    return recorder


@pytest.fixture(params=["v1", "v2"])
def generator(request):
    return tiny_generator(request.param)


def sample(generator, frames=230, seed=0, **settings):
    random = torch.Generator().manual_seed(seed)
    audio = AudioFeatures(torch.randn(frames, generator.config.audio.hidden_size, generator=random))
    source = SimpleNamespace(motion=torch.randn(1, 8, generator=random), generation=generator.generation)
    return generator.sample(audio, source, seed=seed, **{"nfe": 4, "joins": "published"} | settings).latents


def plain(generator, **settings):
    """The same without any recording."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "recorder", lambda device: None)
        return sample(generator, **settings)


def test_replays_equal_plain_steps(generator, recorder):
    # five windows each, with different noise, conditions, context and source
    for seed in (0, 1):
        assert torch.equal(sample(generator, seed=seed), plain(generator, seed=seed))
    assert (recorder.recorded, recorder.replayed) == (1, 9)


def test_a_single_window_records_nothing(generator, recorder):
    sample(generator, frames=50)
    assert recorder.recorded == 0


@pytest.mark.parametrize("other", [{"nfe": 3}, {"cfg": 1.0}, {"cfg": 5.0}])
def test_other_settings_are_recorded_again(generator, recorder, other):
    sample(generator)
    assert torch.equal(sample(generator, **other), plain(generator, **other))
    assert recorder.recorded == 2


def moved(generator):
    """Moves each weight to new memory, as ComfyUI does, and overwrites the old."""
    for module in generator.flow.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                kept = tensor.detach().clone()
                setattr(module, name, torch.nn.Parameter(kept) if name in module._parameters else kept)
                tensor.detach().fill_(float("nan") if tensor.is_floating_point() else 0)


def other_weights(generator):
    state = generator.flow.state_dict()
    generator.flow.load_state_dict({name: 0.9 * tensor for name, tensor in state.items()})


def cast(generator):
    generator.to(torch.bfloat16)


@pytest.mark.parametrize("change", [moved, other_weights, cast])
def test_weights_that_changed_are_not_replayed(generator, recorder, change):
    sample(generator)
    with torch.no_grad():
        change(generator)
    assert torch.equal(sample(generator), plain(generator))
    assert recorder.recorded == 2


def test_weights_changed_in_place_take_effect(generator, recorder):
    sample(generator)
    with torch.no_grad():
        generator.flow.head.linear.bias += 1
    assert torch.equal(sample(generator), plain(generator))
    assert recorder.recorded == 1


def test_its_memory_is_freed_when_the_weights_leave_the_device(generator, recorder):
    sample(generator)
    assert generator.flow.recording._replay
    generator.to("cpu")
    assert generator.flow.recording._replay  # where they were
    generator.to("meta")
    assert generator.flow.recording._replay is None
    assert not generator.flow.recording._inputs


def test_a_failing_recorder_leaves_the_plain_way(generator, monkeypatch, caplog):
    attempts = []

    def failing(work):
        attempts.append(work)
        with Tape():
            work()  # spoils what the buffers held
        raise RuntimeError("operation not permitted when stream is capturing")

    expected = plain(generator)
    monkeypatch.setattr(backend, "recorder", lambda device: failing)
    with caplog.at_level(logging.INFO, "imtalker"):
        assert torch.equal(sample(generator), expected)
        assert torch.equal(sample(generator), expected)
    assert len(attempts) == 1
    assert caplog.text.count("cannot be recorded") == 1


def test_results_are_not_overwritten_by_later_replays(generator, recorder):
    sample(generator)
    first = sample(generator)
    kept = first.clone()
    sample(generator, seed=1)
    assert torch.equal(first, kept)


def test_inside_and_outside_of_inference_mode(generator, recorder):
    flow, config = generator.flow, generator.config
    random = torch.Generator().manual_seed(3)
    length = config.context + config.window
    inputs = [torch.randn(n, 8, generator=random) for n in (config.window, config.context, 1, length, length)]

    def velocity(noise, context, reference, condition, other):
        x = torch.cat([context, noise])[None]
        return flow.velocity(x, flow.fixed_input(reference), flow.condition(condition)[None])[0]

    with torch.no_grad():
        expected = velocity(*inputs)
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode, torch.no_grad):
        with mode():
            assert torch.equal(flow.replayed(velocity, inputs, "test"), expected)
    assert recorder.replayed == 3
    inputs[0].requires_grad_()
    assert flow.replayed(velocity, inputs, "test").requires_grad  # under autograd nothing is replayed
    assert recorder.replayed == 3


def test_a_second_thread_does_not_wait(generator, recorder):
    """While one thread replays, another computes plainly and correctly."""
    expected = plain(generator)
    sample(generator)
    found = []
    with generator.flow.recording._lock:
        thread = threading.Thread(target=lambda: found.append(sample(generator)))
        thread.start()
        thread.join(10)
    assert torch.equal(found[0], expected)


def test_copies_record_for_themselves(generator, recorder):
    sample(generator)
    other = copy.deepcopy(generator)
    assert torch.equal(sample(other), plain(generator))
    assert recorder.recorded == 2
    assert other.flow.recording is not generator.flow.recording


def test_the_cpu_records_nothing():
    assert backend.recorder(torch.device("cpu")) is None


class Allocator:
    """What PyTorch's caching allocator knows of recordings, as it behaves in some version when one fails.

    ended: it notices that the recording is over (from 2.12 on). released: it gives the memory back (from 2.15 on).
    """

    def __init__(self, ended, released):
        self.ended, self.released = ended, released
        self.underway, self.pools, self.invalid = set(), {}, False

    def install(self, patch):
        for name in ("graph", "empty_cache", "memory_snapshot"):
            patch.setattr(torch.cuda, name, getattr(self, name))
        patch.setattr(torch._C, "_cuda_endAllocateToPool", self.end, raising=False)
        patch.delattr(torch._C, "_cuda_endAllocateCurrentStreamToPool", raising=False)
        patch.setattr(torch._C, "_cuda_releasePool", self.release, raising=False)

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        assert torch.cuda.current_device() == stream.device.index
        self.underway.add(pool)
        self.pools[pool] = 1
        failed = True
        try:
            yield
            failed = False
        finally:
            if self.ended or not failed:
                self.end(stream.device.index, pool)
            if failed and self.released:
                self.release(stream.device.index, pool)
            if failed:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def end(self, device, pool):
        if pool not in self.underway:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.underway.remove(pool)

    def release(self, device, pool):
        self.pools[pool] -= 1
        assert self.pools[pool] == 0, "released twice"

    def empty_cache(self):
        assert not self.underway, "captures_underway.empty() INTERNAL ASSERT FAILED"
        self.pools = {pool: users for pool, users in self.pools.items() if users}

    def memory_snapshot(self):
        return [{"segment_pool_id": pool, "active_size": 0, "device": 1} for pool in self.pools]


on_fakes = pytest.mark.skipif(bool(why_not()), reason=str(why_not()))


@on_fakes
@pytest.mark.parametrize(("ended", "released"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("full", [True, False])
def test_a_failed_recording_leaves_the_allocator_clean(ended, released, full, monkeypatch):
    allocator, calls = Allocator(ended, released), []

    def work():
        calls.append(torch.cuda.current_stream("cuda:1"))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.") if full else RuntimeError("not permitted")

    with FakeDevice(), torch.inference_mode(), monkeypatch.context() as patch:
        allocator.install(patch)
        before = torch.cuda.current_stream("cuda:1")
        record = backend.recorder(torch.device("cuda:1"))
        # full memory shows as a recording that failed, and is told apart all the same
        with pytest.raises(MemoryError if full else RuntimeError, match="previous error during capture"):
            record(work)
        assert calls[0] is calls[1] is not before
        assert (torch.cuda.current_stream("cuda:1"), torch.cuda.current_device()) == (before, 0)
        assert (allocator.underway, allocator.pools) == (set(), {})
        backend.release_memory(torch.device("cuda:1"))
        calls.extend([None, None])
        assert record(work)
        assert not allocator.underway
    assert len(calls) == 6


def test_full_memory_stops_no_later_recording(generator, monkeypatch, recorder):
    """Once there is room again, steps are recorded."""
    full = True

    def recording(work):
        if full:
            raise MemoryError("OutOfMemoryError: CUDA out of memory.")
        return recorder.record(work)

    monkeypatch.setattr(backend, "recorder", lambda device: recording)
    expected = plain(generator)
    assert torch.equal(sample(generator), expected)
    assert (recorder.recorded, generator.flow.recording._replay) == (0, None)
    full = False
    assert torch.equal(sample(generator), expected)
    assert recorder.recorded == 1


@on_fakes
def test_memory_is_not_given_back_during_a_recording():
    """PyTorch refuses to, with an internal error."""
    returned = threading.Event()

    def release():
        with gpu.in_thread():
            backend.release_memory(torch.device("cuda:1"))
        returned.set()

    with FakeDevice() as gpu, capture.LOCK:
        thread = threading.Thread(target=release)
        thread.start()
        assert not returned.wait(0.2)
    thread.join(10)
    assert returned.is_set()
