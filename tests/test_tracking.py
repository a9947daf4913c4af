"""Control read off faces: one camera for a clip, gaps held, and the angles of landmarks."""

import logging
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn
from trackers import made_up_tracker

from imtalker import InputError, tracking
from imtalker.face import follow as face
from imtalker.face.crop import Box, Crop
from imtalker.face.detectors import correct_box
from imtalker.face.follow import FaceNotFound
from imtalker.weights.checkpoints import load_smirk

HEIGHT, WIDTH = 240, 320
METRE = 400.0  # pixels, where the made-up head is as large as usual


def box_at(x, y, side=80.0):
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


# One camera


def pixels(cam, crop, points):
    """Where the camera puts points of the head (N,2), in metres with y up, in the picture."""
    s, tx, ty = cam
    centre = torch.tensor([crop.x + crop.size / 2, crop.y + crop.size / 2])
    inside = s * (points + torch.stack([tx, ty])) * torch.tensor([1.0, -1.0])
    return centre + inside * crop.size / 2


def test_every_point_of_the_head_stays_at_its_pixel_in_the_fixed_crop():
    random = torch.Generator().manual_seed(0)
    crops = [Crop(10 * n, 50 - 7 * n, 100 + 20 * n, HEIGHT, WIDTH) for n in range(5)]
    cams = torch.tensor([8.0, 0, 0]) + torch.randn(5, 3, generator=random) * torch.tensor([1.0, 0.05, 0.05])
    points = torch.randn(20, 2, generator=random) * 0.1
    fixed = Crop(33.0, 21.0, 140.0, HEIGHT, WIDTH)
    for cam, crop, new in zip(cams, crops, tracking.fixed_cam(cams, crops, fixed)):
        torch.testing.assert_close(pixels(new, fixed, points), pixels(cam, crop, points), rtol=0, atol=1e-3)
    torch.testing.assert_close(tracking.fixed_cam(cams, [fixed] * 5, fixed), cams)


class SeesDisc(nn.Module):
    """Stands for SMIRK: measures a bright disc of 0.1 m in what it is shown, in SMIRK's terms."""

    def __init__(self):
        super().__init__()
        self.number = nn.Parameter(torch.zeros(1))
        self.shown = 0

    def forward(self, images):
        self.shown += len(images)
        bright, side = images[:, 0], images.shape[-1]
        at = (torch.arange(side) + 0.5) / side * 2 - 1
        area = bright.sum((1, 2))
        x, y = (bright.sum(1) * at).sum(1) / area, (bright.sum(2) * at).sum(1) / area
        s = 2 / side * (area / math.pi).sqrt() / 0.1
        return torch.stack([x, y, area], 1), torch.stack([s, x / s, -y / s], 1)


