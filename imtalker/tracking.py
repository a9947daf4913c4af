"""Control from a video: pose, camera and gaze by SMIRK and L2CS-Net, or from ComfyUI's face landmarks.

Frames are (H,W,3), uint8 or float in 0..1. Throughout, a face is given by its *mesh box*, the rectangle around
MediaPipe's landmarks, because SMIRK crops around that.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from .errors import InputError
from .face.crop import Box, Crop, apply_crop
from .face.detectors import CORRECTIONS, Fetch, correct_box
from .face.follow import follow_boxes, follow_face, smooth_boxes, steady_box
from .media.image import check_image
from .models.l2cs import L2CS_SIDE, GazeEncoder
from .models.smirk import SMIRK_SIDE, ExpressionEncoder, PoseEncoder
from .motion.control import Control

log = logging.getLogger("imtalker")

GAZE_ORDERS = ("as published", "swapped")
BATCH_SIZE = 8

SMIRK_SCALE = 1.4  # side of SMIRK's crop / mean of the mesh box's width and height, as in its authors' scripts
MESH_ASPECT = 0.84  # width / height of mesh boxes, median over 16 frontal faces
# L2CS-Net's authors stretch the box of a detector like SFD to 224 x 224, and that to 448. The median of such boxes over
# the same faces is 0.74 wide for 1 high, so the middle columns of a square give the same.
FACE_HIGH, FACE_WIDE = 304, 224


def face_boxes(
    frames: Iterable[Tensor], model_dirs: Sequence[str | Path] = (), fetch: Fetch | None = None
) -> list[Box | None]:
    """The mesh box of the largest face in each frame, tracked by `follow_face`; None where it was not found."""
    checked = (_checked(frame)[0] for frame in frames)
    return [box and mesh_box(box) for box in follow_face(checked, model_dirs=model_dirs, fetch=fetch)]


def mesh_box(box: Box) -> Box:
    """The mesh box for SFD's `box`: inverse of `correct_box`, with average proportions."""
    factor, shift = CORRECTIONS["mediapipe_mesh"]
    height = box.side / factor
    width = MESH_ASPECT * height
    x, y = box.center[0], box.center[1] - shift * height
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2, box.score)


def control_from_frames(
    frames: Iterable[Tensor],
    boxes: Sequence[Box | None],
    fps: float,
    smirk: PoseEncoder | None = None,
    l2cs: GazeEncoder | None = None,
    gaze_order: str = "as published",
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] | None = None,
) -> Control:
    """Pose and camera by `smirk`, gaze by `l2cs` (each may be None), one row per frame, at the frames' `fps`.

    boxes: from `face_boxes` or `landmark_boxes`, one per frame. Where a box is None, the last row is held; before the
    first box, the first row.
    progress: called with the number of frames done since the last call.
    gaze_order: "as published" keeps the two outputs in the model's order, "swapped" swaps them.
    Crops follow the smoothed boxes, so the face is where SMIRK expects it, without the detector's jitter. The camera is
    then converted to one fixed crop (`fixed_cam`) around the clip's steady box, so a head that stays in place keeps
    SMIRK's own numbers.
    Raises InputError if the numbers of frames and boxes differ, and FaceNotFound if every box is None.
    """
    parts = read_faces(frames, boxes, fps, smirk, l2cs, None, gaze_order, batch_size, progress)
    return held(parts, [box is not None for box in boxes], fps)


