"""Drawn portraits: their optical flow is true, and their motion can be read back."""

import functools

import pytest
import torch
import torch.nn.functional as F

from imtalker.avatar.batches import HEAD_CHANNELS, HELD_OUT, draw_batch, draw_pairs, random_motion, source_cells
from imtalker.avatar.readback import READINGS, correlation, read
from imtalker.drawn import portraits
from imtalker.drawn.head import MOTION, MOTION_SIZE
from imtalker.drawn.people import random_appearances
from imtalker.drawn.portraits import draw, draw_with_layers, part_mask, pixel_centres, track_points

SIDE = 96


def one(**values):
    """A motion (1,16) with the given values, the others neutral."""
    motion = torch.zeros(1, MOTION_SIZE)
    for name, value in values.items():
        motion[0, MOTION.index(name)] = value
    return motion


def test_an_image_depends_on_its_own_person_and_motion_alone():
    people, motion = random_appearances(4, seed=3), random_motion(4, torch.Generator().manual_seed(3))
    together = draw(people, motion, SIDE)
    torch.testing.assert_close(draw(people[2:3], motion[2:3], SIDE), together[2:3], atol=1e-5, rtol=0)
    assert together.min() >= 0
    assert together.max() <= 1


def test_the_same_seed_draws_the_same_people():
    assert torch.equal(random_appearances(5, seed=1).skin, random_appearances(5, seed=1).skin)
    assert not torch.equal(random_appearances(5, seed=1).skin, random_appearances(5, seed=2).skin)


@pytest.mark.parametrize("name", MOTION)
def test_every_value_of_the_motion_shows(name):
    person = random_appearances(1, seed=5)
    rest = {"mouth_open": 0.5} if name.startswith("mouth") or name == "smile" else {}
    before, after = (draw(person, one(**rest | {name: value}), SIDE) for value in (0.0, 0.8))
    assert (before - after).abs().max() > 0.2


def test_signs_are_those_of_the_editors():
    """The image's right and up are positive."""
    person = random_appearances(1, seed=6)

    def middle(motion):
        layers = draw_with_layers(person, motion, 192)[1]
        y, x = torch.nonzero(part_mask(layers, "eye", "mouth")[0], as_tuple=True)
        return x.float().mean(), y.float().mean()

    x, y = middle(one())
    for name in ("yaw", "x"):
        assert middle(one(**{name: 0.5}))[0] > x + 3, name
    for name in ("pitch", "y"):
        assert middle(one(**{name: 0.5}))[1] < y - 3, name


@pytest.mark.parametrize("seed", [5, 7])
def test_shut_eyes_stay_apart_and_on_the_face(seed):
    person, side = random_appearances(1, seed), 192
    for yaw in (0.0, 0.8, -0.8):
        changed = (draw(person, one(blink=1.0, yaw=yaw), side) - draw(person, one(yaw=yaw), side)).abs().amax((0, 1))
        columns = torch.nonzero(changed.amax(0) > 0.02).flatten()
        assert changed.max() > 0.2
        if not yaw:
            assert columns.diff().max() > 4, "a line from one eye to the other"
        layers = draw_with_layers(person, one(yaw=yaw), side)[1]
        background = layers[0] == 0
        assert changed[background].max() < 0.5, "lids beside the face"


def test_a_mouth_at_rest_curves_up():
    """Its corners are no lower than its middle, and a smile lifts them."""
    heights = []
    for smile in (0.0, 0.5):
        layers = draw_with_layers(random_appearances(4, seed=11), one(smile=smile).expand(4, -1), 256)[1]
        for mask in part_mask(layers, "mouth"):
            y, x = torch.nonzero(mask, as_tuple=True)
            edge = (x.max() - x.min()) / 8
            corners = (x < x.min() + edge) | (x > x.max() - edge)
            middle = (x - (x.min() + x.max()) / 2).abs() < edge
            heights.append(float(y[middle].float().mean() - y[corners].float().mean()))
    rest, smiling = heights[:4], heights[4:]
    assert min(rest) > 1
    assert all(more > less + 3 for more, less in zip(smiling, rest))


def test_tracked_points_warp_the_source_to_the_driving_frame():
    random = torch.Generator().manual_seed(8)
    people, source, driving = random_appearances(6, seed=8), random_motion(6, random), random_motion(6, random)
    before, source_layers = draw_with_layers(people, source, 128)
    after, layers = draw_with_layers(people, driving, SIDE)
    points = pixel_centres(6, SIDE, driving.device).flatten(2)
    target, found = track_points(people, driving, source, points, layers.flatten(1), source_layers)
    visible = layers == found.view_as(layers)
    warped = F.grid_sample(before, target.unflatten(1, (SIDE, SIDE)), align_corners=False)

    def error(image):
        return float(((image - after).abs().mean(1) * visible).sum() / visible.sum())

    assert visible.float().mean() > 0.6
    assert error(warped) < 0.015
    assert error(warped) < 0.25 * error(draw(people, source, SIDE))


