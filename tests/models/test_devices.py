"""The whole engine on fake GPUs: nothing mixes devices, waits, reads too early or leaves half precision unseen."""

import math

import pytest
import torch
from tiny import tiny_generator, tiny_renderer

from benchmarks import fake_device
from benchmarks.fake_device import FakeDevice
from imtalker import Control, Motion, Session
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

# The files whose lines may make the CPU wait for a device, by stage; while rendering and training, none.
WAITS = {
    "source": {"precision.py"},  # once for each source
    "encode motion": {"renderer.py"},  # its latents are wanted on the CPU
    "audio": {"audio_encoder.py", "generator.py"},  # weights for the first pass; the features are wanted on the CPU
    "sample": {"generator.py", "capture.py"},  # the motion of each window; once for each recording
    "session": {"audio_encoder.py", "generator.py", "session.py"},
}
# Where half precision may become float32 on the device, with the most values that may.
PROMOTIONS = {
    "layers.py": 2 * 32 * 32,  # styles and their sums, per sample and channel; not maps
    "flow.py": 2 * 128 * 2,  # the angles of times
    "sampling.py": 16,  # times
    "matching.py": 1 << 20,  # logits and attended values where Triton does not run
    "precision.py": 64,  # sums that show NaN
    "renderer.py": 1 << 20,  # frames, and latents for the CPU
    "session.py": 1 << 12,  # latents for the CPU
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
        latents = torch.rand(3, renderer.config.motion_size)
        frames = renderer.render(source, Motion(latents, generation=renderer.generation), batch_size=2)
    with gpu.stage("audio"):
        speech = generator.encode_audio(torch.rand(1, 2 * 16000 + 9000), 16000)
    control = Control(pose=torch.rand(60, 3), cam=torch.rand(70, 3), gaze=torch.rand(65, 2))
    with gpu.stage("sample"):
        # two windows: the second is recorded
        sampled = generator.sample(speech, source, control, nfe=2)
    session = Session(renderer, generator, source, sample_rate=16000, chunk=0.4, lookahead=0.0, nfe=2, batch_size=10)
    with gpu.stage("session"):
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
    assert (frames.shape, frames.device.type, frames.dtype) == ((3, 64, 64, 3), "cpu", torch.float32)
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
        # beside its result a layer norm returns statistics
        outputs = operation.outputs[:1] if operation.name == "native_layer_norm" else operation.outputs
        most = PROMOTIONS.get(operation.source.split(":")[0], 0)
        for shape, dtype, device in outputs:
            if device.type == "cuda" and dtype in (torch.float32, torch.float64):
                assert math.prod(shape) <= most, f"{operation.source} {operation.name} {shape}"


def test_a_whole_model_of_full_size():
    """Made on the device, as loading makes it there; a batch that fits, in half precision, on the device that is not
    current."""
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
