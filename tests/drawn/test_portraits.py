"""What holds of drawn portraits: their flow is true, and their motion can be read back."""

import functools

import pytest
import torch
import torch.nn.functional as F

from imtalker.avatar.batches import HEAD, HELD_OUT, cells, drawn, pairs, random_motion
from imtalker.avatar.readback import READINGS, correlation, read
from imtalker.drawn import portraits
from imtalker.drawn.people import looks
from imtalker.drawn.portraits import MOTION, MOTION_SIZE, draw, draw_with_layers, eyes_and_mouth, flow

SIDE = 96


def one(**values):
    """A motion (1,16) with some values, the others neutral."""
    motion = torch.zeros(1, MOTION_SIZE)
    for name, value in values.items():
        motion[0, MOTION.index(name)] = value
    return motion


def test_a_picture_depends_on_its_own_look_and_motion_alone():
    look, motion = looks(4, seed=3), random_motion(4, torch.Generator().manual_seed(3))
    together = draw(look, motion, SIDE)
    torch.testing.assert_close(draw(look[2:3], motion[2:3], SIDE), together[2:3], atol=1e-5, rtol=0)
    assert together.min() >= 0
    assert together.max() <= 1


def test_the_same_seed_draws_the_same_people():
    assert torch.equal(looks(5, seed=1).skin, looks(5, seed=1).skin)
    assert not torch.equal(looks(5, seed=1).skin, looks(5, seed=2).skin)


@pytest.mark.parametrize("name", MOTION)
def test_every_value_of_the_motion_shows(name):
    look = looks(1, seed=5)
    rest = {"mouth_open": 0.5} if name.startswith("mouth") or name == "smile" else {}
    before, after = (draw(look, one(**rest | {name: value}), SIDE) for value in (0.0, 0.8))
    assert (before - after).abs().max() > 0.2


def test_signs_are_those_of_the_editors():
    """The picture's right and up are positive."""
    look = looks(1, seed=6)

    def middle(motion):
        y, x = torch.nonzero(eyes_and_mouth(draw_with_layers(look, motion, 192)[1])[0], as_tuple=True)
        return x.float().mean(), y.float().mean()

    x, y = middle(one())
    for name in ("yaw", "x"):
        assert middle(one(**{name: 0.5}))[0] > x + 3, name
    for name in ("pitch", "y"):
        assert middle(one(**{name: 0.5}))[1] < y - 3, name


def test_the_flow_takes_the_source_to_the_driving_frame():
    random = torch.Generator().manual_seed(8)
    look, source, driving = looks(6, seed=8), random_motion(6, random), random_motion(6, random)
    where, layer, found = flow(look, driving, source, SIDE)
    seen = layer == found
    before, after = draw(look, source, SIDE), draw(look, driving, SIDE)
    warped = F.grid_sample(before, where, align_corners=False)

    def error(picture):
        return float(((picture - after).abs().mean(1) * seen).sum() / seen.sum())

    assert seen.float().mean() > 0.6
    assert error(warped) < 0.015
    assert error(warped) < 0.25 * error(before)


def test_without_motion_nothing_flows():
    look, motion = looks(2, seed=9), random_motion(2, torch.Generator().manual_seed(9))
    found = cells(pairs(look, motion, motion, 64), 16)
    assert torch.equal(found.index, torch.arange(256).expand(2, -1))
    assert found.moving.sum() == 0


def test_an_open_mouth_is_looked_for_where_the_source_has_it_shut():
    shut, opened, look = one(), one(mouth_open=1.0), looks(1, seed=9)
    found = cells(pairs(look, shut, opened, 64), 32)
    mouth = (found.features > 0) & (torch.arange(32 * 32) > 32 * 16)  # the lower half
    assert mouth.sum() > 10
    assert found.seen[mouth].mean() > 0.9
    # all of it, on rows that are fewer than its own
    rows = torch.nonzero(mouth)[:, 1] // 32
    assert len((found.index[mouth & (found.seen > 0)] // 32).unique()) < len(rows.unique())


def test_eyes_and_mouth_are_marked():
    batch = drawn(HELD_OUT + 1, people=2, drivers=3, size=64)
    assert batch.frames.shape == (6, 3, 64, 64)
    _, seen = draw_with_layers(batch.look, batch.motion, 64)
    inside = eyes_and_mouth(seen)[:, None]
    near = batch.near("eye", "mouth")
    assert near[inside].min() == 1
    assert 0.02 < near.mean() < 0.3
    with_glasses = batch.near("eye", "mouth", "glasses")
    assert torch.equal(with_glasses, torch.maximum(near, batch.near("glasses")))


def test_still_heads_move_their_eyes_and_mouths_alone():
    batch = drawn(HELD_OUT + 2, people=2, drivers=3, size=32, still=True)
    source = batch.source_motion.repeat_interleave(3, dim=0)
    assert torch.equal(batch.motion[:, HEAD], source[:, HEAD])
    assert (batch.motion - source)[:, HEAD.stop :].abs().max() > 0.5


def test_mixed_precision_leaves_drawings_as_they_are():
    plain = drawn(HELD_OUT + 1, people=1, drivers=2, size=32)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = drawn(HELD_OUT + 1, people=1, drivers=2, size=32)
    assert torch.equal(plain.frames, mixed.frames)


@pytest.mark.parametrize("known", [False, True])
def test_motion_is_read_back_from_drawings(known):
    """What the reading of a model's frames is worth at best: eyes open, the head looked for or known."""
    count, look = 8, looks(8, seed=7)[3:4]
    motion = random_motion(count, torch.Generator().manual_seed(4))
    motion[:, MOTION.index("blink")] = 0
    repeated = look.repeat_interleave(count)
    found = read(draw(repeated, motion, 128), repeated, motion if known else None)
    assert set(found) == set(READINGS)
    reached = {name: correlation(found[name], motion[:, MOTION.index(name)]) for name in READINGS if name != "blink"}
    assert min(reached.values()) > (0.95 if known else 0.8), reached


def test_what_is_not_in_the_picture_is_not_read():
    count, look = 24, looks(1, seed=7)
    motion = random_motion(count, torch.Generator().manual_seed(4))
    shown = one(mouth_open=0.5)
    still = draw(look, shown, 64).expand(count, -1, -1, -1)
    found = read(still, look.repeat_interleave(count), shown.expand(count, -1))
    assert abs(correlation(found["mouth_open"], motion[:, MOTION.index("mouth_open")])) < 0.4


def test_compiled_drawing_draws_the_same(monkeypatch):
    """As torch.compile traces it; what a compiler makes of that takes a minute, and is torch's own concern."""
    look, motion = looks(2, seed=12), random_motion(2, torch.Generator().manual_seed(12))
    before = draw_with_layers(look, motion, 32)
    monkeypatch.setattr(portraits, "_compose", portraits._compose)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    portraits.compile_drawing()
    for a, b in zip(draw_with_layers(look, motion, 32), before):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
