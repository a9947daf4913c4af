"""Face detectors through the real OpenCV: boxes in the image's pixels, corrections, and what happens without one."""

import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from imtalker.drawn.example import portrait
from imtalker.errors import InputError
from imtalker.face import detectors
from imtalker.face.crop import Box
from imtalker.face.follow import find_crop
from imtalker.media.files import sha256_of

# real portraits, if this machine has them: none are committed
NOTHING = torch.full((64, 80, 3), 0.4)
ASSETS = Path(__file__).parents[3] / "shared" / "assets"


def has_haar():
    cv2 = pytest.importorskip("cv2")
    return hasattr(cv2, "CascadeClassifier") and (Path(cv2.__file__).parent / "data" / detectors.HAAR_FILE).is_file()


def test_corrections_keep_the_proportions_and_the_score():
    box = Box(100, 100, 180, 200, 0.5)
    assert detectors.correct_box(box, "yunet") == box
    mesh = detectors.correct_box(box, "mediapipe_mesh")
    assert mesh.side == pytest.approx(110)
    assert mesh.center == pytest.approx((140, 144.5))
    assert mesh.score == 0.5
    assert (mesh.x1 - mesh.x0) / (mesh.y1 - mesh.y0) == pytest.approx(0.8)


def build_yunet_stand_in(path, side=96):
    """Builds a network with YuNet's fixed input and twelve outputs that detects red squares of `side` pixels."""
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


@pytest.fixture(scope="module")
def yunet(tmp_path_factory):
    """A detector with the stand-in network, from a path that is not ASCII."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path_factory.mktemp("models") / "gesicht-ü.onnx"
    build_yunet_stand_in(path)
    return detectors._yunet(cv2, path)


@pytest.mark.parametrize(
    ("height", "width", "x", "y"),
    [(640, 640, 300, 200), (1280, 960, 700, 900), (300, 400, 100, 200), (4000, 1000, 500, 3000)],
)
def test_yunet_boxes_are_in_pixels_of_the_image(yunet, height, width, x, y):
    scale = max(1, max(height, width) / 640)
    half = round(48 * scale)
    image = torch.full((height, width, 3), 0.3)
    image[y - half : y + half, x - half : x + half] = torch.tensor([1.0, 0, 0])
    found = yunet(image)
    assert found[0].center == pytest.approx((x, y), abs=5 * scale)
    assert found[0].side == pytest.approx(96 * scale, rel=0.01)
    assert found == sorted(found, key=lambda box: -box.score)
    assert yunet(image.flip(-1)) == []  # blue now: the channels are in the right order


def test_a_batch_of_images_is_refused(yunet):
    with pytest.raises(InputError, match="not a batch of 2"):
        yunet(torch.zeros(2, 64, 64, 3))


def test_a_damaged_yunet_file_is_ignored_and_the_messages_say_what_to_do(monkeypatch, tmp_path, caplog):
    pytest.importorskip("cv2")
    monkeypatch.setattr(detectors, "HAAR_FILE", "none.xml")  # which OpenCV 4 includes
    (tmp_path / detectors.YUNET_FILE).write_bytes(b"not a network")
    assert detectors._find_yunet([tmp_path]) is None
    assert "download it again" in caplog.text
    with pytest.raises(detectors.DetectorMissing, match=r"imtalker download.* next to the other weights.*crop none"):
        detectors.open_detector([tmp_path])(NOTHING)


@pytest.mark.parametrize("name", detectors.YUNET_FILES)
def test_either_version_of_yunet_is_taken_by_either_name_and_opened_once(monkeypatch, tmp_path, name, capfd):
    pytest.importorskip("cv2")
    detectors._network.cache_clear()
    build_yunet_stand_in(tmp_path / name)
    monkeypatch.setattr(detectors, "YUNET_HASHES", ("0" * 64, sha256_of(tmp_path / name)))
    for _ in range(2):
        assert detectors.open_detector([tmp_path], lambda: pytest.fail("nothing is missing"))(NOTHING) == []
    assert detectors._network.cache_info().misses == 1
    assert capfd.readouterr().err == ""  # OpenCV 5 warns at each detector made


def test_a_missing_detector_is_fetched_once_and_only_for_faces_that_are_not_drawn(monkeypatch, tmp_path):
    pytest.importorskip("cv2")
    monkeypatch.setattr(detectors, "HAAR_FILE", "none.xml")
    build_yunet_stand_in(tmp_path / "fetched.onnx")
    fetched = []
    detect = detectors.open_detector((), lambda: fetched.append(1) or tmp_path / "fetched.onnx")
    assert len(detect(portrait(128)[0])) == 1
    assert fetched == []
    assert detect(NOTHING) == []  # the drawn head is hidden for a moment
    assert fetched == []
    detect = detectors.open_detector((), lambda: fetched.append(1) or tmp_path / "fetched.onnx")
    assert detect(NOTHING) == detect(NOTHING) == []
    assert fetched == [1]


def test_without_opencv_the_package_loads_and_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # as if a shared library that OpenCV needs were missing
    with pytest.raises(detectors.DetectorMissing, match="pip install opencv-python"):
        detectors.open_detector()(NOTHING)
    assert len(detectors.open_detector()(portrait(128)[0])) == 1  # drawn heads need none of it


def test_an_opencv_emptied_by_the_removal_of_another_counts_as_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", types.ModuleType("cv2"))
    monkeypatch.setattr(detectors, "_find_yunet", lambda folders: tmp_path / detectors.YUNET_FILE)
    with pytest.raises(detectors.DetectorMissing, match="pip install opencv-python"):
        detectors.open_detector()(NOTHING)
    assert detectors.point_finder([tmp_path]) is None


@pytest.mark.skipif(not ASSETS.exists(), reason="the sample portraits are not on this machine")
@pytest.mark.parametrize("name", ["source_11.png", "source_3.jpg", "source_4.png", "source_9.png"])
def test_haar_finds_the_one_face_at_any_place_and_size(name):
    if not has_haar():
        pytest.skip("this OpenCV has no Haar cascade (5 dropped it)")
    Image = pytest.importorskip("PIL.Image")
    portrait = torch.from_numpy(np.array(Image.open(ASSETS / name).convert("RGB"))).float() / 255
    crop = find_crop(portrait)
    side = portrait.shape[0]
    assert 0.8 < crop.size / side < 1.1  # these portraits are cropped about as the method expects
    assert abs(crop.x + crop.size / 2 - side / 2) < 0.1 * side
    wide = torch.full((side * 2, side * 4, 3), 0.5)
    wide[side // 2 : side // 2 + side, 2 * side : 3 * side] = portrait
    moved = find_crop(wide)
    assert moved.size == pytest.approx(crop.size, rel=0.15)
    assert moved.x - 2 * side == pytest.approx(crop.x, abs=0.08 * side)
