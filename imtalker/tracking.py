"""Control read off a face: by SMIRK and L2CS-Net from a video's frames, or from landmarks that ComfyUI found.

Frames are (H,W,3), uint8 or float in 0..1. In all of it a face is its *mesh box*: the rectangle around MediaPipe's
landmarks, which SMIRK's crops are made from.
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
from .face.detectors import CORRECTIONS, correct_box
from .face.follow import follow_boxes, follow_face, smooth_boxes, steady_box
from .media.image import check_image
from .models.l2cs import L2CS_SIDE, GazeEncoder
from .models.smirk import SMIRK_SIDE, PoseEncoder
from .motion.control import Control

log = logging.getLogger("imtalker")

GAZE_ORDERS = ("as published", "swapped")
BATCH_SIZE = 8

SMIRK_SCALE = 1.4  # side of SMIRK's crop over the mean of a mesh box's width and height, as its authors' scripts cut
MESH_ASPECT = 0.84  # width over height of mesh boxes, median over 16 frontal faces
# L2CS-Net's authors stretch the box of a detector like SFD to 224 x 224 and that to 448; 0.74 wide for 1 high is the
# median of such boxes over the same faces, so the same comes from the middle columns of a square.
FACE_HIGH, FACE_WIDE = 304, 224


def face_boxes(
    frames: Iterable[Tensor],
    which: str = "largest",
    index: int = 0,
    model_dirs: Sequence[str | Path] = (),
) -> list[Box | None]:
    """The mesh box of one face in each frame, followed as by `follow_face`; None where it was not seen."""
    pictures = (_picture(frame)[0] for frame in frames)
    followed = follow_face(pictures, which, index, model_dirs)
    return [None if box is None else mesh_box(box) for box in followed]


def mesh_box(box: Box) -> Box:
    """The mesh box where SFD has drawn `box`: the inverse of `correct_box`, of the usual proportions."""
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
    """Pose and camera by `smirk`, gaze by `l2cs` (each may be None), a row for each frame, at the frames' `fps`.

    boxes: from `face_boxes` or `landmark_boxes`, one for each frame. Where one is None the last row is held; before
    the first, the first. progress: called with the number of frames done since the last call.
    The crops follow the smoothed boxes, which keeps the face where SMIRK expects it without passing on the detector's
    jitter; the camera is then told as one fixed crop would see it, `fixed_cam`. That crop is around the steady box of
    the clip, so a head that stays in place keeps SMIRK's own numbers.
    gaze_order: "as published", the two outputs in the model's order, or "swapped".
    Raises InputError where frames and boxes are not as many, or no box is there (FaceNotFound).
    """
    track = smooth_boxes(boxes, fps)
    poses, cams, gazes, crops, fixed = [], [], [], [], None
    pairs = zip(_counted(frames, len(boxes)), boxes, track, strict=True)
    while block := list(itertools.islice(pairs, batch_size)):
        seen = [(_picture(frame), place) for frame, box, place in block if box]
        if seen and smirk:
            height, width = seen[0][0].shape[1:3]
            fixed = fixed or smirk_crop(steady_box(boxes), height, width)
            places = [smirk_crop(place, height, width) for _, place in seen]
            faces = [apply_crop(picture, place, SMIRK_SIDE) for (picture, _), place in zip(seen, places)]
            pose, cam = _run(smirk, torch.cat(faces))
            poses.append(pose)
            cams.append(cam)
            crops += places
        if seen and l2cs:
            gazes.append(_run(l2cs, torch.cat([gaze_face(picture, place) for picture, place in seen]))[0])
        if progress:
            progress(len(block))
    parts = {}
    if smirk:
        parts = {"pose": torch.cat(poses), "cam": fixed_cam(torch.cat(cams), crops, fixed)}
    if l2cs:
        parts["gaze"] = _ordered(torch.cat(gazes), gaze_order)
    return _held(parts, [box is not None for box in boxes], fps)


def smirk_crop(box: Box, height: int, width: int) -> Crop:
    """The square that SMIRK is shown of a mesh box, in a picture of height x width."""
    (x, y), size = box.center, SMIRK_SCALE * (box.x1 - box.x0 + box.y1 - box.y0) / 2
    return Crop(x - size / 2, y - size / 2, size, height, width)


def gaze_face(picture: Tensor, box: Box) -> Tensor:
    """The face (1,448,448,3) that L2CS-Net is shown of a mesh box in a picture (1,H,W,3)."""
    sfd = correct_box(box, "mediapipe_mesh")
    (x, y), size = sfd.center, sfd.side
    square = Crop(x - size / 2, y - size / 2, size, *picture.shape[1:3])
    margin = (FACE_HIGH - FACE_WIDE) // 2
    face = apply_crop(picture, square, FACE_HIGH)[:, :, margin : margin + FACE_WIDE].movedim(-1, 1)
    return F.interpolate(face, (L2CS_SIDE, L2CS_SIDE), mode="bilinear", align_corners=False).movedim(1, -1)


def fixed_cam(cams: Tensor, crops: Sequence[Crop], fixed: Crop) -> Tensor:
    """Cameras (T,3), each relative to a crop of its own, as they are relative to the crop `fixed` -> (T,3).

    SMIRK's camera (s, tx, ty) puts the head's point (X, Y), in metres, x right and y up, at s (X + tx), s (Y + ty) in
    a crop that reaches from -1 to 1. In the picture, for a crop with its centre at (cx, cy) and of side S, that is
        x = cx + S/2 s (X + tx),   y = cy - S/2 s (Y + ty).
    The same pixel for every X and Y from the crop (c'x, c'y, S') wants
        s' = s S/S',   t'x = tx + (cx - c'x) / (S/2 s),   t'y = ty - (cy - c'y) / (S/2 s).
    """
    own = torch.tensor([(crop.x + crop.size / 2, crop.y + crop.size / 2, crop.size) for crop in crops]).to(cams)
    pixels = cams[:, 0] * own[:, 2] / 2  # of one metre
    x = cams[:, 1] + (own[:, 0] - fixed.x - fixed.size / 2) / pixels
    y = cams[:, 2] - (own[:, 1] - fixed.y - fixed.size / 2) / pixels
    return torch.stack([pixels * 2 / fixed.size, x, y], dim=1)


# From the landmarks of ComfyUI's own MediaPipe nodes

LANDMARKS = 478  # with irises
IRISES = 468, 473  # centres; the first is the eye on the picture's left in a frontal face
EYE_CORNERS = (33, 133), (362, 263)
# From the eye's centre of rotation to its iris about 10 mm, from corner to corner about 28.5 mm.
EYE_RADIUS = 0.35


def landmark_boxes(landmarks: Mapping, which: str = "largest", index: int = 0) -> list[Box | None]:
    """The mesh box of one face in each frame of ComfyUI's FACE_LANDMARKS; None where there is none."""
    return [face and _box(face) for face in _faces(landmarks, which, index)]


