"""Detection through the real OpenCV, and tracking that stays still."""

import logging
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from imtalker.errors import InputError
from imtalker.face import detectors, follow
from imtalker.face.crop import Box, Crop

# real portraits, where the machine has them: none are committed
ASSETS = Path(__file__).parents[3] / "shared" / "assets"


def picture(height=300, width=400, seed=0):
    """A smooth random picture (H, W, 3): something to resample that has no detail finer than a few pixels."""
    noise = torch.rand(1, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0).contiguous()


def has_haar():
    cv2 = pytest.importorskip("cv2")
    return hasattr(cv2, "CascadeClassifier") and (Path(cv2.__file__).parent / "data" / detectors.HAAR_FILE).is_file()


# Geometry


def test_corrections_keep_the_proportions_and_know_their_detectors():
    box = Box(100, 100, 180, 200, 0.5)
    assert detectors.correct_box(box, "yunet") == box
    mesh = detectors.correct_box(box, "mediapipe_mesh")
    assert mesh.side == pytest.approx(110)
    assert mesh.center == pytest.approx((140, 144.5))
    assert mesh.score == 0.5
    assert (mesh.x1 - mesh.x0) / (mesh.y1 - mesh.y0) == pytest.approx(0.8)
    with pytest.raises(InputError, match="no kind of face box"):
        detectors.correct_box(box, "cascade")


# Choice and tracking

PEOPLE = [Box(300, 10, 340, 50, 0.9), Box(10, 10, 110, 110, 0.7), Box(190, 130, 240, 180, 0.8)]


@pytest.mark.parametrize(
    ("which", "expected"), [("largest", 1), ("left to right", 1), ("nearest to centre", 2), ("best score", 0)]
)
def test_choice(which, expected):
    assert follow.choose_face(PEOPLE, which, size=(300, 400)) is PEOPLE[expected]
    assert follow.choose_face(PEOPLE[::-1], which, size=(300, 400)) is PEOPLE[expected]


def test_choice_by_number():
    assert follow.choose_face(PEOPLE, "left to right", index=2) is PEOPLE[0]
    with pytest.raises(InputError, match=r"number 3 .* 3 found"):
        follow.choose_face(PEOPLE, index=3)
    with pytest.raises(follow.FaceNotFound):
        follow.choose_face([])


def test_steady_box_ignores_a_wild_frame_and_gaps():
    boxes = [Box(10, 10, 50, 60), None, Box(12, 10, 52, 60), Box(11, 10, 51, 60), Box(300, 300, 310, 310), None]
    box = follow.steady_box(boxes)
    assert 11 <= box.x0 <= 12
    assert box.y0 == 10
    for whole in (follow.steady_box, lambda boxes: follow.smooth_boxes(boxes, 25)):
        with pytest.raises(InputError, match="No face was found in any of 2 frames"):
            whole([None, None])


def test_smoothing_stills_jitter_bridges_gaps_and_does_not_lag():
    rng = np.random.default_rng(0)
    truth = [(200 + 40 * math.sin(2 * math.pi * t / 200), 150.0, 100.0) for t in range(200)]  # an 8 second sway
    boxes = []
    for x, y, side in truth:
        x, y, side = np.array([x, y, side]) + rng.normal(0, 4, 3)
        boxes.append(Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2))
    boxes[60:70] = [None] * 10
    boxes[120] = Box(0, 0, 30, 30)
    smooth = follow.smooth_boxes(boxes, fps=25)
    got = np.array([(*box.center, box.side) for box in smooth])
    assert len(smooth) == 200
    assert np.abs(np.diff(got, 2, axis=0)).max() < 0.5  # pixels per frame and frame; the jitter's is about 10
    assert np.abs(got - truth)[10:-10].max() < 4  # the very ends, with nothing beyond, lean inwards
    shifts = range(-10, 11)
    errors = [np.square(np.roll(got[:, 0], -s)[20:-20] - np.array(truth)[20:-20, 0]).sum() for s in shifts]
    assert abs(shifts[int(np.argmin(errors))]) <= 1