def disc_clip(count=30):
    """A disc that sways and comes nearer, and the boxes that a jittery detector draws around it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    frames, boxes, truth = [], [], []
    for t in range(count):
        cx, cy = 160 + 25 * math.sin(t / 8), 120 + 10 * math.cos(t / 8)
        metre = METRE * (1 + 0.2 * t / count)
        bright = np.clip(0.1 * metre + 0.5 - np.hypot(x - cx, y - cy), 0, 1)
        frames.append(torch.from_numpy(bright).float()[..., None].expand(-1, -1, 3))
        boxes.append(box_at(*(np.array([cx, cy]) + rng.normal(0, 2, 2)), 0.25 * metre + rng.normal(0, 2)))
        truth.append((cx, cy, metre))
    return frames, boxes, torch.tensor(truth)


def test_the_camera_follows_the_head_and_not_the_crop():
    frames, boxes, truth = disc_clip()
    control = tracking.control_from_frames(frames, boxes, 25.0, smirk=SeesDisc())
    fixed = tracking.smirk_crop(face.steady_box(boxes), HEIGHT, WIDTH)
    place = torch.stack([pixels(cam, fixed, torch.zeros(1, 2))[0] for cam in control.cam])
    assert (place - truth[:, :2]).abs().max() < 0.3
    assert (control.cam[:, 0] * fixed.size / 2 / truth[:, 2] - 1).abs().max() < 0.01
    assert control.cam[:, 1].max() - control.cam[:, 1].min() > 0.07  # the sway is in it
    # about the size that SMIRK itself gives, for a head that stays where it is
    assert control.cam[:, 0].median() == pytest.approx(2 / (1.4 * 0.25), rel=0.05)


# Gaps, rates, batches


def test_gaps_are_held_and_counted(caplog):
    frames, boxes, _ = disc_clip(12)
    gaps = [0, 1, 5, 6, 11]
    shown = [None if number in gaps else box for number, box in enumerate(boxes)]
    seer = SeesDisc()
    with caplog.at_level(logging.WARNING, "imtalker"):
        control = tracking.control_from_frames(frames, shown, 30.0, smirk=seer)
    assert "not found in 5 of 12 frames" in caplog.text
    assert seer.shown == 7
    held = [2, 2, 2, 3, 4, 4, 4, 7, 8, 9, 10, 10]
    for rows in (control.pose, control.cam):
        assert torch.equal(rows, rows[held])
        assert len(rows.unique(dim=0)) == 7
    assert control.fps == 30.0
    assert len(control.at_fps(25.0).pose) == 10
    assert control.gaze is None
    with pytest.raises(FaceNotFound, match="No face was found in any of 12 frames"):
        tracking.control_from_frames(frames, [None] * 12, 30.0, smirk=seer)


def test_batches_and_number_formats_change_nothing():
    random = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (5, HEIGHT // 4, WIDTH // 4, 3), generator=random, dtype=torch.uint8)
    boxes = [box_at(40, 30, 30), None, box_at(41, 30, 30), box_at(42, 31, 30), box_at(42, 32, 30)]
    smirk, done = load_smirk(made_up_tracker("smirk")), []
    one = tracking.control_from_frames(frames, boxes, 25.0, smirk=smirk, batch_size=1)
    many = tracking.control_from_frames(
        iter(frames / 255), boxes, 25.0, smirk=smirk, batch_size=4, progress=done.append
    )
    torch.testing.assert_close(many.pose, one.pose, rtol=0, atol=1e-5)
    torch.testing.assert_close(many.cam, one.cam, rtol=0, atol=1e-5)
    assert done == [4, 1]


@pytest.mark.parametrize(("frames", "words"), [(2, "There are 2 frames but 3"), (4, "more than 3 frames but 3")])
def test_frames_and_boxes_of_different_clips_are_refused(frames, words):
    with pytest.raises(InputError, match=words):
        tracking.control_from_frames(torch.ones(frames, 60, 80, 3), [box_at(40, 30, 30)] * 3, 25.0, smirk=SeesDisc())


class SeesColours(nn.Module):
    """Stands for L2CS-Net: says which colours are at the left and at the top of what it is shown."""

    def __init__(self):
        super().__init__()
        self.number = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        assert images.shape[1:] == (3, 448, 448)
        return torch.stack([images[:, 0, 224, 0], images[:, 1, 0, 224]], 1)


def test_the_gaze_network_is_shown_the_stretched_face_in_the_order_asked_for():
    frame = torch.zeros(HEIGHT, WIDTH, 3)
    frame[..., 0] = (torch.arange(WIDTH) + 0.5) / WIDTH
    frame[..., 1] = ((torch.arange(HEIGHT) + 0.5) / HEIGHT)[:, None]
    sfd = box_at(150, 110, 100)
    boxes = [tracking.mesh_box(sfd)] * 3
    control = tracking.control_from_frames([frame] * 3, boxes, 25.0, l2cs=SeesColours())
    # the detector's box, 100 high and 224/304 as wide
    expected = torch.tensor([(150 - 50 * 224 / 304) / WIDTH, 60 / HEIGHT])
    assert (control.gaze - expected).abs().max() < 0.003
    assert control.pose is None
    swapped = tracking.control_from_frames([frame] * 3, boxes, 25.0, l2cs=SeesColours(), gaze_order="swapped")
    assert torch.equal(swapped.gaze, control.gaze.flip(-1))
    with pytest.raises(InputError, match="gaze order 'yaw first'"):
        tracking.control_from_frames([frame] * 3, boxes, 25.0, l2cs=SeesColours(), gaze_order="yaw first")


# Boxes


def test_mesh_boxes_are_the_inverse_of_the_correction():
    sfd = Box(100, 80, 180, 190, 0.7)
    back = correct_box(tracking.mesh_box(sfd), "mediapipe_mesh")
    assert back.center == pytest.approx(sfd.center)
    assert back.side == pytest.approx(sfd.side)
    crop = tracking.smirk_crop(tracking.mesh_box(sfd), HEIGHT, WIDTH)
    assert crop.size == pytest.approx(1.4 * 0.92 * 110 / 1.10)
    assert crop.x + crop.size / 2 == pytest.approx(140)
    assert crop.y + crop.size / 2 == pytest.approx(135 + 0.055 * 100)  # a mesh has no forehead, so it is lower


def test_faces_are_followed_and_frames_of_bytes_are_understood(monkeypatch):
    found, asked = iter([[box_at(50, 50), box_at(200, 50, 60)], [], [box_at(203, 50, 60), box_at(55, 52)]]), []
    monkeypatch.setattr(face, "open_detector", lambda *args: lambda frame: asked.append(frame.max()) or next(found))
    frames = torch.full((3, HEIGHT, WIDTH, 3), 255, dtype=torch.uint8)
    boxes = tracking.face_boxes(frames)
    assert boxes == [tracking.mesh_box(box_at(50, 50)), None, tracking.mesh_box(box_at(55, 52))]
    assert max(asked) == 1


# Landmarks

SCALE, DEPTH = 90.0, 0.35  # pixels between the eyes; z in their units


def landmark_face(pose=(0.0, 0.0, 0.0), look=(0.0, 0.0), at=(160.0, 120.0), size=1.0):
    """A face as ComfyUI's node gives it: turned by the axis-angle `pose`, eyes turned by `look` = right, up radians."""
    rng = np.random.default_rng(3)
    points = rng.uniform(-1, 1, (tracking.LANDMARKS, 3)) * (0.8, 1.0, DEPTH)
    right, up = look
    gaze = np.array([math.sin(right) * math.cos(up), math.sin(up), math.cos(right) * math.cos(up)])
    for iris, corners, x in zip(tracking.IRISES, tracking.EYE_CORNERS, (-0.5, 0.5)):
        points[list(corners)] = [(x - 0.2, 0.1, 0.3), (x + 0.2, 0.1, 0.3)]
        points[iris] = (x, 0.1, 0.3) + (gaze - (0, 0, 1)) * tracking.EYE_RADIUS * 0.4
    turned = Rotation.from_rotvec(pose).as_matrix()
    points = points @ turned.T * SCALE * size
    plane = np.array(at) + points[:, :2] * (1, -1)
    # the square the network looked at: rolled, smaller, z towards the picture
    roll = Rotation.from_rotvec([0, 0, 0.3]).as_matrix()[:2, :2] * 0.4
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = 1.7 * turned, (3, -2, -40)
    low, high = plane.min(0), plane.max(0)
    return {
        "landmarks_xy": plane.astype(np.float32),
        "landmarks_3d": np.column_stack([plane @ roll.T + (96, 96), points[:, 2] * -0.4]).astype(np.float32),
        "bbox_xyxy": np.array([*low, *high], np.float32),
        "score": 0.9,
        "transformation_matrix": matrix.astype(np.float32),
    }


