"""SMIRK's encoders: files as published, and what the published network computes (tests/golden/README.md)."""

import pytest
import torch
from trackers import golden, made_up_tracker

from benchmarks.models import waves
from imtalker import InputError, load_renderer
from imtalker.weights.checkpoints import inspect, load_expressions, load_smirk

PREFIX = "smirk_encoder.pose_encoder."
HEAD = "pose_cam_layers.0.weight"


@pytest.fixture(scope="module")
def state():
    return made_up_tracker("smirk")


@pytest.mark.parametrize("size", ["224", "225", "161"])
def test_pose_and_camera_are_those_of_the_published_network(state, size):
    """Odd sides too: there the padding of strided convolutions is another."""
    pictures = torch.cat([waves(key, int(size)) for key in (101, 201)]).movedim(-1, 1)
    with torch.inference_mode():
        pose, cam = load_smirk(state)(pictures)
    expected = torch.tensor(golden("smirk")["outputs"][size])
    torch.testing.assert_close(torch.cat([pose, cam], dim=1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", ["224", "225", "161"])
def test_expression_eyelids_and_jaw_are_those_of_the_published_network(state, size):
    pictures = torch.cat([waves(key, int(size)) for key in (101, 201)]).movedim(-1, 1)
    encoder = load_expressions(state | made_up_tracker("smirk_expression"))
    with torch.inference_mode():
        said = torch.cat(encoder(pictures), dim=1)
    expected = torch.tensor(golden("smirk_expression")["outputs"][size])
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-5)


def test_a_file_of_the_pose_encoder_alone_has_no_expressions(state):
    assert load_expressions(state) is None
    whole = made_up_tracker("smirk_expression")
    missing = next(iter(whole))
    with pytest.raises(InputError, match=r"does not fit .*1 missing: encoder\.conv_stem\.weight"):
        load_expressions(state | {name: tensor for name, tensor in whole.items() if name != missing})


@pytest.mark.parametrize("prefix", [PREFIX, "pose_encoder.", ""])
def test_the_file_of_the_authors_and_its_encoder_alone_are_the_same_model(state, prefix, tmp_path):
    """A published file holds the encoders of shape and expression as well, and a generator of pictures."""
    whole = {prefix + name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    if prefix == PREFIX:
        whole |= {
            "smirk_encoder.shape_encoder.encoder.conv_stem.weight": torch.zeros(16, 3, 3, 3),
            "smirk_encoder.expression_encoder.expression_layers.0.weight": torch.zeros(55, 960),
            "smirk_generator.outc.weight": torch.zeros(3, 32, 1, 1),
        }
    torch.save(whole, tmp_path / "SMIRK_em1.pt")
    model = load_smirk(tmp_path / "SMIRK_em1.pt")
    assert not model.training
    assert {PREFIX + name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == {
        name: tuple(tensor.shape) for name, tensor in state.items() if "num_batches" not in name
    }
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[PREFIX + name]), name


def test_a_file_that_does_not_fit_is_refused_by_name(state):
    name = f"{PREFIX}encoder.blocks.3.1.conv_dw.weight"
    changes = {
        "1 missing: encoder.blocks.3.1.conv_dw.weight": {k: v for k, v in state.items() if k != name},
        "1 unexpected: encoder.blocks.3.2.bn1.weight": state | {f"{PREFIX}encoder.blocks.3.2.bn1.weight": state[name]},
        r"1 of another shape: pose_cam_layers.0.weight \(3, 576\) instead of \(6, 576\)": state
        | {PREFIX + HEAD: state[PREFIX + HEAD][:3]},
    }
    for sentence, changed in changes.items():
        with pytest.raises(InputError, match=f"a SMIRK encoder but does not fit .*{sentence}"):
            load_smirk(changed)


def test_files_of_another_kind_are_called_what_they_are(state, tmp_path):
    with pytest.raises(InputError, match=r"an L2CS-Net: choose a SMIRK encoder"):
        load_smirk({"fc_yaw_gaze.weight": torch.zeros(90, 2048)})
    with pytest.raises(InputError, match=r"something else .*fc.*: choose a SMIRK encoder"):
        load_smirk({"fc.weight": torch.zeros(3)})
    with pytest.raises(InputError, match=r"is a SMIRK encoder: choose a renderer"):
        load_renderer(state)
    assert inspect(state).weights.describe() == "a SMIRK encoder"
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"truncated"):
        load_smirk(tmp_path / "cut.pt")
