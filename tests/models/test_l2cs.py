"""L2CS-Net: files as published, and what the published network computes (tests/golden/README.md)."""

import math

import pytest
import torch
from trackers import golden, made_up_tracker

from benchmarks.models import waves
from imtalker import InputError
from imtalker.weights.checkpoints import load_l2cs


@pytest.fixture(scope="module")
def state():
    return made_up_tracker("l2cs")


def test_angles_are_those_of_the_published_network(state):
    pictures = torch.cat([waves(key, 448) for key in (101, 201)]).movedim(-1, 1)
    with torch.inference_mode():
        angles = load_l2cs(state)(pictures)
    expected = torch.tensor(golden("l2cs")["outputs"]["448"])
    torch.testing.assert_close(angles, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("number", "degrees"), [(0, -180), (45, 0), (50, 20), (89, 176)])
def test_a_certain_answer_is_its_bins_angle(state, number, degrees):
    """The first angle is that of fc_yaw_gaze, whatever the published pipeline calls it."""
    certain = {name: torch.zeros_like(tensor) for name, tensor in state.items() if name.startswith("fc_")}
    certain["fc_yaw_gaze.bias"][number] = 100
    certain["fc_pitch_gaze.bias"][45] = 100
    with torch.inference_mode():
        angles = load_l2cs(state | certain)(torch.rand(1, 3, 64, 64))
    assert angles[0].tolist() == pytest.approx([math.radians(degrees), 0], abs=1e-5)


def test_the_published_names_load_strictly(state, tmp_path):
    torch.save(state, tmp_path / "L2CSNet_gaze360.pkl", _use_new_zipfile_serialization=False)
    model = load_l2cs(tmp_path / "L2CSNet_gaze360.pkl")
    assert not model.training
    unused = ("fc_finetune.weight", "fc_finetune.bias")
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == {
        name: tuple(tensor.shape) for name, tensor in state.items() if "num_batches" not in name and name not in unused
    }
    for name in ("layer3.5.bn2.running_var", "layer2.0.downsample.0.weight"):
        with pytest.raises(InputError, match=f"an L2CS-Net but does not fit .*1 missing: {name}"):
            load_l2cs({key: tensor for key, tensor in state.items() if key != name})
    load_l2cs({name: tensor for name, tensor in state.items() if name not in unused})
    smaller = {name: tensor for name, tensor in state.items() if not name.startswith("layer3.5.")}
    with pytest.raises(InputError, match=r"15 missing: layer3\.5"):
        load_l2cs(smaller)


def test_files_of_another_kind_are_called_what_they_are():
    with pytest.raises(InputError, match=r"a SMIRK encoder: choose an L2CS-Net"):
        load_l2cs({"pose_encoder.pose_cam_layers.0.weight": torch.zeros(6, 576)})
