import numpy as np
import pytest
import torch

from imtalker import Control, InputError, Motion
from imtalker.control import load_gaze, load_pose


def test_save_and_load(tmp_path):
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


def test_published_pose_and_gaze_files(tmp_path):
    pose, cam, gaze = torch.randn(6, 3), torch.randn(6, 3), np.random.rand(6, 2)
    torch.save({"pose_params": pose, "cam": cam}, tmp_path / "p.pt")
    np.save(tmp_path / "g.npy", gaze)
    loaded = load_pose(tmp_path / "p.pt")
    assert torch.equal(loaded["pose"], pose)
    assert torch.equal(loaded["cam"], cam)
    torch.testing.assert_close(load_gaze(tmp_path / "g.npy"), torch.from_numpy(gaze).float())


def test_other_files_in_their_place(tmp_path):
    torch.save({"other": torch.zeros(1)}, tmp_path / "p.pt")
    with pytest.raises(InputError, match="neither 'pose_params' nor 'cam'"):
        load_pose(tmp_path / "p.pt")
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    for name in ("text.npy", "objects.npy", "none.npy"):
        with pytest.raises(InputError, match=name):
            load_gaze(tmp_path / name)
