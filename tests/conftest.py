"""What several tests share: the avatar; tiny models on disk, a portrait, a made-up voice, a short driving video."""

import pytest
import torch
from meaning import Avatar
from tiny import tiny_generator, tiny_renderer

from imtalker import drawn, load_generator, load_renderer, save_weights
from imtalker.audio import Audio
from imtalker.checkpoints import AVATAR, find_weights
from imtalker.video import write_video


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A folder with portrait.png, speech.wav (2.0 s), driving.mp4 (30 fps, 21 frames, 80 x 60, with sound)."""
    folder = tmp_path_factory.mktemp("inputs")
    drawn.main(folder)
    random = torch.Generator().manual_seed(8)
    frames = torch.rand(1, 6, 8, 3, generator=random) + torch.linspace(-0.2, 0.2, 21)[:, None, None, None]
    frames = frames.clamp(0, 1).repeat_interleave(10, dim=1).repeat_interleave(10, dim=2)
    sound = 0.3 * torch.sin(torch.arange(0.7 * 44100) / 20)
    write_video(folder / "driving.mp4", frames, 30, Audio(sound[None], 44100))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder of tiny v2 weights under the published names."""
    folder = tmp_path_factory.mktemp("models")
    save_weights(tiny_renderer("v2"), folder / "renderer.safetensors")
    save_weights(tiny_generator("v2"), folder / "generator.safetensors")
    return folder


@pytest.fixture(scope="session")
def avatar():
    """The models that come with the package, for what is about meaning: meaning.py says what their motion means."""
    renderer = load_renderer(find_weights(AVATAR, "renderer"))
    generator = load_generator(find_weights(AVATAR, "generator"))
    return Avatar(renderer, generator, renderer.encode_source(drawn.portrait(renderer.config.input_size)))