def landmarks(*frames):
    return {"frames": [list(faces) for faces in frames], "image_size": (HEIGHT, WIDTH), "connection_sets": {}}


@pytest.mark.parametrize(
    "pose", [(0.0, 0.0, 0.0), (0.3, 0.0, 0.0), (0.0, 0.4, 0.0), (0.0, 0.0, -0.2), (0.2, -0.3, 0.1)]
)
def test_pose_is_the_rotation_of_the_matrix_and_eyes_on_the_camera_look_at_it(pose):
    turned = Rotation.from_rotvec(pose)
    # the direction to the camera, in the head's own axes
    x, y, _ = turned.inv().apply([0, 0, 1])
    faces = [landmark_face(pose, (math.atan2(x, math.sqrt(1 - x**2 - y**2)), math.asin(y)))]
    control = tracking.control_from_landmarks(landmarks(faces), 25.0)
    assert control.pose[0].tolist() == pytest.approx(pose, abs=1e-5)
    assert control.gaze[0].tolist() == pytest.approx((0, 0), abs=1e-3)
    assert control.cam is None


def test_signs_of_pose_and_gaze():
    """SMIRK: + is nose down, nose to the picture's right, crown to its left. L2CS-Net: + is left, up."""
    for pose, direction, part, sign in (
        ((0.3, 0, 0), (0, 0, 1), 1, -1),
        ((0, 0.3, 0), (0, 0, 1), 0, 1),
        ((0, 0, 0.3), (0, 1, 0), 0, -1),
    ):
        (row,) = tracking.control_from_landmarks(landmarks([landmark_face(pose)]), 25.0).pose
        assert Rotation.from_rotvec(row.numpy()).apply(direction)[part] * sign > 0.2
    for look, gaze in (((-0.2, 0), (0.2, 0)), ((0, 0.25), (0, 0.25)), ((0.1, -0.1), (-0.1, -0.1))):
        control = tracking.control_from_landmarks(landmarks([landmark_face(look=look)]), 25.0)
        assert control.gaze[0].tolist() == pytest.approx(gaze, abs=1e-3)
        swapped = tracking.control_from_landmarks(landmarks([landmark_face(look=look)]), 25.0, gaze_order="swapped")
        assert torch.equal(swapped.gaze, control.gaze.flip(-1))
    # the eyes go with the head
    turned = tracking.control_from_landmarks(landmarks([landmark_face((0, 0.4, 0), (0.1, 0))]), 25.0)
    assert turned.gaze[0].tolist() == pytest.approx((-0.5, 0), abs=1e-3)


