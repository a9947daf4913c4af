"""Shared fixtures: the avatar, tiny models on disk, a portrait, speech, driving videos, prepared data."""

import os

import pytest
import torch
import torch.nn.functional as F
from meaning import Avatar
from tiny import tiny_generator, tiny_renderer

from imtalker import load_generator, load_renderer, save_weights
from imtalker.drawn import example as drawn
from imtalker.media.audio import Audio
from imtalker.media.video_writer import write_video
from imtalker.train.prepare import Preparation, prepare
from imtalker.weights.checkpoints import AVATAR, find_weights

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network for a file


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(config, items):
    """With several processes (pytest-xdist) each file stays in one; the tests of ComfyUI share one and start first."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        comfy = "comfy" in item.path.relative_to(config.rootpath).parts
        item.add_marker(pytest.mark.xdist_group("comfy" if comfy else item.path.stem))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args[0] != "comfy")


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
    """The models that come with the package, for tests of what motion and frames mean (meaning.py)."""
    renderer = load_renderer(find_weights(AVATAR, "renderer"))
    generator = load_generator(find_weights(AVATAR, "generator"))
    return Avatar(renderer, generator, renderer.encode_source(drawn.portrait(renderer.config.input_size)))


def write_clip(path, frames, seed, sound=True):
    random = torch.Generator().manual_seed(seed)
    person = F.interpolate(torch.rand(1, 3, 4, 4, generator=random), (64, 64), mode="bilinear")[0]
    moves = [person.roll(round(6 * torch.tensor(number / 4).sin().item()), dims=2) for number in range(frames)]
    wave = (
        0.3 * torch.sin(torch.arange(frames * 640) / 20) * torch.rand(frames, generator=random).repeat_interleave(640)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, torch.stack(moves).movedim(1, -1), 25, Audio(wave[None], 16000) if sound else None)


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Two clips of anna, one without audio of ben (in no subfolder), and a broken file."""
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder / "anna" / "one.mp4", 75, 1)
    write_clip(folder / "anna" / "two.mp4", 60, 1)
    write_clip(folder / "ben.mp4", 20, 2, sound=False)
    (folder / "anna" / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="session")
def preparation(models):
    renderer, generator = (
        load_renderer(models / "renderer.safetensors"),
        load_generator(models / "generator.safetensors"),
    )
    return Preparation(renderer, generator, crop="none")


@pytest.fixture(scope="session")
def data(videos, preparation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare(videos, folder, preparation)
    return folder
