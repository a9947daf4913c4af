"""The finder of drawn heads: where they are, however they are shown, and nothing else."""

from pathlib import Path

import pytest
import torch

from imtalker.avatar.finder import backgrounds, heads
from imtalker.drawn.example import portrait
from imtalker.face.crop import Crop, framed, square_crop
from imtalker.face.drawn_heads import drawn_heads
from imtalker.face.follow import find_crop, steady_view
from imtalker.media.image import read_image

ASSETS = Path(__file__).parents[3] / "shared" / "assets"  # real portraits, if this machine has them


def errors(crop, x, y, side):
    return max(abs(crop.x - x), abs(crop.y - y), abs(crop.size - side)) / side


@pytest.mark.parametrize("seed", [103, *range(12)])
def test_a_portrait_is_found_as_it_was_framed(seed):
    (box,) = drawn_heads(portrait(256, seed)[0])
    assert errors(square_crop(box, 256, 256), 0, 0, 256) < 0.12
    assert errors(framed(box, 256, 256), 0, 0, 256) < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_a_portrait_is_found_anywhere_in_a_larger_picture(seed):
    picture = torch.full((540, 960, 3), 0.1 + 0.2 * seed)
    side, x, y = 120 + 80 * seed, 40 + 100 * seed, 10 * seed
    picture[y : y + side, x : x + side] = portrait(side, seed)[0]
    (box,) = drawn_heads(picture)
    assert errors(square_crop(box, 540, 960), x, y, side) < 0.15


@pytest.mark.parametrize("seed", range(5))
def test_two_people_are_two_heads_from_left_to_right(seed):
    picture = torch.cat([portrait(200, seed)[0], portrait(200, seed + 50)[0]], dim=1)
    for index in (0, 1):
        crop = find_crop(picture, which="left to right", index=index)
        assert errors(crop, 200 * index, 0, 200) < 0.12


def test_a_head_is_found_while_it_moves_and_blinks():
    torch.manual_seed(11)
    pictures, squares = heads(60)
    found = 0
    for picture, (x, y, size) in zip(pictures, squares.tolist()):
        boxes = drawn_heads(picture.permute(1, 2, 0))
        found += (
            len(boxes) == 1
            and errors(square_crop(boxes[0], 96, 96), 48 * (1 + x - size), 48 * (1 + y - size), 96 * size) < 0.2
        )
    assert found >= 54


def test_a_clip_of_a_head_that_is_hidden_for_a_while():
    frames = portrait(160).expand(30, -1, -1, -1).clone()
    frames[12:22] = 0.3
    view = steady_view(iter(frames), 30)
    assert errors(view.crop, 0, 0, 160) < 0.1
    assert view.hidden == (range(12, 22),)


def test_nothing_else_is_found():
    torch.manual_seed(3)
    for picture in backgrounds(20):
        assert drawn_heads(picture.permute(1, 2, 0)) == []
    for picture in (
        portrait(160, 5).flip(1),
        torch.rand(1, 200, 300, 3),
        torch.zeros(1, 9, 2000, 3),
        torch.ones(1, 1, 1, 3),
    ):
        assert drawn_heads(picture[0]) == []


@pytest.mark.skipif(not ASSETS.exists(), reason="the sample portraits are not on this machine")
def test_people_are_left_to_the_other_detectors():
    for path in sorted(ASSETS.glob("source_*")):
        assert drawn_heads(read_image(path)[0]) == [], path.name


def test_the_crop_needs_no_file_and_no_network():
    assert isinstance(find_crop(portrait(128), fetch=lambda: pytest.fail("nothing is missing")), Crop)
