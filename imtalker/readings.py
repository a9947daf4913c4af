"""Readings of a clip's frames under the names of a rig's channels, and the rig learned from them.

They come from ComfyUI's FACE_LANDMARKS, or from SMIRK and L2CS-Net. Left and right are the person's own. Yaw, pitch and
roll are in degrees and directions of motion/keyframes.py; gaze is in degrees within the head, so that a head that turns
with still eyes has none; x and y in sides of the crop, distance as the change from the clip's median; ARKit's shapes
and eyelids 0..1; the jaw in degrees.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from .errors import InputError
from .face.crop import Box, centre_crop, cropped_blocks
from .face.detectors import correct_box
from .face.follow import steady_box, steady_view
from .media.video import VideoReader
from .models.l2cs import GazeEncoder
from .models.renderer import Renderer
from .models.smirk import ExpressionEncoder, PoseEncoder
from .motion.control import Control
from .motion.hold import hold
from .motion.motion import Motion
from .motion.rig import Rig
from .motion.rig_learning import learn
from .pipeline import detector_in
from .tracking import control_from_landmarks, face_boxes, landmark_boxes, landmark_faces, read_faces

BLOCK = 16  # frames encoded at a time
CROP_SCALE = 1.6  # side of the models' crop / side of the face box
FIELD_OF_VIEW = math.radians(63)  # vertical, that MediaPipe assumes

# channel: (part, {ARKit's shape: its weight})
SHAPES = {
    "blink left": ("eyes", {"eyeBlinkLeft": 1}),
    "blink right": ("eyes", {"eyeBlinkRight": 1}),
    "squint": ("eyes", {"eyeSquintLeft": 0.5, "eyeSquintRight": 0.5}),
    "eyes wide": ("eyes", {"eyeWideLeft": 0.5, "eyeWideRight": 0.5}),
    "brows": ("brows", {"browInnerUp": 0.5, "browOuterUpLeft": 0.25, "browOuterUpRight": 0.25}),
    "brows down": ("brows", {"browDownLeft": 0.5, "browDownRight": 0.5}),
    "mouth open": ("mouth", {"jawOpen": 1}),
    "mouth wide": ("mouth", {"mouthStretchLeft": 0.5, "mouthStretchRight": 0.5}),
    "mouth round": ("mouth", {"mouthPucker": 0.5, "mouthFunnel": 0.5}),
    "mouth sideways": ("mouth", {"mouthLeft": 1, "mouthRight": -1}),
    "smile left": ("mouth", {"mouthSmileLeft": 1}),
    "smile right": ("mouth", {"mouthSmileRight": 1}),
    "frown": ("mouth", {"mouthFrownLeft": 0.5, "mouthFrownRight": 0.5}),
    "upper lip": ("mouth", {"mouthUpperUpLeft": 0.5, "mouthUpperUpRight": 0.5}),
    "lower lip": ("mouth", {"mouthLowerDownLeft": 0.5, "mouthLowerDownRight": 0.5}),
    "lips pressed": ("mouth", {"mouthPressLeft": 0.5, "mouthPressRight": 0.5}),
    "cheeks": ("mouth", {"cheekPuff": 1}),
    "sneer": ("mouth", {"noseSneerLeft": 0.5, "noseSneerRight": 0.5}),
}
EXPRESSIONS = 10  # of FLAME's 50, the largest; they have no names and belong to no part
PARTS = {
    **dict.fromkeys(("yaw", "pitch", "roll", "x", "y", "distance"), "head"),
    **dict.fromkeys(("gaze horizontal", "gaze vertical"), "eyes"),
    **{name: part for name, (part, _) in SHAPES.items()},
    "jaw sideways": "mouth",
    **{f"expression {number + 1}": "expression" for number in range(EXPRESSIONS)},
}


@dataclass(frozen=True)
class Readings:
    """By channel of PARTS, one value for each frame that shows the face."""

    values: dict[str, Tensor]  # (n,) each
    visible: Tensor  # (T,) bool: which frames these are


def from_landmarks(landmarks: Mapping) -> Readings:
    """Of ComfyUI's FACE_LANDMARKS: head, gaze where there are irises, and ARKit's shapes where every face has them.

    InputError: no face, or landmarks of another kind.
    """
    faces = landmark_faces(landmarks)
    visible = torch.tensor([face is not None for face in faces])
    found = [face for face in faces if face]
    control = control_from_landmarks(landmarks, 25.0)  # a rate that nothing depends on
    values = _of_control(control, visible) | _placed(found, landmarks)
    if all(face.get("blendshapes") for face in found):
        for name, (_, weights) in SHAPES.items():
            if all(weights.keys() <= face["blendshapes"].keys() for face in found):
                rows = [sum(weight * face["blendshapes"][shape] for shape, weight in weights.items()) for face in found]
                values[name] = torch.tensor(rows, dtype=torch.float32)
    return Readings(values, visible)


def from_networks(said: Mapping[str, Tensor], boxes: Sequence[Box | None]) -> Readings:
    """Of what SMIRK and L2CS-Net say, from `tracking.read_faces` with the same boxes."""
    visible = torch.tensor([box is not None for box in boxes])
    control = Control(**{name: said[name] for name in ("pose", "cam", "gaze") if name in said})
    values = _of_control(control, torch.ones(int(visible.sum()), dtype=torch.bool))
    if "expression" in said:
        values["blink left"], values["blink right"] = said["eyelids"].unbind(1)
        values["mouth open"], values["jaw sideways"] = said["jaw"][:, :2].rad2deg().unbind(1)
        values |= {f"expression {number + 1}": said["expression"][:, number] for number in range(EXPRESSIONS)}
    return Readings(values, visible)


def joined(first: Readings, other: Readings) -> Readings:
    """The channels of both, in frames that show the face to both; a channel of both is the first one's.

    InputError: they are of different numbers of frames.
    """
    if first.visible.shape != other.visible.shape:
        raise InputError(
            f"There are readings of {len(first.visible)} and of {len(other.visible)} frames: take them of one clip."
        )
    both = first.visible & other.visible
    values = {name: rows[both[other.visible]] for name, rows in other.values.items()}
    return Readings(values | {name: rows[both[first.visible]] for name, rows in first.values.items()}, both)


def learn_rig(motion: Motion, readings: Readings, weights: str = "") -> Rig:
    """The rig that `motion.rig_learning.learn` finds in the frames that show the face.

    weights: fingerprints of the models; "" for those that the motion names. InputError: as there, or readings of
    another number of frames.
    """
    frames = len(readings.visible)
    if len(motion) != frames:
        raise InputError(
            f"The motion has {len(motion)} frames but the readings {frames}: give Encode Motion and the readings the "
            "same frames of one clip."
        )
    if not readings.values:
        raise InputError("Nothing was read of the clip: a rig needs landmarks, SMIRK or L2CS-Net.")
    seen = replace(motion, latents=motion.latents[readings.visible])
    return learn(seen, readings.values, PARTS, weights or motion.weights)


@torch.inference_mode()
def learn_from_video(
    renderer: Renderer,
    driving: str | Path,
    smirk: PoseEncoder | None = None,
    l2cs: GazeEncoder | None = None,
    expressions: ExpressionEncoder | None = None,
    crop: str = "auto",
    model_dirs: Sequence[str | Path] = (),
) -> Rig:
    """The rig of these weights, learned from a video of one person in which the face does all it should know.

    crop: "auto" finds the face for the motion, "none" takes the middle square. InputError: no face, too short, no
    network.
    """
    reader = VideoReader(driving)
    fps, detector = float(reader.fps), detector_in(tuple(model_dirs))
    boxes = face_boxes(reader, **detector)
    auto = crop == "auto"
    view = steady_view(reader, reader.frames, fps=fps, **detector) if auto else None
    square = view.crop if view else centre_crop(reader.height, reader.width)
    frames = cropped_blocks(iter(reader), square, renderer.config.input_size, BLOCK)
    blocks = list(hold((renderer.encode_motion(block, fps) for block in frames), view.hidden if view else ()))
    motion = replace(blocks[0], latents=torch.cat([block.latents for block in blocks]))
    said = read_faces(reader, boxes, fps, smirk, l2cs, expressions)
    return learn_rig(motion, from_networks(said, boxes))


def _of_control(control: Control, visible: Tensor) -> dict[str, Tensor]:
    """Head and gaze of the visible frames of a control."""
    parts, values = {name: rows[visible] for name, rows in control.parts().items()}, {}
    turned = Rotation.from_rotvec(parts["pose"].double().numpy()) if "pose" in parts else None
    if turned is not None:
        yaw, pitch, roll = turned.as_euler("YXZ", degrees=True).T
        values |= {"yaw": yaw, "pitch": -pitch, "roll": -roll}
    if "cam" in parts:
        scale, x, y = parts["cam"].double().numpy().T
        values |= {"x": scale * x / 2, "y": scale * y / 2, "distance": np.median(scale) / scale - 1}
    if "gaze" in parts:
        left, up = parts["gaze"].double().numpy().T
        look = np.stack([-np.sin(left) * np.cos(up), np.sin(up), np.cos(left) * np.cos(up)], axis=1)
        look = look if turned is None else turned.apply(look, inverse=True)
        values["gaze horizontal"] = np.degrees(np.arctan2(look[:, 0], look[:, 2]))
        values["gaze vertical"] = np.degrees(np.arcsin(np.clip(look[:, 1], -1, 1)))
    return {name: torch.from_numpy(np.asarray(rows, np.float32)) for name, rows in values.items()}


def _placed(faces: Sequence[Mapping], landmarks: Mapping) -> dict[str, Tensor]:
    """x, y and distance from the matrices, in which the jaw has no part as it has in boxes."""
    shift = torch.from_numpy(np.array([np.asarray(face["transformation_matrix"])[:3, 3] for face in faces], np.float32))
    depth = -shift[:, 2]
    if not (depth > 0).all():
        return {}
    pixels = landmarks["image_size"][0] / 2 / math.tan(FIELD_OF_VIEW / 2)
    side = CROP_SCALE * correct_box(steady_box(landmark_boxes(landmarks)), "mediapipe_mesh").side
    x, y = (pixels / side * shift[:, :2] / depth[:, None]).unbind(1)
    return {"x": x - x.median(), "y": y - y.median(), "distance": depth / depth.median() - 1}
