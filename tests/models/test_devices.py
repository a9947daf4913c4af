"""The whole engine on fake GPUs: nothing mixes devices, waits, reads too early or leaves half precision unseen."""

import importlib.util
import logging
import math
import threading
import time

import pytest
import torch
from tiny import tiny_generator, tiny_renderer

from benchmarks import cards, fake_cuda, fake_device
from benchmarks.fake_device import FakeDevice
from imtalker import Control, InputError, Motion, Session
from imtalker.models import backend
from imtalker.models.config import PUBLISHED
from imtalker.models.folding import fold
from imtalker.models.renderer import Renderer
from imtalker.train import forward

pytestmark = [
    pytest.mark.skipif(bool(fake_device.why_not()), reason=str(fake_device.why_not())),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
]

# the other device is always the current one
CASES = [
    ("v1", torch.float32, "cuda:1"),
    ("v1", torch.float16, "cuda:0"),
    ("v1", torch.bfloat16, "cuda:1"),
    ("v2", torch.float32, "cuda:0"),
    ("v2", torch.float16, "cuda:1"),
    ("v2", torch.bfloat16, "cuda:0"),
]

# The files whose lines may make the CPU wait for a device, by stage; while rendering and training, none (the second
# block of one or two frames is recorded, which waits once).
WAITS = {
    "source": {"precision.py"},  # once for each source
    "encode motion": {"renderer.py", "fingerprint.py"},  # its latents are wanted on the CPU; once for all: the weights
    "audio": {"audio_encoder.py", "generator.py"},  # weights for the first pass; the features are wanted on the CPU
    # each window; each recording; silence, encoded first; once for all: the weights
    "sample": {"generator.py", "capture.py", "audio_encoder.py", "fingerprint.py"},
    "session": {"audio_encoder.py", "generator.py", "motion_stream.py"},
}
# Where half precision may become float32 on the device, with the most values that may.
PROMOTIONS = {
    "styles.py": 2 * 32 * 32,  # styles and their sums, per sample and channel; not maps
    "flow.py": 2 * 128 * 2,  # the angles of times
    "sampling.py": 16,  # times
    "matching.py": 1 << 20,  # logits and attended values where Triton does not run
    "precision.py": 64,  # sums that show NaN
    "renderer.py": 1 << 20,  # frames, and latents for the CPU
    "motion_stream.py": 1 << 12,  # latents for the CPU
    "generator.py": 1 << 12,
    "backend.py": 1 << 20,  # the copies of such
}


def use(gpu, renderer, generator, device):
    """Everything the engine does on a device, each as a stage; returns what it gave."""
    size = renderer.config.input_size
    with gpu.stage("source"):
        source = renderer.encode_source(torch.rand(1, size + 8, size + 8, 3))
    with gpu.stage("encode motion"):
        encoded = renderer.encode_motion(torch.rand(2, size, size, 3), batch_size=1)
    with gpu.stage("render"):
        latents = torch.rand(4, renderer.config.motion_size)
        frames = renderer.render(source, Motion(latents, generation=renderer.generation), batch_size=3)
    with gpu.stage("audio"):
        speech = generator.encode_audio(torch.rand(1, 2 * 16000 + 9000), 16000)
    control = Control(pose=torch.rand(60, 3), cam=torch.rand(70, 3), gaze=torch.rand(65, 2))
    with gpu.stage("sample"):
        # two windows: the second is recorded
        sampled = generator.sample(speech, source, control, nfe=2)
    timing = {"sample_rate": 16000, "chunk": 0.4, "lookahead": 0.0}
    with gpu.stage("session"):
        session = Session(renderer, generator, source, **timing, nfe=2, batch_size=10)
        blocks = list(session.feed(torch.rand(6400)))
    renderer.requires_grad_(True).train()
    with gpu.stage("training"):
        images = torch.rand(2, 3, size, size).to(renderer.motion_decoder.const)
        features, identity = renderer.identity_encoder(images)
        motion, cells = renderer.motion_encoder(images), [torch.arange(3, device=device)] * 2
        trained, maps = forward.render(renderer, features, identity, motion, motion, cells)
    assert all(part.requires_grad for part in (trained, *maps))
    return encoded, frames, sampled, blocks


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{str(case[1])[6:]}-{case[2]}")
def run(request):
    generation, precision, device = request.param
    renderer, generator, device = tiny_renderer(generation), tiny_generator(generation), torch.device(device)
    with FakeDevice() as gpu, torch.cuda.device(1 - device.index):
        renderer.to(device, precision), generator.to(device, precision)
        gpu.clear()
        results = use(gpu, renderer, generator, device)
    return gpu, results, device, precision


