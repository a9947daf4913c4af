"""A small prepared data set: two people, patches of colour that move, a sound that goes with them."""

import pytest
import torch
import torch.nn.functional as F

from imtalker import load_generator, load_renderer
from imtalker.audio import Audio
from imtalker.train.prepare import Preparation, prepare
from imtalker.video import write_video


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
    """anna has two clips, ben (a file in no folder) one without sound; one file is no video."""
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
