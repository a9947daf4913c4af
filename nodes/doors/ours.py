"""The doors of our own types, and of landmarks: a node that passes anything on can hand over anything."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from ...imtalker import AudioFeatures, Control, Generator, InputError, Motion, Renderer, Rig, Source
from ...imtalker.face.crop import Crop
from . import numbers
from .opening import enter, kind_of, tensor_of

SLOWEST, FASTEST = 1 / 60, 1000.0  # frames a second, as in files of motion
FURTHEST = 64  # sides of a crop or face box: at most this many sides of the picture


def renderer(name: str, value: object) -> object:
    """A host.Handle on a Renderer."""
    return _model(name, value, Renderer, "Load IMTalker Renderer")


def generator(name: str, value: object) -> object:
    """A host.Handle on a Generator."""
    return _model(name, value, Generator, "Load IMTalker Generator")


def source(name: str, value: object) -> Source:
    return _ours(name, value, Source, "Encode Source")


def features(name: str, value: object) -> AudioFeatures:
    return _ours(name, value, AudioFeatures, "Encode Audio")


def motion(name: str, value: object) -> Motion:
    return _with_rate(name, _ours(name, value, Motion, "Sample Motion, Encode Motion or Load Motion"))


def control(name: str, value: object) -> Control:
    return _with_rate(name, _ours(name, value, Control, "a node that outputs a control"))


def rig(name: str, value: object) -> Rig:
    return _ours(name, value, Rig, "Load Rig or Learn Rig")


def crops(name: str, value: object) -> Crop | list[Crop]:
    """One Crop, or a list with one for each picture, that touch their pictures."""
    if isinstance(value, Crop):
        return _checked(name, value)
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, Crop) for item in value):
        raise InputError(f"The input {name} got {kind_of(value)}, not crops: connect crop of Face Crop.")
    if not value:
        raise InputError(f"The input {name} is an empty list: connect crop of Face Crop.")
    return [_checked(name, item) for item in value]


def _checked(name: str, crop: Crop) -> Crop:
    square, sides = (crop.x, crop.y, crop.size), (crop.height, crop.width)
    finite = all(isinstance(value, (int, float)) and math.isfinite(value) for value in square)
    if not finite or not all(isinstance(side, int) for side in sides):
        raise InputError(f"The crop in {name} is not made of finite numbers: connect crop of Face Crop.")
    inside = crop.x < crop.width and crop.y < crop.height and min(crop.x, crop.y) + crop.size > 0
    if not inside or min(crop.height, crop.width) < 1 or not 1 <= crop.size <= FURTHEST * max(crop.height, crop.width):
        raise InputError(
            f"The crop in {name}, {crop.size:g} pixels from {crop.x:g}, {crop.y:g}, is not in its picture of "
            f"{crop.width:g}x{crop.height:g}: connect crop of Face Crop."
        )
    return replace(crop, x=float(crop.x), y=float(crop.y), size=float(crop.size))


def landmarks(name: str, value: object) -> dict:
    """ComfyUI's FACE_LANDMARKS with every part checked: arrays of finite numbers in the shapes of its own nodes.

    {"frames": [faces of each frame], "image_size": (height, width)}; a face has bbox_xyxy (4,), score, and, if they
    came, transformation_matrix (4,4), landmarks_xy (n,2), landmarks_3d (n,3) and blendshapes {name: float}.
    """
    wrong = InputError(
        f"The input {name} does not hold landmarks from ComfyUI's Detect Face Landmarks node: connect its "
        "face_landmarks."
    )
    if not isinstance(value, Mapping) or not {"frames", "image_size"} <= value.keys():
        raise wrong
    frames, size = value["frames"], value["image_size"]
    if not isinstance(frames, Sequence) or not isinstance(size, (Sequence, torch.Size)) or len(size) != 2:
        raise wrong
    size = tuple(int(side) for side in size)
    faces = [list(faces or []) for faces in frames]
    if min(size) < 1 or not all(isinstance(face, Mapping) and "bbox_xyxy" in face for row in faces for face in row):
        raise wrong
    return {"frames": [[_face(name, face, size, wrong) for face in row] for row in faces], "image_size": size}


SHAPES = {"bbox_xyxy": (4,), "transformation_matrix": (4, 4), "landmarks_xy": (-1, 2), "landmarks_3d": (-1, 3)}


def _face(name: str, face: Mapping, size: tuple[int, int], wrong: InputError) -> dict:
    found = {"score": float(face.get("score", 1.0))}
    for key, shape in SHAPES.items():
        if face.get(key) is None:
            continue
        rows = tensor_of(name, face[key]).cpu().double()
        if rows.ndim != len(shape) or any(want not in (-1, side) for want, side in zip(shape, rows.shape)):
            raise wrong
        if not rows.isfinite().all():
            raise InputError(f"The landmarks in {name} contain NaN or infinite values: detect the face again.")
        found[key] = rows.numpy()
    shapes = face.get("blendshapes")
    if shapes is not None:
        if not isinstance(shapes, Mapping):
            raise wrong
        found["blendshapes"] = {
            str(key): enter(name, numbers.real, value, low=-10, high=10) for key, value in shapes.items()
        }
    x0, y0, x1, y1 = found["bbox_xyxy"].tolist()
    if not (0 < x1 - x0 <= FURTHEST * size[1] and 0 < y1 - y0 <= FURTHEST * size[0]) or not math.isfinite(
        found["score"]
    ):
        raise wrong
    return found


def _model(name: str, value: object, kind: type, giver: str) -> object:
    if not isinstance(getattr(value, "model", None), kind) or not hasattr(value, "patcher"):
        raise InputError(f"The input {name} got {kind_of(value)}: connect {giver}.")
    return value


def _ours(name: str, value: object, kind: type, giver: str) -> object:
    if not isinstance(value, kind):
        raise InputError(f"The input {name} got {kind_of(value)}: connect {giver}.")
    return value


def _with_rate(name: str, value: Motion | Control) -> Motion | Control:
    """With a plain float as frame rate."""
    fps = enter(f"The frame rate of {name}", numbers.real, value.fps)
    if not SLOWEST <= fps <= FASTEST:
        raise InputError(f"The frame rate of {name} is {fps:g}: it must be between 1/60 and 1000 frames a second.")
    return value if type(value.fps) is float else replace(value, fps=fps)
