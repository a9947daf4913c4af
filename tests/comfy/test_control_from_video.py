"""Control From Video in a running ComfyUI: from SMIRK, L2CS-Net and landmarks."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from graphs import composed, node
from scipy.spatial.transform import Rotation
from server import Refusal, Run, Server, on_one_version
from test_nodes import OURS, refusal
from trackers import made_up_tracker

from imtalker.face.crop import Box
from imtalker.media.image import read_image
from imtalker.media.video import VideoReader
from imtalker.tracking import control_from_frames, control_from_landmarks
from imtalker.weights.checkpoints import load_l2cs, load_smirk

SMIRK, L2CS = "SMIRK_em1.pt", "L2CSNet_gaze360.pkl"
SETTINGS = {"smirk": "none", "gaze": "none", "gaze_order": "as published", "fps": 25.0}
DRIVING = 18  # frames of driving.mp4, 96 x 96 at 24 fps
HELD = [n - (n % 4 == 3) for n in range(DRIVING)]  # MadeUpLandmarks shows nobody in every fourth frame
BOX = Box(0.3 * 96, 0.2 * 96, 0.7 * 96, 0.8 * 96)


@pytest.fixture(scope="module", autouse=True)
def files(server):
    folder = server.base / "models/imtalker"
    torch.save(made_up_tracker("smirk"), folder / SMIRK)
    torch.save(made_up_tracker("l2cs"), folder / L2CS)


def tracked(frames: int = DRIVING, **settings) -> dict:
    """A graph with a video, images and landmarks for Control From Video; `settings` connect them."""
    return {
        "video": node("LoadVideo", file="driving.mp4"),
        "image": node("LoadImage", image="square.png"),
        "images": node("RepeatImageBatch", image=["image", 0], amount=3),
        "landmarks": node("MadeUpLandmarks", frames=frames, height=96, width=96),
        "control": node("IMTalkerControlFromVideo", **(SETTINGS | settings)),
        "show": node("ShowControl", control=["control", 0]),
    }


def shown(run: Run) -> dict:
    assert run.succeeded, run.error
    (text,) = run.outputs["show"]["text"]
    return {name: value if name == "fps" else torch.tensor(value) for name, value in json.loads(text).items()}


def test_smirk_on_a_video_is_the_engines(server: Server):
    run = server.run(tracked(smirk=SMIRK, video=["video", 0], landmarks=["landmarks", 0]))
    found = shown(run)
    assert run.of("progress")[-1]["value"] == DRIVING
    reader = VideoReader(server.base / "input/driving.mp4")
    boxes = [BOX if n % 4 != 3 else None for n in range(DRIVING)]
    expected = control_from_frames(reader, boxes, float(reader.fps), smirk=load_smirk(made_up_tracker("smirk")))
    assert found.keys() == {"pose", "cam", "fps"}
    assert found["fps"] == 24
    for name, rows in expected.parts().items():
        torch.testing.assert_close(found[name], rows, rtol=0, atol=1e-4)
        assert torch.equal(found[name], found[name][HELD])
    assert "not found in 4 of 18 frames" in server.log()
    assert "memory leak" not in server.log()


@on_one_version
def test_gaze_on_images_and_its_order(server: Server):
    inputs = {"gaze": L2CS, "images": ["images", 0], "landmarks": ["landmarks", 0], "fps": 12.5}
    found = shown(server.run(tracked(3, **inputs)))
    swapped = shown(server.run(tracked(3, **inputs, gaze_order="swapped")))
    assert found.keys() == {"pose", "gaze", "fps"}  # the pose comes from the landmarks
    assert found["fps"] == 12.5
    assert torch.equal(swapped["gaze"], found["gaze"].flip(-1))
    assert torch.equal(swapped["pose"], found["pose"])
    graph = tracked(3, **inputs) | {"out": node("SaveImage", images=["images", 0], filename_prefix="repeated")}
    files = server.run(graph).files("out")
    assert len(files) == 3
    frames = torch.cat([read_image(server.base / "output" / file["filename"]) for file in files])
    expected = control_from_frames(frames, [BOX] * 3, 12.5, l2cs=load_l2cs(made_up_tracker("l2cs")))
    torch.testing.assert_close(found["gaze"], expected.gaze, rtol=0, atol=1e-4)


@on_one_version
def test_landmarks_alone_and_what_another_control_gives(server: Server):
    found = shown(server.run(tracked(landmarks=["landmarks", 0], fps=30.0)))
    assert found.keys() == {"pose", "fps"}
    assert found["fps"] == 30
    expected = torch.tensor([[0, 0.1 * n, 0] for n in HELD])
    torch.testing.assert_close(found["pose"], expected, rtol=0, atol=1e-5)
    graph = tracked(smirk=SMIRK, video=["video", 0], landmarks=["landmarks", 0], control=["first", 0])
    graph["few"] = node("MadeUpLandmarks", frames=3, height=96, width=96)
    inputs = SETTINGS | {"gaze": L2CS, "images": ["images", 0], "landmarks": ["few", 0], "fps": 48.0}
    graph["first"] = node("IMTalkerControlFromVideo", **inputs)
    found = shown(server.run(graph))
    assert found["fps"] == 48
    assert [len(found[name]) for name in ("pose", "cam", "gaze")] == [2 * DRIVING, 2 * DRIVING, 3]


@on_one_version
def test_the_motion_follows(server: Server):
    graph = composed() | tracked(landmarks=["landmarks", 0])
    graph["keep"] = node("IMTalkerSaveMotion", motion=["motion", 0], filename_prefix="tracked")
    motions = []
    for control in ({}, {"control": ["control", 0]}):
        graph["motion"]["inputs"] |= control
        (file,) = server.run(graph).files("keep")
        path = server.base / "output" / file["subfolder"] / file["filename"]
        motions.append(path.read_bytes())
    assert motions[0] != motions[1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "nothing to read with: put SMIRK_em1.pt from"),
        ({"video": ["video", 0], "images": ["images", 0], "smirk": SMIRK}, "either images or video"),
        ({"smirk": SMIRK, "landmarks": ["landmarks", 0]}, "need frames: connect images or video"),
        ({"smirk": "renderer_v2.safetensors", "video": ["video", 0]}, "is a renderer (v2): choose a SMIRK encoder"),
        ({"gaze": SMIRK, "video": ["video", 0]}, "is a SMIRK encoder: choose an L2CS-Net"),
        ({"smirk": SMIRK, "images": ["images", 0], "landmarks": ["landmarks", 0]}, "3 frames but 18 face boxes"),
    ],
)
@on_one_version
def test_refusals_are_sentences(server: Server, settings, words):
    assert words in refusal(server, tracked(**settings))


@on_one_version
def test_without_a_face_or_a_detector_it_says_so(server: Server):
    assert any(
        words in refusal(server, tracked(smirk=SMIRK, images=["images", 0]))
        for words in ("No face was found", "cannot be downloaded")
    )


def test_files_elsewhere_are_refused(server: Server):
    with pytest.raises(Refusal, match=r"not in models/imtalker|not in list"):
        server.run(tracked(smirk="../../secret.pt", video=["video", 0]))


def test_an_interrupt_ends_it(server: Server):
    run = server.run(tracked(gaze=L2CS, video=["video", 0], landmarks=["landmarks", 0]), interrupt_at=1)
    assert run.of("execution_interrupted")
    assert server.run(tracked(landmarks=["landmarks", 0], fps=31.0)).succeeded


def test_ids_and_inputs_are_a_contract(server: Server):
    kind = server.get("/object_info/IMTalkerControlFromVideo")["IMTalkerControlFromVideo"]
    order = kind["input_order"]
    assert [*order["required"], *order["optional"]] == [
        *("smirk", "gaze", "gaze_order", "fps", "images", "video", "landmarks", "control"),
    ]
    assert kind["python_module"] == OURS
    assert kind["category"] == "IMTalker/control"
    assert kind["output"] == ["IMTALKER_CONTROL"]


@pytest.mark.parametrize("pose", [(0.3, 0, 0), (0, 0.4, 0), (0, 0, 0.3), (0.2, -0.3, 0.1)])
def test_pose_agrees_with_the_matrix_that_comfyui_makes(server: Server, pose):
    """ComfyUI's geometry gets the points of half an ellipsoid turned by `pose`, as its network would find them."""
    path = server.comfy / "comfy_extras/mediapipe/face_geometry.py"
    if not path.is_file():
        pytest.skip("this ComfyUI has no face landmarks")
    spec = importlib.util.spec_from_file_location("face_geometry", path)
    spec.loader.exec_module(geometry := importlib.util.module_from_spec(spec))
    random = np.random.default_rng(0)
    disc = random.uniform(-1, 1, (478, 2))
    disc /= np.maximum(1, np.linalg.norm(disc, axis=1, keepdims=True))
    dome = np.sqrt(np.maximum(0, 1 - (disc**2).sum(1)))
    centimetres = np.column_stack([7 * disc[:, 0], 9 * disc[:, 1], 5 * dome])
    points = Rotation.from_rotvec(pose).apply(centimetres - centimetres.mean(0)) * 12
    plane = np.array([320, 240]) + points[:, :2] * (1, -1)
    face = {
        "landmarks_xy": plane.astype(np.float32),
        "landmarks_3d": np.column_stack([plane * 0.4, points[:, 2] * -0.4]).astype(np.float32),
        "bbox_xyxy": np.array([*plane.min(0), *plane.max(0)], np.float32),
    }
    some = np.arange(0, 478, 12)
    canonical = {
        "canonical_vertices": centimetres,
        "procrustes_indices": some,
        "procrustes_weights": np.full(len(some), 0.1),
    }
    face["transformation_matrix"] = geometry.transformation_matrix_from_detection(face, 640, 480, canonical)
    control = control_from_landmarks({"frames": [[face]], "image_size": (480, 640)}, 25.0)
    assert control.pose[0].tolist() == pytest.approx(pose, abs=0.02)