def follow_script(script, monkeypatch, **options):
    """follow_face over a video whose detections are `script`: what is tested is the following, not the finding."""
    found = iter(script)
    monkeypatch.setattr(follow, "open_detector", lambda *args: lambda frame: next(found))
    return follow.follow_face([torch.zeros(300, 400, 3)] * len(script), **options)


def test_following_stays_with_one_person(monkeypatch):
    def at(x, side=60.0):
        return Box(x, 50, x + side, 50 + side)

    mine = [at(20.0 + 3 * n) for n in range(8)]
    script = [[], *[[at(300 - 3 * n, 80), box] for n, box in enumerate(mine)]]
    script[4] = script[4][:1]  # only the other person is seen here
    script[6] = [at(56, 12)]  # and here only a speck in the right place
    followed = follow_script(script, monkeypatch, which="left to right")
    assert followed == [None, *mine[:3], None, mine[4], None, *mine[6:]]


def test_looking_at_some_frames_only(monkeypatch):
    script = [[Box(0, 0, 50, 50)], [Box(1, 0, 51, 50)]]
    followed = follow_script([*script, [], []], monkeypatch, every=3)
    assert followed == [script[0][0], None, None, script[1][0]]


# Detectors


def build_yunet_stand_in(path, side=96):
    """A network with YuNet's fixed input and twelve outputs that finds a `side` square where the picture is red."""
    onnx = pytest.importorskip("onnx")
    helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
    nodes, constants, outputs = [], [], []

    def constant(name, values):
        constants.append(onnx.numpy_helper.from_array(values, name))
        return name

    for stride in (8, 16, 32):
        pad = (side - stride) // 2
        pool = f"pool_{stride}"
        nodes.append(
            helper.make_node(
                "AveragePool", ["input"], [pool], kernel_shape=[side] * 2, strides=[stride] * 2, pads=[pad] * 4
            )
        )
        heads = {
            "cls": ([[-0.02, -0.02, 0.04]], [-7.0 if stride == 8 else -40.0]),  # blue, green, red: OpenCV's order
            "obj": ([[0.0] * 3], [20.0]),
            "bbox": ([[0.0] * 3] * 4, [0.5, 0.5, math.log(side / stride), math.log(side / stride)]),
            "kps": ([[0.0] * 3] * 10, [0.0] * 10),
        }
        for head, (weight, bias) in heads.items():
            name, channels, cells = f"{head}_{stride}", len(bias), (640 // stride) ** 2
            w = constant(f"{name}_w", np.array(weight, np.float32).reshape(channels, 3, 1, 1))
            b = constant(f"{name}_b", np.array(bias, np.float32))
            shape = constant(f"{name}_shape", np.array([1, cells, channels], np.int64))
            last = f"{name}_conv"
            nodes.append(helper.make_node("Conv", [pool, w, b], [last], kernel_shape=[1, 1]))
            if head in ("cls", "obj"):
                nodes.append(helper.make_node("Sigmoid", [last], [last + "_s"]))
                last += "_s"
            nodes.append(helper.make_node("Transpose", [last], [last + "_t"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [last + "_t", shape], [name]))
            outputs.append(helper.make_tensor_value_info(name, FLOAT, [1, cells, channels]))
    source = helper.make_tensor_value_info("input", FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "stand_in", [source], outputs, constants)
    opset = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


@pytest.mark.parametrize(
    ("height", "width", "x", "y"),
    [(640, 640, 300, 200), (1280, 960, 700, 900), (300, 400, 100, 200), (4000, 1000, 500, 3000)],
)
def test_yunet_boxes_lie_in_the_pictures_own_pixels(tmp_path, height, width, x, y):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "gesicht-ü.onnx"
    build_yunet_stand_in(path)
    scale = max(1, max(height, width) / 640)
    half = round(48 * scale)
    image = torch.full((height, width, 3), 0.3)
    image[y - half : y + half, x - half : x + half] = torch.tensor([1.0, 0, 0])
    found = detectors._yunet(cv2, path)(image)
    assert found[0].center == pytest.approx((x, y), abs=5 * scale)
    assert found[0].side == pytest.approx(96 * scale, rel=0.01)
    assert found == sorted(found, key=lambda box: -box.score)
    assert detectors._yunet(cv2, path)(image.flip(-1)) == []  # blue now: the channels are not mixed up


def test_a_damaged_yunet_file_is_not_used(tmp_path, caplog):
    (tmp_path / detectors.YUNET_FILE).write_bytes(b"not a network")
    assert detectors._find_yunet([tmp_path]) is None
    assert "download it again" in caplog.text
    with pytest.raises(detectors.DetectorMissing, match=r"pip install .* imtalker download.*none"):
        detectors.detect_faces(picture(), "yunet", [tmp_path])


def test_without_opencv_the_package_loads_and_says_what_to_do(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "cv2", None)  # what import does when a library underneath cannot be loaded
    with pytest.raises(detectors.DetectorMissing, match="pip install opencv-python"):
        detectors.detect_faces(picture())
    with caplog.at_level(logging.WARNING):
        assert follow.find_crop(picture(), fallback="centre") == Crop(50, 0, 300, 300, 400)
    assert "pip install opencv-python" in caplog.text
    assert "middle square" in caplog.text


def test_an_opencv_emptied_by_another_ones_removal_counts_as_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", types.ModuleType("cv2"))
    monkeypatch.setattr(detectors, "_find_yunet", lambda folders: tmp_path / detectors.YUNET_FILE)
    with pytest.raises(detectors.DetectorMissing, match="pip install opencv-python"):
        detectors.detect_faces(picture())
    assert detectors.point_finder([tmp_path]) is None


def test_no_face_is_said_and_never_guessed(monkeypatch, caplog):
    monkeypatch.setattr(follow, "open_detector", lambda *args: lambda image: [])
    with pytest.raises(follow.FaceNotFound, match=r"No face was found in wall\.png"):
        follow.find_crop(picture(), name="wall.png")
    assert follow.find_crop(picture()[None], fallback="centre", name="wall.png").size == 300
    assert "No face was found in wall.png. Using the middle square of the whole picture" in caplog.text


def test_bad_requests_are_sentences():
    with pytest.raises(InputError, match=r"no face detector .*: use auto"):
        detectors.detect_faces(picture(), "dlib")
    if has_haar():
        with pytest.raises(InputError, match="one picture is wanted here but 2"):
            detectors.detect_faces(torch.zeros(2, 64, 64, 3), "haar")


@pytest.mark.skipif(not ASSETS.exists(), reason="the sample portraits are not on this machine")
@pytest.mark.parametrize("name", ["source_11.png", "source_3.jpg", "source_4.png", "source_9.png"])
def test_haar_finds_the_one_face_wherever_and_however_large_it_is(name):
    if not has_haar():
        pytest.skip("this OpenCV has no haar cascade (5 dropped it)")
    Image = pytest.importorskip("PIL.Image")
    portrait = torch.from_numpy(np.array(Image.open(ASSETS / name).convert("RGB"))).float() / 255
    crop = follow.find_crop(portrait, detector="haar")
    side = portrait.shape[0]
    assert 0.8 < crop.size / side < 1.1  # these portraits are cut about as the method wants them
    assert abs(crop.x + crop.size / 2 - side / 2) < 0.1 * side
    wide = torch.full((side * 2, side * 4, 3), 0.5)
    wide[side // 2 : side // 2 + side, 2 * side : 3 * side] = portrait
    there = follow.find_crop(wide, detector="haar")
    assert there.size == pytest.approx(crop.size, rel=0.15)
    assert there.x - 2 * side == pytest.approx(crop.x, abs=0.08 * side)


# Pasting
