"""Parity with the published implementation: float32, CPU, full size, both generations (tests/golden/README.md)."""

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.models import waves
from imtalker import Control, Motion
from imtalker.models.config import PUBLISHED
from imtalker.weights.untrained import untrained_generator, untrained_renderer

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 2e-5
MOTION_TOLERANCE = 1e-4


@cache
def golden(generation):
    return load_file(GOLDEN / f"{generation}.safetensors")


@pytest.fixture(scope="module", params=["v1", "v2"])
def renderer(request):
    return untrained_renderer(PUBLISHED["renderer"][request.param])


@pytest.fixture(scope="module")
def source(renderer):
    return renderer.encode_source(waves(101, renderer.config.input_size))


@pytest.fixture(scope="module", params=["v1", "v2"])
def generator(request):
    return untrained_generator(PUBLISHED["generator"][request.param])


def sub16(x):
    _, channels, height, width = x.shape
    return x[:, :: max(1, channels // 32), :: max(1, height // 16), :: max(1, width // 16)]


def assert_golden(found, generation, name, tolerance=TOLERANCE):
    torch.testing.assert_close(found, golden(generation)[name], rtol=0, atol=tolerance, msg=lambda m: f"{name}: {m}")


def test_source_encoding(renderer, source):
    assert_golden(source.identity, renderer.generation, "source.identity")
    assert_golden(source.motion, renderer.generation, "source.motion")
    for level, features in enumerate(source.features):
        assert_golden(sub16(features), renderer.generation, f"source.features.{level}.sub16")


def test_motion_encoding(renderer):
    pictures = torch.cat([waves(key, renderer.config.input_size) for key in (201, 301)])
    assert_golden(renderer.encode_motion(pictures).latents, renderer.generation, "driving.motion")


@torch.inference_mode()
def test_transfer_stage_by_stage(renderer, source):
    latent = golden(renderer.generation)["render.latents"][:1]
    adapted = renderer.adapter(latent, source.identity)
    assert_golden(adapted, renderer.generation, "adapted.0")
    maps = renderer.motion_decoder(adapted)
    for level, motion_map in enumerate(maps):
        assert_golden(sub16(motion_map), renderer.generation, f"motion_map.0.{level}.sub16")
    for level, aligned in enumerate(renderer.transfer(maps, source.reference)):
        assert_golden(sub16(aligned), renderer.generation, f"aligned.0.{level}.sub16")


def test_frames(renderer, source):
    latents = golden(renderer.generation)["render.latents"]
    frames = renderer.render(source, Motion(latents, generation=renderer.generation)).permute(0, 3, 1, 2)
    assert_golden(frames[:, :, ::8, ::8], renderer.generation, "render.frames.sub8")
    assert_golden(frames[:1, :, 192:320, 192:320], renderer.generation, "render.frame0.crop")


@pytest.fixture(scope="module")
def audio(generator):
    return generator.encode_audio(golden(generator.generation)["audio.waveform_16k"], 16000)


def test_audio_features(generator, audio):
    assert len(audio) == 108
    assert_golden(audio.features[None, :, ::16], generator.generation, "audio.features.sub")


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_sampled_motion(generator, audio, case):
    figures = golden(generator.generation)
    settings = {
        "a": {"cfg": 3.0, "nfe": 10},
        "b": {"cfg": 2.0, "nfe": 10, "control": Control(*(figures[f"gen.{part}"] for part in ("pose", "cam", "gaze")))},
        "c": {"cfg": 1.0, "nfe": 5, "control": Control(gaze=figures["gen.gaze"][:60]), "padding": "zero"},
    }[case]
    motion = generator.sample(audio, Reference(generator, figures), noise=figures["gen.noise"][0], **settings)
    expected = figures[f"gen.motion.{case}"].view(108, -1)
    torch.testing.assert_close(motion.latents, expected, rtol=0, atol=MOTION_TOLERANCE)


class Reference:
    """A source of which the generator reads the motion alone."""

    def __init__(self, generator, figures):
        self.motion, self.generation = figures["gen.reference"], generator.generation
