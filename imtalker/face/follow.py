"""The face in a picture: found, chosen, and followed through a video.

Pictures are float tensors (N, H, W, 3), RGB, 0..1, on the CPU; positions are pixels from the picture's top left corner.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..media.image import to_float
from .crop import CROP_SCALE, Box, Crop, centre_crop, square_crop
from .detectors import DetectorMissing, detect_faces, open_detector

logger = logging.getLogger("imtalker")

SEARCHED_FRAMES = 60  # search about this many frames for the face when one box serves the clip


class FaceNotFound(InputError):
    """There is no face where one is needed."""


def choose_face(
    boxes: Sequence[Box], which: str = "largest", index: int = 0, size: tuple[int, int] | None = None
) -> Box:
    """One of `boxes`: number `index` when they are put in the order `which` names.

    `which`: "largest", "left to right", "nearest to centre" (needs `size`, the picture's (H, W)) or "best score".
    Raises FaceNotFound for no boxes, InputError for an unknown order or an index past the last face.
    """
    if not boxes:
        raise FaceNotFound("No face was found: use a picture with a visible face, or choose the whole picture.")
    orders: dict[str, Callable[[Box], float]] = {
        "largest": lambda box: -box.area,
        "left to right": lambda box: box.center[0],
        "nearest to centre": lambda box: math.dist(box.center, (size[1] / 2, size[0] / 2)),
        "best score": lambda box: -box.score,
    }
    if which not in orders:
        raise InputError(f"There is no way {which!r} to choose a face: use one of {', '.join(orders)}.")
    if not 0 <= index < len(boxes):
        raise InputError(f"Face number {index} was asked for but {len(boxes)} found: use 0 to {len(boxes) - 1}.")
    return sorted(boxes, key=orders[which])[index]


def find_crop(
    image: Tensor,
    scale: float = CROP_SCALE,
    which: str = "largest",
    index: int = 0,
    detector: str = "auto",
    model_dirs: Sequence[str | Path] = (),
    fallback: str = "error",
    name: str = "the picture",
) -> Crop:
    """The crop around one face of a picture (H, W, 3) or (1, H, W, 3); `name` is what messages call the picture.

    Where no face is found, or no detector is installed, `fallback` "error" raises FaceNotFound or DetectorMissing, and
    "centre" warns and gives the middle square. An index past the last face is always an InputError.
    """
    height, width = image.shape[-3:-1]
    try:
        boxes = detect_faces(image, detector, model_dirs)
        if not boxes:
            raise FaceNotFound(
                f"No face was found in {name}: use a picture with a visible face, or choose the whole picture."
            )
    except (FaceNotFound, DetectorMissing) as error:
        if fallback == "error":
            raise
        reason = f"No face was found in {name}." if isinstance(error, FaceNotFound) else str(error)
        logger.warning("%s Using the middle square of the whole picture.", reason)
        return centre_crop(height, width)
    return square_crop(choose_face(boxes, which, index, (height, width)), height, width, scale)


def follow_face(
    frames: Iterable[Tensor],
    which: str = "largest",
    index: int = 0,
    detector: str = "auto",
    model_dirs: Sequence[str | Path] = (),
    every: int = 1,
) -> list[Box | None]:
    """The same face in each frame (H, W, 3) of a video; None where it was not seen, or not looked for.

    Looks at every `every`-th frame. The face is chosen as by `choose_face` where one first appears, and followed as by
    `follow_boxes`. For `steady_box` or `smooth_boxes`.
    """
    find = open_detector(detector, model_dirs)
    looks = ((find(frame) if number % every == 0 else [], frame.shape[-3:-1]) for number, frame in enumerate(frames))
    return follow_boxes(looks, which, index)


def follow_boxes(
    looks: Iterable[tuple[Sequence[Box], tuple[int, int]]], which: str = "largest", index: int = 0
) -> list[Box | None]:
    """The same face among the boxes of each frame, given with the frame's (H, W); None where it is not among them.

    Chosen as by `choose_face` where one first appears, it then is the one nearest to where it was last, if near enough
    and of like size.
    """
    followed: list[Box | None] = []
    last, unseen = None, 0
    for boxes, size in looks:
        box = None
        if boxes and last is None:
            box = choose_face(boxes, which, index, size)
        elif boxes:
            nearest = min(boxes, key=lambda other: math.dist(other.center, last.center))
            # A false find differs in size, another person is further off; the longer unseen, the further ours may be.
            near = math.dist(nearest.center, last.center) < last.side * (0.5 + 0.1 * unseen)
            box = nearest if near and 2 / 3 < nearest.side / last.side < 3 / 2 else None
        last, unseen = (box, 0) if box else (last, unseen + 1)
        followed.append(box)
    return followed


def steady_box(boxes: Sequence[Box | None]) -> Box:
    """One box for a whole video: the median of each edge over the frames that show the face. All None: FaceNotFound."""
    seen = _seen(boxes)
    return Box(*(median(getattr(box, edge) for box in seen) for edge in ("x0", "y0", "x1", "y1", "score")))


def steady_crop(
    frames: Iterable[Tensor],
    count: int | None,
    scale: float = CROP_SCALE,
    which: str = "largest",
    index: int = 0,
    model_dirs: Sequence[str | Path] = (),
) -> Crop:
    """The one square that serves a whole clip of frames (H, W, 3), uint8 or float in 0..1: `steady_box` of its face.

    count: frames in the clip, None where unknown; about SEARCHED_FRAMES of them are searched. Raises FaceNotFound,
    DetectorMissing, and InputError for a clip without frames.
    """
    frames = map(to_float, frames)
    first = next(frames, None)
    if first is None:
        raise InputError("The clip has no frames: choose another.")
    every = max(1, (count or 0) // SEARCHED_FRAMES)
    boxes = follow_face(itertools.chain([first], frames), which, index, model_dirs=model_dirs, every=every)
    return square_crop(steady_box(boxes), *first.shape[:2], scale)


def smooth_boxes(boxes: Sequence[Box | None], fps: float, seconds: float = 0.4) -> list[Box]:
    """A box for each frame, free of the detector's jitter, for a crop that follows the head like a camera on a tripod.

    Gaps are filled along a straight line (held at both ends), single wild boxes drop out in a running median, then a
    Gaussian of standard deviation `seconds` is applied to centre and size. It looks both ways in time, so the crop does
    not lag; at 25 fps and 0.4 s a white jitter falls to about a sixth. All None: FaceNotFound.
    """
    from scipy import ndimage  # half of what importing this package would take

    _seen(boxes)
    known = [number for number, box in enumerate(boxes) if box]
    rows = np.array([(*box.center, box.x1 - box.x0, box.y1 - box.y0) for box in boxes if box])
    track = np.stack([np.interp(np.arange(len(boxes)), known, column) for column in rows.T], axis=1)
    track = ndimage.median_filter(track, size=(2 * round(0.1 * fps) + 1, 1), mode="nearest")
    track = ndimage.gaussian_filter1d(track, seconds * fps, axis=0, mode="nearest")
    return [Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in track.tolist()]


def _seen(boxes: Sequence[Box | None]) -> list[Box]:
    seen = [box for box in boxes if box]
    if not seen:
        raise FaceNotFound(
            f"No face was found in any of {len(boxes)} frames: use a video with a visible face, or do not crop."
        )
    return seen
