"""Lengths: which frame is shown when."""

import pytest
import torch
from test_editing import sway

from imtalker import InputError, Motion
from imtalker.motion.fit import fit, frames_at, frames_of, positions


@pytest.mark.parametrize("way", ["loop", "ping-pong", "hold", "stretch"])
@pytest.mark.parametrize("frames", [1, 7, 40, 41, 333])
def test_the_length_is_exact(way, frames):
    fitted = fit(sway(40), frames, way)
    assert (len(fitted), fitted.fps) == (frames, 25.0)
    if way != "stretch":
        assert torch.equal(fitted.latents[:1], fit(sway(40), 1, way).latents) or way == "loop"


def test_ways_in_numbers():
    assert positions(4, 10, "loop").tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert positions(4, 10, "ping-pong").tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert positions(4, 7, "hold").tolist() == [0, 1, 2, 3, 3, 3, 3]
    assert positions(4, 7, "stretch").tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert positions(5, 3, "stretch").tolist() == [0, 2, 4]
    for way in ("loop", "ping-pong", "hold", "stretch"):
        assert positions(1, 4, way).tolist() == [0, 0, 0, 0]
        assert positions(9, 1, way).tolist() == [0]


def test_a_longer_motion_is_cut_but_a_stretched_one_keeps_both_ends():
    motion = sway(100)
    for way in ("loop", "ping-pong", "hold"):
        assert torch.equal(fit(motion, 30, way).latents, motion.latents[:30])
    assert torch.equal(fit(motion, 30, "stretch").latents[[0, -1]], motion.latents[[0, -1]])


def test_no_way_jumps():
    motion = Motion(sway(100, noise=0).latents)
    usual = motion.latents.diff(dim=0).norm(dim=1).max()
    for way in ("loop", "ping-pong", "hold", "stretch"):
        assert fit(motion, 500, way).latents.diff(dim=0).norm(dim=1).max() < 2 * usual


def test_frames_cover_the_sound():
    assert frames_of(2.0, 25) == 50
    assert frames_of(2.001, 25) == 51
    assert frames_of(0.0, 25) == 1


@pytest.mark.parametrize(("frames", "way"), [(0, "loop"), (5, "bounce")])
def test_nonsense_is_refused(frames, way):
    with pytest.raises(InputError):
        fit(sway(10), frames, way)


@pytest.mark.parametrize("way", ["loop", "ping-pong", "hold", "stretch"])
@pytest.mark.parametrize("keep", [1, 4, 1000])
def test_a_clip_shows_the_frames_of_its_places(way, keep):
    clip = [torch.tensor(number) for number in range(7)]
    places = positions(7, 30, way).round().long().tolist()
    assert [frame.item() for frame in frames_at(clip, places, keep)] == places


def test_a_clip_shorter_than_it_says_holds_its_last_frame():
    clip = [torch.tensor(number) for number in range(3)]
    assert [frame.item() for frame in frames_at(clip, [0, 4, 1, 5], keep=2)] == [0, 2, 1, 2]
    with pytest.raises(InputError, match="no frames"):
        list(frames_at([], [0]))
