"""Readings of faces under the names of channels, and the rig learned from them."""

import math

import numpy as np
import pytest
import torch
from scrambled import mixing
from test_tracking import landmark_face, landmarks

from imtalker import InputError, Motion, readings
from imtalker.face.crop import Box
from imtalker.motion.keyframes import camera, eye_angles, head_pose
from imtalker.motion.rig_learning import correlations


def test_head_and_gaze_have_the_keyframes_units_and_signs():
    yaw, pitch, roll = (np.array(v, float) for v in ([0, 20, 0, 0, 10], [0, 0, 10, 0, -5], [0, 0, 0, 12, 3]))
    said = {
        "pose": torch.from_numpy(head_pose(yaw, pitch, roll)),
        "cam": torch.from_numpy(camera(np.array([1, 1.2, 1, 1, 0.9]), 0.05 * yaw / 20, -0.02 * roll / 12)),
        "gaze": torch.from_numpy(eye_angles(yaw, np.zeros(5))),  # with the head: the eyes stay in its middle
    }
    found = readings.from_networks(said, [Box(0, 0, 9, 9)] * 5).values
    for name, wanted in {
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "x": 0.05 * yaw / 20,
        "y": -0.02 * roll / 12,
    }.items():
        assert found[name].numpy() == pytest.approx(wanted, abs=1e-4), name
    assert found["distance"].tolist() == pytest.approx([0, 0.2, 0, 0, -0.1], abs=1e-4)
    assert found["gaze horizontal"][:2].abs().max() < 1e-3
    assert found["gaze vertical"][2].item() == pytest.approx(-10, abs=1e-3)  # the head looks up and the eyes do not


def test_landmarks_without_a_face_in_some_frames():
    def face(yaw, jaw):
        one = landmark_face((0.0, yaw, 0.0), look=(0.1, 0.0), at=(160 + 10 * yaw, 120))
        one["transformation_matrix"][:3, 3] = (2 * yaw, 0, -40 - 10 * yaw)
        names = {name for _, weights in readings.SHAPES.values() for name in weights}
        return one | {"blendshapes": dict.fromkeys(names, 0.0) | {"jawOpen": jaw, "eyeBlinkLeft": 0.3}}

    found = readings.from_landmarks(landmarks([face(0.0, 0.1)], [], [face(0.2, 0.9)]))
    assert found.visible.tolist() == [True, False, True]
    assert found.values["mouth open"].tolist() == pytest.approx([0.1, 0.9])
    assert found.values["blink left"].tolist() == pytest.approx([0.3, 0.3])
    assert found.values["yaw"].tolist() == pytest.approx([0, math.degrees(0.2)], abs=1e-3)
    assert found.values["x"].diff() > 0
    assert found.values["distance"].diff() > 0
    plain = landmark_face()
    assert readings.from_landmarks(landmarks([plain])).values.keys().isdisjoint(readings.SHAPES)


def test_expressions_eyelids_and_jaw():
    said = {
        "expression": torch.rand(3, 50),
        "eyelids": torch.tensor([[0.1, 0.2]] * 3),
        "jaw": torch.tensor([[0.2, -0.1, 0]] * 3),
    }
    found = readings.from_networks(said, [Box(0, 0, 9, 9)] * 3).values
    assert found["mouth open"][0].item() == pytest.approx(math.degrees(0.2), abs=1e-4)
    assert (found["blink left"][0].item(), found["blink right"][0].item()) == pytest.approx((0.1, 0.2))
    assert torch.equal(found["expression 10"], said["expression"][:, 9])
    assert found.keys() <= readings.PARTS.keys()


def test_a_rig_is_learned_from_the_frames_that_show_the_face():
    random = torch.Generator().manual_seed(0)
    values = torch.randn(400, 3, generator=random).cumsum(0) / 10
    latents = torch.cat([values, torch.randn(400, 13, generator=random) * 0.1], dim=1) @ mixing()
    visible = torch.arange(400) % 7 != 3
    latents[~visible] = 50  # whatever was encoded where the face was hidden
    named = dict(zip(("yaw", "blink left", "mouth open"), values[visible].unbind(1)))
    rig = readings.learn_rig(Motion(latents, weights="renderer 0123456789abcdef"), readings.Readings(named, visible))
    assert rig.weights == "renderer 0123456789abcdef"
    assert [channel.part for channel in rig.channels] == ["head", "eyes", "mouth"]
    found = torch.stack([rig.read(Motion(latents[visible]))[name] for name in named], dim=1)
    assert correlations(found, values[visible]).min() > 0.99


def test_what_does_not_belong_together_is_refused():
    read = readings.Readings({"yaw": torch.zeros(9)}, torch.ones(9, dtype=torch.bool))
    with pytest.raises(InputError, match="motion has 8 frames but the readings 9"):
        readings.learn_rig(Motion(torch.zeros(8, 4)), read)
    with pytest.raises(InputError, match="readings of 9 and of 5 frames"):
        readings.joined(read, readings.Readings({}, torch.ones(5, dtype=torch.bool)))
    with pytest.raises(InputError, match="Nothing was read"):
        readings.learn_rig(Motion(torch.zeros(9, 4)), readings.Readings({}, torch.ones(9, dtype=torch.bool)))


def test_two_readings_of_one_clip():
    one = readings.Readings({"yaw": torch.tensor([1.0, 2, 3])}, torch.tensor([True, True, False, True]))
    other = readings.Readings(
        {"yaw": torch.tensor([7.0, 8, 9]), "roll": torch.tensor([4.0, 5, 6])}, torch.tensor([False, True, True, True])
    )
    both = readings.joined(one, other)
    assert both.visible.tolist() == [False, True, False, True]
    assert both.values["yaw"].tolist() == [2, 3]
    assert both.values["roll"].tolist() == [4, 6]
