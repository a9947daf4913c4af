"""The avatar that comes with the package, where meaning matters: heads and mouths follow, and silence is silent."""

import pytest
import torch

import imtalker
from imtalker import Motion, drawn
from imtalker.audio import SAMPLE_RATE
from imtalker.checkpoints import AVATAR, find_weights
from imtalker.train.drawn import random_motion
from imtalker.train.people import looks
from imtalker.train.portraits import MOTION, MOTION_SIZE, draw
from imtalker.train.readback import correlation, read

FRAMES = 12


@pytest.fixture(scope="module")
def renderer():
    return imtalker.load_renderer(find_weights(AVATAR, "renderer"))


@pytest.fixture(scope="module")
def generator():
    return imtalker.load_generator(find_weights(AVATAR, "generator"))


def seen(pictures):
    return pictures.permute(0, 2, 3, 1)


def test_it_is_small():
    assert sum(file.stat().st_size for file in AVATAR.glob("*.safetensors")) <= 12e6


def test_heads_and_mouths_follow_the_driver(renderer):
    motion = random_motion(FRAMES, torch.Generator().manual_seed(21))
    found = {"mouth_open": [], "yaw": [], "lead": []}
    for person in (20, 21, 22):
        look = looks(1, person)
        many = look.repeat_interleave(FRAMES)
        source = renderer.encode_source(seen(draw(look, torch.zeros(1, MOTION_SIZE), renderer.config.input_size)))
        frames = renderer.render(source, Motion(motion, 25.0, renderer.generation)).permute(0, 3, 1, 2)
        truth = draw(many, motion, frames.shape[-1])
        for name in ("mouth_open", "yaw"):
            found[name].append(correlation(read(frames, many)[name], motion[:, MOTION.index(name)]))
        error, other = ((x - truth).square().mean().log10() for x in (frames, frames.roll(1, 0)))
        found["lead"].append(float(10 * (other - error)))
    means = {name: sum(values) / len(values) for name, values in found.items()}
    assert means["mouth_open"] > 0.5, means
    assert means["yaw"] > 0.7, means
    assert means["lead"] > 1, means


def test_the_mouth_moves_with_speech_and_rests_in_silence(renderer, generator):
    source = renderer.encode_source(drawn.portrait(renderer.config.input_size))
    speech = drawn.speech(2.0)
    quiet = torch.zeros(1, 2 * SAMPLE_RATE)
    quiet[0, :4000] = 0.01 * torch.randn(4000, generator=torch.Generator().manual_seed(1))
    opened = []
    for waveform, rate in ((speech.waveform, speech.sample_rate), (quiet, SAMPLE_RATE)):
        motion = generator.sample(generator.encode_audio(waveform, rate), source, cfg=1.0)
        opened.append(motion.latents[:, MOTION.index("mouth_open")])
    assert opened[0].std() > 0.1
    assert opened[1][10:].abs().mean() < 0.1