def test_devices_do_not_mix_and_nothing_is_read_too_early(run):
    gpu, (encoded, frames, sampled, blocks), device, _ = run
    assert gpu.faults == []
    assert {operation.device for operation in gpu.operations} == {device}
    assert (frames.shape, frames.device.type, frames.dtype) == ((4, 64, 64, 3), "cpu", torch.float32)
    assert [(block.shape[0], block.device, block.dtype) for block in blocks] == [(10, device, torch.float32)]
    assert (len(encoded), len(sampled)) == (2, 65)
    assert encoded.latents.device.type == sampled.latents.device.type == "cpu"


def test_the_cpu_waits_only_where_it_must(run):
    gpu, *_ = run
    found = {}
    for sync in gpu.syncs:
        found.setdefault(sync.stage, set()).add(sync.source.split(":")[0])
    assert found == WAITS


def test_half_precision_stays_half(run):
    gpu, *_, precision = run
    if precision == torch.float32:
        assert not [o for o in gpu.operations if torch.float64 in {dtype for _, dtype, _ in o.outputs}]
        return
    # a trainer's autograd takes fused attention apart, and its optimiser decides the precision of weights
    for operation in (operation for operation in gpu.operations if operation.stage != "training"):
        # beside their result norms return statistics
        norm = operation.name in ("native_layer_norm", "_weight_norm_interface")
        outputs = operation.outputs[:1] if norm else operation.outputs
        most = PROMOTIONS.get(operation.source.split(":")[0], 0)
        for shape, dtype, device in outputs:
            if device.type == "cuda" and dtype in (torch.float32, torch.float64):
                assert math.prod(shape) <= most, f"{operation.source} {operation.name} {shape}"


def test_a_whole_model_of_full_size():
    """Made on the device, as loading makes it there; a batch that fits, in half precision, on the device that is not
    current. A batch of 8 takes few launches."""
    with FakeDevice() as gpu:
        with torch.device("cuda:1"):
            renderer = fold(Renderer(PUBLISHED["renderer"]["v2"]).eval().requires_grad_(False), final=True)
        renderer.to("cuda:1", torch.float16)
        gpu.clear()
        source = renderer.encode_source(torch.rand(1, 512, 512, 3))
        waited = len(gpu.syncs)
        frames = renderer.render(source, Motion(torch.rand(3, 32)), batch_size=2)
        assert frames.shape == (3, 512, 512, 3)
        assert (gpu.faults, len(gpu.syncs)) == ([], waited)
        assert {operation.device.index for operation in gpu.operations} == {1}
        gpu.clear()
        list(renderer.stream(source, Motion(torch.rand(8, 32)), 8))
        if importlib.util.find_spec("triton"):
            assert cards.launches(gpu.operations) <= 300


