"""Fake devices notice what a GPU would: mixed devices, waiting, wrong order, layout copies, memory, launches."""

import threading

import pytest
import torch
import torch.nn.functional as F

from benchmarks import fake_device
from benchmarks.fake_device import FakeDevice

pytestmark = pytest.mark.skipif(bool(fake_device.why_not()), reason=str(fake_device.why_not()))


@pytest.fixture(params=["cuda:0", "cuda:1"])
def device(request):
    return torch.device(request.param)


def names(gpu):
    return [operation.name for operation in gpu.operations]


def test_nothing_is_left_behind():
    with FakeDevice():
        assert torch.cuda.device_count() == 2
    assert torch.cuda.device_count() == 0 or torch.cuda.is_available()
    if not torch.cuda.is_available():
        with pytest.raises((RuntimeError, AssertionError)):
            torch.zeros(1, device="cuda:0")


def test_tensors_keep_device_precision_and_shape(device):
    with FakeDevice() as gpu:
        x = torch.rand(2, 3).to(device, torch.float16)
        y = F.linear(x, torch.ones(4, 3, device=device, dtype=torch.float16))
        assert (y.device, y.dtype, y.shape) == (device, torch.float16, (2, 4))
        assert (gpu.operations[-1].flops, gpu.operations[-1].kind) == (2 * 2 * 3 * 4, "matmul")
        assert (gpu.operations[-1].bytes_read, gpu.operations[-1].bytes_written) == (2 * (2 * 3 + 4 * 3), 2 * 2 * 4)


def test_devices_do_not_mix():
    with FakeDevice():
        here, there = torch.ones(3, device="cuda:0"), torch.ones(3, device="cuda:1")
        for other in (there, torch.ones(3)):
            with pytest.raises(RuntimeError, match="device"):
                here + other
        assert (here + torch.tensor(2.0)).device == here.device, "a number on the CPU goes with any device"


@pytest.mark.parametrize("wait", [lambda x: x.item(), lambda x: bool(x > 0), lambda x: x.cpu(), lambda x: x.tolist()])
def test_waiting_for_the_device_is_logged(wait, device):
    with FakeDevice() as gpu:
        wait(torch.ones((), device=device))
        assert [sync.device for sync in gpu.syncs] == [device]


def test_a_copy_is_read_after_it_has_landed(device):
    def copied(event_on):
        with FakeDevice() as gpu:
            host = torch.empty(3, pin_memory=True)
            host.copy_(torch.ones(3, device=device), non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(event_on))
            event.synchronize()
            host + 1
            assert not gpu.syncs
            return gpu.faults

    other = torch.device("cuda", 1 - device.index)
    assert copied(device) == []
    assert len(copied(other)) == 1


def test_streams_wait_for_each_other(device):
    def used(waits):
        with FakeDevice() as gpu:
            x = torch.ones(3, device=device)
            side = torch.cuda.Stream(device)
            if waits:
                side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                x + 1
            return gpu.faults

    assert used(True) == []
    assert len(used(False)) == 1


def test_layouts_are_copied_as_cudnn_does():
    with FakeDevice() as gpu:
        x = torch.empty(1, 8, 4, 4, device="cuda:0")
        weight = torch.empty(8, 8, 3, 3, device="cuda:0").to(memory_format=torch.channels_last)
        gpu.clear()
        y = F.conv2d(x, weight, torch.empty(8, device="cuda:0"), padding=1)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert names(gpu) == ["layout copy of a convolution's input", "convolution", "bias of a convolution"]
        assert gpu.operations[1].flops == 2 * 8 * 8 * 9 * 4 * 4


def test_a_map_is_doubled_in_one_kernel():
    with FakeDevice() as gpu, torch.inference_mode():
        x = torch.empty(1, 8, 4, 4, device="cuda:0", dtype=torch.float16)
        for how in ({"scale_factor": 2}, {"size": (8, 8)}):
            y = F.interpolate(x, mode="nearest", **how)
            assert (y.shape, y.dtype, names(gpu)) == ((1, 8, 8, 8), torch.float16, ["upsample_nearest2d"])
            gpu.clear()


def test_memory_that_is_alive():
    with FakeDevice() as gpu:
        x = torch.ones(1000, device="cuda:0")
        assert gpu.live == 4096, "rounded up as PyTorch's allocator does"
        y = x + 1
        del y, x
        assert (gpu.live, gpu.peak) == (0, 8192)


def test_stages_follow_modules():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    with FakeDevice() as gpu:
        gpu.follow(model, {"0": "linear"})
        with torch.inference_mode():
            model.to("cuda:0")
            gpu.clear()
            with gpu.stage("rest"):
                model(torch.ones(1, 2, device="cuda:0"))
        assert {operation.stage for operation in gpu.operations} == {"linear", "rest"}


def test_a_graph_replays_without_launches():
    with FakeDevice() as gpu:
        x = torch.ones(3, device="cuda:0")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            x.add_(1).mul_(2)
            with pytest.raises(RuntimeError, match="capturing"):
                x.sum().item()
        gpu.clear()
        graph.replay()
        assert names(gpu)[:2] == ["add_", "mul_"]
        assert [operation.replayed for operation in gpu.operations][:2] == [False, True]


def test_triton_runs_on_the_current_device(device):
    pytest.importorskip("triton")
    from imtalker.models.backend import attend_and_match

    with FakeDevice() as gpu, torch.inference_mode():
        q = torch.ones(2, 2, 16, 16, device=device)
        with torch.cuda.device(device):
            output, match = attend_and_match(q, q[:1], q[:1])
        assert (output.shape, match.shape) == (q.shape, (2, 16))
        assert [o.kind for o in gpu.operations[-2:]] == ["triton", "triton"]
        assert gpu.operations[-1].device == device


def test_repetition_is_one_kernel_in_the_same_precision():
    with FakeDevice() as gpu:
        x = torch.ones(1, 2, 3, 3, device="cuda:0", dtype=torch.float16)
        gpu.clear()
        with torch.inference_mode():
            y = F.interpolate(x, scale_factor=2, mode="nearest")
        assert (y.shape, y.dtype, names(gpu)) == ((1, 2, 6, 6), torch.float16, ["upsample_nearest2d"])


def test_each_thread_has_its_own_current_device_and_stream():
    seen = []

    def other():
        with gpu.in_thread():
            seen.append((torch.cuda.current_device(), torch.ones(2, device="cuda:1").device.index))
            torch.cuda.set_device(1)

    with FakeDevice() as gpu, torch.cuda.stream(torch.cuda.Stream("cuda:0")):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert torch.cuda.current_device() == 0
        assert torch.cuda.current_stream() != torch.cuda.default_stream()
    assert seen == [(0, 1)]