def read_faces(
    frames: Iterable[Tensor],
    boxes: Sequence[Box | None],
    fps: float,
    smirk: PoseEncoder | None = None,
    l2cs: GazeEncoder | None = None,
    expressions: ExpressionEncoder | None = None,
    gaze_order: str = "as published",
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """What the networks say of each frame that shows the face: pose and cam, gaze, and expression, eyelids and jaw.

    Settings and errors as for `control_from_frames`. A value (T,n) has a row for each box that is not None.
    """
    track = smooth_boxes(boxes, fps)
    poses, cams, gazes, said, crops, fixed = [], [], [], [], [], None
    pairs = zip(_counted(frames, len(boxes)), boxes, track, strict=True)
    while block := list(itertools.islice(pairs, batch_size)):
        faces = [(_checked(frame), smooth) for frame, box, smooth in block if box]
        if faces and (smirk or expressions):
            height, width = faces[0][0].shape[1:3]
            fixed = fixed or smirk_crop(steady_box(boxes), height, width)
            own = [smirk_crop(box, height, width) for _, box in faces]
            cropped = torch.cat([apply_crop(f, crop, SMIRK_SIDE) for (f, _), crop in zip(faces, own)])
            crops += own
            if smirk:
                pose, cam = _run(smirk, cropped)
                poses.append(pose)
                cams.append(cam)
            if expressions:
                said.append(_run(expressions, cropped))
        if faces and l2cs:
            gazes.append(_run(l2cs, torch.cat([gaze_face(frame, box) for frame, box in faces]))[0])
        if progress:
            progress(len(block))
    parts = {}
    if smirk:
        parts = {"pose": torch.cat(poses), "cam": fixed_cam(torch.cat(cams), crops, fixed)}
    if l2cs:
        parts["gaze"] = _ordered(torch.cat(gazes), gaze_order)
    if expressions:
        parts |= dict(zip(("expression", "eyelids", "jaw"), map(torch.cat, zip(*said))))
    return parts


def smirk_crop(box: Box, height: int, width: int) -> Crop:
    """SMIRK's square crop around a mesh box, in a frame of height x width."""
    (x, y), size = box.center, SMIRK_SCALE * (box.x1 - box.x0 + box.y1 - box.y0) / 2
    return Crop(x - size / 2, y - size / 2, size, height, width)


def gaze_face(frame: Tensor, box: Box) -> Tensor:
    """L2CS-Net's input (1,448,448,3) for a mesh box in a frame (1,H,W,3)."""
    sfd = correct_box(box, "mediapipe_mesh")
    (x, y), size = sfd.center, sfd.side
    square = Crop(x - size / 2, y - size / 2, size, *frame.shape[1:3])
    margin = (FACE_HIGH - FACE_WIDE) // 2
    face = apply_crop(frame, square, FACE_HIGH)[:, :, margin : margin + FACE_WIDE].movedim(-1, 1)
    return F.interpolate(face, (L2CS_SIDE, L2CS_SIDE), mode="bilinear", align_corners=False).movedim(1, -1)


def fixed_cam(cams: Tensor, crops: Sequence[Crop], fixed: Crop) -> Tensor:
    """Converts cameras (T,3), each relative to its own crop, to cameras (T,3) relative to the crop `fixed`.

    SMIRK's camera (s, tx, ty) puts the head's point (X, Y), in metres, x right and y up, at s (X + tx), s (Y + ty) in
    a crop that reaches from -1 to 1. In the frame, for a crop with centre (cx, cy) and side S, that is
        x = cx + S/2 s (X + tx),   y = cy - S/2 s (Y + ty).
    For the crop (c'x, c'y, S') to give the same pixel for every X and Y:
        s' = s S/S',   t'x = tx + (cx - c'x) / (S/2 s),   t'y = ty - (cy - c'y) / (S/2 s).
    """
    own = torch.tensor([(crop.x + crop.size / 2, crop.y + crop.size / 2, crop.size) for crop in crops]).to(cams)
    pixels = cams[:, 0] * own[:, 2] / 2  # per metre
    x = cams[:, 1] + (own[:, 0] - fixed.x - fixed.size / 2) / pixels
    y = cams[:, 2] - (own[:, 1] - fixed.y - fixed.size / 2) / pixels
    return torch.stack([pixels * 2 / fixed.size, x, y], dim=1)


# From the landmarks of ComfyUI's own MediaPipe nodes

LANDMARKS = 478  # with irises
IRISES = 468, 473  # centres; the first eye is on the image's left in a frontal face
EYE_CORNERS = (33, 133), (362, 263)
# Distance from the eye's centre of rotation to its iris (about 10 mm) / from corner to corner (about 28.5 mm).
EYE_RADIUS = 0.35


def landmark_boxes(landmarks: Mapping) -> list[Box | None]:
    """The mesh box of the largest face in each frame of ComfyUI's FACE_LANDMARKS; None where it was not found."""
    return [face and _box(face) for face in landmark_faces(landmarks)]


def control_from_landmarks(landmarks: Mapping, fps: float, gaze_order: str = "as published") -> Control:
    """Pose, and gaze if there are irises, from ComfyUI's FACE_LANDMARKS at `fps`; gaps as in `control_from_frames`.

    Pose is the rotation in `transformation_matrix`. MediaPipe's axes are FLAME's (x to the image's right, y up, z
    towards the viewer), so no sign changes; the two may disagree on a straight face by a few degrees, and a face far
    from the image's centre reads as turned by about 3, because MediaPipe assumes a wide lens.
    Gaze is an estimate in L2CS-Net's terms: the irises' distance from the middle between the eye corners, with the
    head's rotation removed, on a ball of EYE_RADIUS; then rotated with the head.
    Raises InputError if no face was found, or for landmarks of another kind.
    """
    faces = landmark_faces(landmarks)
    found = [face for face in faces if face]
    if not found:
        raise InputError(f"The landmarks hold no face in any of {len(faces)} frames: use a video with a visible face.")
    rotations = [_rotation(face) for face in found]
    parts = {"pose": _rows([rotation.as_rotvec() for rotation in rotations])}
    if all(_has_irises(face) for face in found):
        gaze = [_gaze(face, rotation.as_matrix()) for face, rotation in zip(found, rotations)]
        parts["gaze"] = _ordered(_rows(gaze), gaze_order)
    return held(parts, [face is not None for face in faces], fps)


def landmark_faces(landmarks: Mapping) -> list[Mapping | None]:
    """The same face in each frame."""
    try:
        frames, size = landmarks["frames"], tuple(landmarks["image_size"])
        boxes = [[_box(face) for face in faces] for faces in frames]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise InputError(
            "These are not landmarks from ComfyUI's Detect Face Landmarks node: connect its face_landmarks."
        ) from error
    followed = follow_boxes((found, size) for found in boxes)
    return [
        next((face for face, box in zip(faces, found) if box is one), None)
        for faces, found, one in zip(frames, boxes, followed)
    ]


def _box(face: Mapping) -> Box:
    return Box(*map(float, face["bbox_xyxy"]), float(face.get("score", 1.0)))


def _rotation(face: Mapping) -> Rotation:
    """The rotation in a matrix (4,4) that also scales and translates."""
    turned = np.asarray(face.get("transformation_matrix", np.zeros((4, 4))), np.float64)[:3, :3]
    volume = np.linalg.det(turned)
    if not volume > 0:
        raise InputError(
            "The landmarks have no transformation_matrix, so the head's pose is unknown: connect face_landmarks of "
            "ComfyUI's Detect Face Landmarks node."
        )
    return Rotation.from_matrix(turned / np.cbrt(volume))


def _has_irises(face: Mapping) -> bool:
    return all(len(face.get(name, ())) >= LANDMARKS for name in ("landmarks_xy", "landmarks_3d"))


def _gaze(face: Mapping, turned: np.ndarray) -> tuple[float, float]:
    """(first, second) as L2CS-Net: + is image left, + is up; 0, 0 looks at the camera."""
    plane, space = (np.asarray(face[name], np.float64) for name in ("landmarks_xy", "landmarks_3d"))
    # MediaPipe's depths are in pixels of its own square input; `scale` converts them to the image's pixels.
    square = np.column_stack([space[:, :2], np.ones(len(space))])
    scale = np.linalg.norm(np.linalg.lstsq(square, plane, rcond=None)[0][0])
    points = np.column_stack([plane[:, 0], -plane[:, 1], -space[:, 2] * scale]) @ turned  # the head's own axes
    offsets = []  # (right, up) of each iris
    for iris, corners in zip(IRISES, EYE_CORNERS):
        a, b = points[list(corners)]
        offsets.append((points[iris] - (a + b) / 2)[:2] / (EYE_RADIUS * np.linalg.norm(a - b)))
    right, up = np.mean(offsets, axis=0)
    beyond = max(1.0, math.hypot(right, up))
    right, up = right / beyond, up / beyond
    x, y, z = turned @ (right, up, math.sqrt(max(0.0, 1 - right**2 - up**2)))
    return math.atan2(-x, z), math.asin(max(-1.0, min(1.0, y)))


# Shared


def held(parts: dict[str, Tensor], visible: list[bool], fps: float) -> Control:
    """Spreads the rows of the frames that show the face over all frames."""
    gaps = visible.count(False)
    if gaps:
        log.warning("The face was not found in %d of %d frames: they repeat the values before.", gaps, len(visible))
    last = (torch.tensor(visible).cumsum(0) - 1).clamp_min(0)
    return Control(**{name: rows[last] for name, rows in parts.items()}, fps=fps)


def _ordered(gaze: Tensor, order: str) -> Tensor:
    if order not in GAZE_ORDERS:
        raise InputError(f"Unknown gaze order {order!r}: use one of {', '.join(GAZE_ORDERS)}.")
    return gaze.flip(-1) if order == "swapped" else gaze


@torch.inference_mode()
def _run(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The model's outputs for images (B,H,W,3), float32 on the CPU."""
    outputs = model(images.movedim(-1, 1).to(next(model.parameters())))
    return [rows.float().cpu() for rows in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _counted(frames: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    number = 0
    for number, frame in enumerate(frames, 1):
        if number > count:
            break
        yield frame
    if number != count:
        found = f"more than {count}" if number > count else number
        raise InputError(f"There are {found} frames but {count} face boxes: both must come from the same clip.")


def _checked(frame: Tensor) -> Tensor:
    return check_image(frame).cpu()


def _rows(values: Sequence) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