@pytest.mark.parametrize("devices", [("cuda:0", "cuda:1"), ("cuda:1", "cuda:1")])
def test_two_threads_record_one_after_the_other(devices):
    """Without tensors: a fake one is for one thread at a time."""
    start, replays = threading.Barrier(2), []

    def record(device):
        with torch.inference_mode():
            recorder = backend.recorder(torch.device(device))
            start.wait()
            replays.append(recorder(lambda: time.sleep(0.1)))

    with FakeDevice():
        threads = [threading.Thread(target=record, args=(device,)) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(replays) == 2


def test_latents_are_uploaded_once_and_waited_for_by_nobody():
    with FakeDevice() as gpu:
        renderer = tiny_renderer("v2").to("cuda:1", torch.float16)
        source = renderer.encode_source(torch.rand(1, 64, 64, 3))
        gpu.clear()
        blocks = renderer.stream(source, Motion(torch.rand(7, 8)), batch_size=3)
        assert [len(block) for block in blocks] == [3, 3, 1]
        uploads = [transfer for transfer in gpu.transfers if transfer.target_device.type == "cuda"]
        assert [(one.bytes, one.pinned, one.non_blocking) for one in uploads] == [(7 * 8 * 2, True, True)]
        assert gpu.syncs == []


@pytest.mark.parametrize("how", ["refused", "forbidden"])
def test_pinned_memory_is_optional(how, monkeypatch, caplog):
    empty = torch.empty

    def without_pinned(*arguments, pin_memory=False, **settings):
        if pin_memory:
            assert how == "refused", "the host forbids it"
            raise RuntimeError("CUDA error: operation not supported")
        return empty(*arguments, **settings)

    monkeypatch.setattr(backend, "_said", set())
    monkeypatch.setattr(backend, "_allowed", {"graphs": True, "pinned": True})
    backend.allow(graphs=True, pinned=how != "forbidden")
    with FakeDevice() as gpu, caplog.at_level(logging.INFO, "imtalker"):
        monkeypatch.setattr(torch, "empty", without_pinned)
        renderer = tiny_renderer("v2").to("cuda:1")
        source = renderer.encode_source(torch.rand(1, 64, 64, 3))
        assert renderer.render(source, Motion(torch.rand(3, 8)), batch_size=1).shape == (3, 64, 64, 3)
        assert gpu.faults == []
    assert caplog.text.count("pinned memory") == (how == "refused")


def test_a_frame_on_its_way_is_waited_for_on_its_own_device():
    """The copies of each block, while the next one is computed, from the device that is not current."""
    with FakeDevice() as gpu:
        steps = []

        def blocks():
            for number in range(3):
                steps.append(f"compute {number}")
                yield torch.ones(2, 3, device="cuda:1")

        for number, block in enumerate(backend.to_cpu(blocks())):
            steps.append(f"use {number}")
            block + 1
        assert steps == ["compute 0", "compute 1", "use 0", "compute 2", "use 1", "use 2"]
        assert gpu.faults == []
        assert gpu.syncs == []


def test_graphs_are_recorded_only_where_the_host_allows(monkeypatch):
    monkeypatch.setattr(backend, "_allowed", {"graphs": True, "pinned": True})
    with FakeDevice(), torch.inference_mode():
        assert backend.recorder(torch.device("cuda:1"))
        with torch.cuda.stream(torch.cuda.Stream("cuda:1")):
            assert backend.recorder(torch.device("cuda:1")) is None
        backend.allow(graphs=False, pinned=True)
        assert backend.recorder(torch.device("cuda:1")) is None


class Kernels:
    """Triton kernels that fail as told; remembers on which device each one was started."""

    def __init__(self, failure=None, when=lambda x: True):
        self.failure, self.when, self.started = failure, when, []

    def __call__(self, x, shape=(2, 16)):
        def kernel():
            self.started.append((torch.cuda.current_device(), x.dtype, shape))
            if self.failure and self.when(x):
                raise self.failure
            return "kernel"

        return backend.with_kernel("a test", shape, x, kernel, lambda: "plain")


@pytest.fixture
def on_fakes(monkeypatch):
    monkeypatch.setattr(backend, "_refused", set())
    with FakeDevice() as gpu, torch.inference_mode():
        yield gpu


def test_kernels_start_on_their_tensors_device(on_fakes):
    run = Kernels()
    assert [run(torch.ones(1, device=f"cuda:{number}")) for number in (1, 0)] == ["kernel", "kernel"]
    assert [device for device, *_ in run.started] == [1, 0]
    assert torch.cuda.current_device() == 0
    assert run(torch.ones(1)) == "plain"
    with torch.inference_mode(False):
        assert run(torch.ones(1, device="cuda:1")) == "plain", "autograd cannot see into kernels"


def test_a_kernel_is_given_up_for_what_it_fails_with_alone(on_fakes, caplog):
    run = Kernels(RuntimeError("out of resource: shared memory"), when=lambda x: x.dtype == torch.float16)
    half, full = (torch.ones(1, device="cuda:1", dtype=dtype) for dtype in (torch.float16, torch.float32))
    assert [run(half), run(half), run(full), run(half.to("cuda:0")), run(half, (8, 64))] == [
        "plain", "plain", "kernel", "plain", "plain"
    ]  # fmt: skip
    assert len(run.started) == 4, "another device and another shape are tried by themselves, the same is not"
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert "on cuda:1 in float16" in warnings[0].getMessage()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("Triton Error [CUDA]: out of memory")]
)
def test_full_memory_does_not_give_a_kernel_up(on_fakes, error):
    run, x = Kernels(error), torch.ones(1, device="cuda:1")
    with pytest.raises(RuntimeError):
        run(x)
    run.failure = None
    assert run(x) == "kernel"


def test_without_triton_it_is_said_what_to_install(on_fakes, caplog):
    assert Kernels(ModuleNotFoundError("No module named 'triton'"))(torch.ones(1, device="cuda:0")) == "plain"
    assert "triton-windows" in caplog.text


def test_nan_frames_are_noticed_before_they_are_used(monkeypatch):
    """With the next block already asked of the device, and without waiting for more than the frames themselves."""
    wait, totals = backend.Download.wait, []

    def spoiled(download):
        values = wait(download)
        if values.ndim:
            return values
        totals.append(values)
        return values + (math.nan if len(totals) == 2 else 0)

    monkeypatch.setattr(backend.Download, "wait", spoiled)
    # events are not over by themselves, as on a busy device
    monkeypatch.setattr(fake_cuda.Event, "query", lambda event: False)
    with FakeDevice() as gpu:
        renderer = tiny_renderer("v2").to("cuda:1", torch.float16)
        source = renderer.encode_source(torch.rand(1, 64, 64, 3))
        gpu.clear()
        blocks = backend.to_cpu(renderer.stream(source, Motion(torch.rand(7, 8)), batch_size=3))
        assert len(next(blocks)) == 3
        with pytest.raises(InputError, match=r"Some frames came out as NaN: .* choose bf16 or fp32"):
            next(blocks)
        assert gpu.syncs == gpu.faults == []