def test_without_motion_every_cell_comes_from_itself():
    people, motion = random_appearances(2, seed=9), random_motion(2, torch.Generator().manual_seed(9))
    cells = source_cells(draw_pairs(people, motion, motion, 64), 16)
    assert torch.equal(cells.index, torch.arange(256).expand(2, -1))
    assert cells.moving.sum() == 0


def test_an_open_mouth_comes_from_the_shut_mouth_of_the_source():
    shut, opened, person = one(), one(mouth_open=1.0), random_appearances(1, seed=9)
    cells = source_cells(draw_pairs(person, shut, opened, 64), 32)
    mouth = (cells.facial > 0) & (torch.arange(32 * 32) > 32 * 16)  # the lower half
    assert mouth.sum() > 10
    assert cells.visible[mouth].mean() > 0.9
    # its cells spread over fewer rows of the source than their own
    rows = torch.nonzero(mouth)[:, 1] // 32
    assert len((cells.index[mouth & (cells.visible > 0)] // 32).unique()) < len(rows.unique())


def test_eyes_and_mouth_are_marked():
    batch = draw_batch(HELD_OUT + 1, people=2, drivers=3, size=64)
    assert batch.frames.shape == (6, 3, 64, 64)
    _, layers = draw_with_layers(batch.appearance, batch.motion, 64)
    inside = part_mask(layers, "eye", "mouth")[:, None]
    near = batch.mask_near("eye", "mouth")
    assert near[inside].min() == 1
    assert 0.02 < near.mean() < 0.3
    with_glasses = batch.mask_near("eye", "mouth", "glasses")
    assert torch.equal(with_glasses, torch.maximum(near, batch.mask_near("glasses")))


def test_still_heads_move_their_eyes_and_mouths_alone():
    batch = draw_batch(HELD_OUT + 2, people=2, drivers=3, size=32, still=True)
    source = batch.source_motion.repeat_interleave(3, dim=0)
    assert torch.equal(batch.motion[:, HEAD_CHANNELS], source[:, HEAD_CHANNELS])
    assert (batch.motion - source)[:, HEAD_CHANNELS.stop :].abs().max() > 0.5


def test_mixed_precision_leaves_drawings_unchanged():
    exact = draw_batch(HELD_OUT + 1, people=1, drivers=2, size=32)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = draw_batch(HELD_OUT + 1, people=1, drivers=2, size=32)
    assert torch.equal(exact.frames, mixed.frames)


@pytest.mark.recipe
@pytest.mark.parametrize("known", [False, True])
def test_motion_is_read_back_from_drawings(known):
    """The best that reading a model's frames can do: eyes open, the head searched for or known."""
    count, people = 8, random_appearances(8, seed=7)[3:4].repeat_interleave(8)
    motion = random_motion(count, torch.Generator().manual_seed(4))
    motion[:, MOTION.index("blink")] = 0
    readings = read(draw(people, motion, 128), people, motion if known else None)
    assert set(readings) == set(READINGS)
    reached = {name: correlation(readings[name], motion[:, MOTION.index(name)]) for name in READINGS if name != "blink"}
    assert min(reached.values()) > (0.95 if known else 0.8), reached


def test_what_an_image_does_not_show_is_not_read():
    count, person = 24, random_appearances(1, seed=7)
    motion = random_motion(count, torch.Generator().manual_seed(4))
    shown = one(mouth_open=0.5)
    still = draw(person, shown, 64).expand(count, -1, -1, -1)
    readings = read(still, person.repeat_interleave(count), shown.expand(count, -1))
    assert abs(correlation(readings["mouth_open"], motion[:, MOTION.index("mouth_open")])) < 0.4


@pytest.mark.recipe
def test_compiled_drawing_draws_the_same(monkeypatch):
    """As torch.compile traces it; compiling the trace would take a minute and tests torch."""
    people, motion = random_appearances(2, seed=12), random_motion(2, torch.Generator().manual_seed(12))
    before = draw_with_layers(people, motion, 32)
    monkeypatch.setattr(portraits, "_compose", portraits._compose)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    portraits.compile_drawing()
    for a, b in zip(draw_with_layers(people, motion, 32), before):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
