import numpy as np
import pytest
import torch
from meaning import sentence, value

from imtalker import Control, InputError, Motion
from imtalker.avatar.readback import correlation
from imtalker.motion.control import blend, load_gaze, load_pose
from imtalker.motion.keyframes import CHANNELS, to_control


def test_a_saved_control_loads_unchanged(tmp_path):
    control = Control(pose=torch.randn(7, 3), gaze=torch.randn(5, 2), fps=30)
    control.save(tmp_path / "c.safetensors")
    loaded = Control.load(tmp_path / "c.safetensors")
    assert torch.equal(loaded.pose, control.pose)
    assert torch.equal(loaded.gaze, control.gaze)
    assert (loaded.cam, loaded.fps) == (None, 30)


def test_another_kind_of_file_is_named(tmp_path):
    Motion(torch.zeros(2, 32)).save(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="holds motion, not control"):
        Control.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "parts", [{"pose": torch.zeros(4, 2)}, {"gaze": torch.zeros(0, 2)}, {"cam": torch.full((2, 3), float("inf"))}]
)
def test_wrong_shapes_and_values_are_refused(parts):
    with pytest.raises(InputError, match=next(iter(parts))):
        Control(**parts)


def test_published_pose_and_gaze_files_are_read(tmp_path):
    pose, cam, gaze = torch.randn(6, 3), torch.randn(6, 3), np.random.rand(6, 2)
    torch.save({"pose_params": pose, "cam": cam}, tmp_path / "p.pt")
    np.save(tmp_path / "g.npy", gaze)
    loaded = load_pose(tmp_path / "p.pt")
    assert torch.equal(loaded["pose"], pose)
    assert torch.equal(loaded["cam"], cam)
    torch.testing.assert_close(load_gaze(tmp_path / "g.npy"), torch.from_numpy(gaze).float())


def test_other_pose_and_gaze_files_are_refused(tmp_path):
    torch.save({"other": torch.zeros(1)}, tmp_path / "p.pt")
    with pytest.raises(InputError, match="neither 'pose_params' nor 'cam'"):
        load_pose(tmp_path / "p.pt")
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    for name in ("text.npy", "objects.npy", "none.npy"):
        with pytest.raises(InputError, match=name):
            load_gaze(tmp_path / name)


# the motion value that each editor channel moves, and its sign
MOVED = {name: (name, 1) for name in ("yaw", "pitch", "roll", "x", "y")}
MOVED |= {"distance": ("scale", -1), "horizontal": ("gaze_x", 1), "vertical": ("gaze_y", 1)}
PARTS = (("yaw", "pitch", "roll"), ("x", "y", "scale"), ("gaze_x", "gaze_y"))


def drawn(channel, *keyframes):
    return to_control({"version": 1, "channels": {channel: keyframes}}, seconds=4)


@pytest.mark.parametrize("channel", CHANNELS)
def test_each_channel_moves_its_own_value_the_right_way_at_the_right_time(avatar, channel):
    """Against the opposite control, which cancels what speech and noise do to the head."""
    limits = CHANNELS[channel]
    name, sign = MOVED[channel]
    one, other = (
        avatar.say(sentence(pause=0), control=drawn(channel, (1.4, before), (1.6, after)), joins="published")
        for before, after in ((limits.high, limits.low), (limits.low, limits.high))
    )
    moved = sign * value(one - other, name)
    drawn_step = torch.where(torch.arange(100) < 38, 1.0, -1.0)  # 1.5 s
    assert correlation(moved, drawn_step) > 0.8
    first, last = moved[:10].mean(), moved[-10:].mean()
    assert first > 0.05 > -0.05 > last
    # x and y change slowly: they cross the middle near the drawn time
    (turns,) = torch.where((moved[5:-1] > (first + last) / 2) & (moved[6:] <= (first + last) / 2))
    assert abs(turns + 5 - 38).min() <= (8 if name in ("x", "y") else 6)
    (part,) = (part for part in PARTS if name in part)
    assert max(part, key=lambda each: value(one - other, each).std()) == name


def test_strength_and_share_move_the_head_gradually(avatar):
    """Mean yaw from no control to full, and from one control to its opposite."""

    def mean(control):
        return value(avatar.say(sentence(pause=0), control=control), "yaw").mean()

    right, left = drawn("yaw", (0, 20)), drawn("yaw", (0, -20))
    by_strength = [mean(right.with_strength(strength)) for strength in (0, 0.5, 1)]
    assert by_strength[0] + 0.05 < by_strength[1] < by_strength[2] - 0.05
    by_share = [mean(blend(right, left, share)) for share in (0, 0.25, 0.75, 1)]
    assert by_share == sorted(by_share, reverse=True)
    assert by_share[0] > 0.1
    assert by_share[-1] < -0.1