def test_gaps_of_landmarks_are_held_and_one_person_is_followed(caplog):
    def mine(n):
        return landmark_face((0.0, 0.1 * n, 0.0), at=(100 + 2 * n, 120))

    other = landmark_face((0.0, 0.0, 0.5), at=(260, 120), size=0.5)
    clip = landmarks([], [other, mine(1)], [mine(2), other], [other], [], [mine(5)])
    control = tracking.control_from_landmarks(clip, 12.0)
    assert control.pose[:, 1].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.2, 0.5], abs=1e-5)
    assert control.pose[:, 2].abs().max() < 1e-5
    assert control.fps == 12.0
    assert "not found in 3 of 6 frames" in caplog.text
    boxes = tracking.landmark_boxes(clip)
    assert [box is None for box in boxes] == [True, False, False, True, True, False]
    assert boxes[5].x0 == pytest.approx(mine(5)["bbox_xyxy"][0])


def test_landmarks_without_irises_or_matrix_and_other_things():
    plain = landmark_face((0.1, 0.2, 0.3))
    plain["landmarks_xy"] = plain["landmarks_xy"][:468]
    assert tracking.control_from_landmarks(landmarks([plain]), 25.0).gaze is None
    del plain["transformation_matrix"]
    with pytest.raises(InputError, match=r"no transformation_matrix.* Detect Face Landmarks"):
        tracking.control_from_landmarks(landmarks([plain]), 25.0)
    with pytest.raises(InputError, match="no face in any of 2 frames"):
        tracking.control_from_landmarks(landmarks([], []), 25.0)
    for other in (
        {},
        {"frames": [[{"x": 1}]], "image_size": (1, 1)},
        [[1, 2, 3, 4]],
        {"frames": 3, "image_size": (1, 1)},
    ):
        with pytest.raises(InputError, match="connect its face_landmarks"):
            tracking.control_from_landmarks(other, 25.0)