def control_from_landmarks(
    landmarks: Mapping, fps: float, gaze_order: str = "as published", which: str = "largest", index: int = 0
) -> Control:
    """Pose, and gaze where there are irises, from ComfyUI's FACE_LANDMARKS of frames at `fps`; gaps as for frames.

    Pose is the rotation in `transformation_matrix`. MediaPipe's axes are FLAME's, x to the picture's right, y up and z
    towards the viewer, so it needs no change of sign; what the two call a straight face may differ by a few degrees,
    and one far from the picture's middle reads as turned by about 3, because MediaPipe assumes a wide lens.
    Gaze is an estimate in L2CS-Net's terms: how far the irises are from the middle between the eyes' corners, with the
    head's rotation taken out, on a ball of EYE_RADIUS; then turned with the head.
    InputError where nothing was found, or the landmarks are of another kind.
    """
    faces = _faces(landmarks, which, index)
    seen = [face for face in faces if face]
    if not seen:
        raise InputError(f"The landmarks hold no face in any of {len(faces)} frames: use a video with a visible face.")
    rotations = [_rotation(face) for face in seen]
    parts = {"pose": _rows([rotation.as_rotvec() for rotation in rotations])}
    if all(_has_irises(face) for face in seen):
        gaze = [_gaze(face, rotation.as_matrix()) for face, rotation in zip(seen, rotations)]
        parts["gaze"] = _ordered(_rows(gaze), gaze_order)
    return _held(parts, [face is not None for face in faces], fps)


def _faces(landmarks: Mapping, which: str, index: int) -> list[Mapping | None]:
    """The same face of each frame."""
    try:
        frames, size = landmarks["frames"], tuple(landmarks["image_size"])
        boxes = [[_box(face) for face in faces] for faces in frames]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            "The landmarks are not those of ComfyUI's Detect Face Landmarks node: connect its face_landmarks."
        ) from error
    followed = follow_boxes(((found, size) for found in boxes), which, index)
    return [
        next((face for face, box in zip(faces, found) if box is one), None)
        for faces, found, one in zip(frames, boxes, followed)
    ]


def _box(face: Mapping) -> Box:
    return Box(*map(float, face["bbox_xyxy"]), float(face.get("score", 1.0)))


def _rotation(face: Mapping) -> Rotation:
    """Of a matrix (4,4) that also scales and moves."""
    turned = np.asarray(face.get("transformation_matrix", np.zeros((4, 4))), np.float64)[:3, :3]
    volume = np.linalg.det(turned)
    if not volume > 0:
        raise InputError(
            "The landmarks hold no transformation_matrix to read the head's pose from: connect face_landmarks of "
            "ComfyUI's Detect Face Landmarks node."
        )
    return Rotation.from_matrix(turned / np.cbrt(volume))


def _has_irises(face: Mapping) -> bool:
    return all(len(face.get(name, ())) >= LANDMARKS for name in ("landmarks_xy", "landmarks_3d"))


def _gaze(face: Mapping, turned: np.ndarray) -> tuple[float, float]:
    """(first, second) as L2CS-Net: + is image left, + is up; 0, 0 looks at the camera."""
    plane, space = (np.asarray(face[name], np.float64) for name in ("landmarks_xy", "landmarks_3d"))
    # MediaPipe's depths are in pixels of the square it looked at; the picture's are that many times as large.
    square = np.column_stack([space[:, :2], np.ones(len(space))])
    scale = np.linalg.norm(np.linalg.lstsq(square, plane, rcond=None)[0][0])
    points = np.column_stack([plane[:, 0], -plane[:, 1], -space[:, 2] * scale]) @ turned  # the head's own axes
    looks = []
    for iris, corners in zip(IRISES, EYE_CORNERS):
        a, b = points[list(corners)]
        looks.append((points[iris] - (a + b) / 2)[:2] / (EYE_RADIUS * np.linalg.norm(a - b)))
    right, up = np.mean(looks, axis=0)
    beyond = max(1.0, math.hypot(right, up))
    right, up = right / beyond, up / beyond
    x, y, z = turned @ (right, up, math.sqrt(max(0.0, 1 - right**2 - up**2)))
    return math.atan2(-x, z), math.asin(max(-1.0, min(1.0, y)))


# Shared


def _held(parts: dict[str, Tensor], seen: list[bool], fps: float) -> Control:
    """Rows of the frames that show the face, spread over all frames."""
    unseen = seen.count(False)
    if unseen:
        log.warning(
            "The face is not seen in %d of %d frames: there the last values from before are held.", unseen, len(seen)
        )
    last = (torch.tensor(seen).cumsum(0) - 1).clamp_min(0)
    return Control(**{name: rows[last] for name, rows in parts.items()}, fps=fps)


def _ordered(gaze: Tensor, order: str) -> Tensor:
    if order not in GAZE_ORDERS:
        raise InputError(f"There is no order {order!r} of the gaze's angles: use one of {', '.join(GAZE_ORDERS)}.")
    return gaze.flip(-1) if order == "swapped" else gaze


@torch.inference_mode()
def _run(model: nn.Module, images: Tensor) -> list[Tensor]:
    """What the model makes of (B,H,W,3), float32 on the CPU."""
    outputs = model(images.movedim(-1, 1).to(next(model.parameters())))
    return [rows.float().cpu() for rows in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _counted(frames: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    number = 0
    for number, frame in enumerate(frames, 1):
        if number > count:
            break
        yield frame
    if number != count:
        more = "more" if number > count else f"{number}"
        raise InputError(f"There are {more} frames where {count} face boxes are given: they must be of the same clip.")


def _picture(frame: Tensor) -> Tensor:
    return check_image(frame).cpu()


def _rows(values: Sequence) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
