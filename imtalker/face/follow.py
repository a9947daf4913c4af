"""Choose a face in an image and follow it through a video.

Images are float tensors (N, H, W, 3), RGB, 0..1, on the CPU; positions are pixels from the image's top left corner.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..media.image import to_float
from .crop import CROP_SCALE, Box, Crop, centre_crop, framed
from .detectors import Fetch, NoFace, open_detector

log = logging.getLogger("imtalker")

SMOOTH_SECONDS = 0.4  # standard deviation of the Gaussian in `smooth_boxes`
SEARCHED_FRAMES = 60  # `steady_view` searches about this many frames of a clip,
MAX_STEP = 10  # but at least one in so many frames, to notice when the face is gone
HIDDEN_FRAMES = 8  # as many searched frames in a row without the face are a stretch that does not show it


class FaceNotFound(NoFace):
    """No face was found where one is needed."""


def choose_face(
    boxes: Sequence[Box], which: str = "largest", index: int = 0, size: tuple[int, int] | None = None
) -> Box:
    """Returns box number `index` in the order given by `which`.

    which: "largest", "left to right", "nearest to centre" (needs `size`, the image's (H, W)) or "best score".
    FaceNotFound: no boxes. InputError: unknown order, or an index past the last face.
    """
    if not boxes:
        raise FaceNotFound("No face was found: use an image with a visible face")
    orders: dict[str, Callable[[Box], float]] = {
        "largest": lambda box: -box.area,
        "left to right": lambda box: box.center[0],
        "nearest to centre": lambda box: math.dist(box.center, (size[1] / 2, size[0] / 2)),
        "best score": lambda box: -box.score,
    }
    if which not in orders:
        raise InputError(f"Unknown way to choose a face {which!r}: use one of {', '.join(orders)}.")
    if not 0 <= index < len(boxes):
        raise InputError(f"There is no face number {index}, {len(boxes)} found: use 0 to {len(boxes) - 1}.")
    return sorted(boxes, key=orders[which])[index]


def find_crop(
    image: Tensor,
    scale: float = CROP_SCALE,
    which: str = "largest",
    index: int = 0,
    model_dirs: Sequence[str | Path] = (),
    fallback: str = "error",
    name: str = "the picture",
    fetch: Fetch | None = None,
) -> Crop:
    """Finds the crop around one face of an image (H, W, 3) or (1, H, W, 3); messages call the image `name`.

    The face is chosen as by `choose_face`; model_dirs and fetch are as for `open_detector`. If no face is found or no
    detector is installed, `fallback` "error" raises FaceNotFound or DetectorMissing, and "centre" returns the middle
    square with a warning. InputError: an index past the last face.
    """
    height, width = image.shape[-3:-1]
    try:
        boxes = open_detector(model_dirs, fetch)(image)
        if not boxes:
            raise FaceNotFound(f"No face was found in {name}: use an image with a visible face")
    except NoFace as error:
        if fallback == "error":
            raise
        reason = f"No face was found in {name}." if isinstance(error, FaceNotFound) else str(error)
        log.warning("%s Using the middle square of the whole picture.", reason)
        return centre_crop(height, width)
    return framed(choose_face(boxes, which, index, (height, width)), height, width, scale)


def follow_face(
    frames: Iterable[Tensor],
    which: str = "largest",
    index: int = 0,
    model_dirs: Sequence[str | Path] = (),
    fetch: Fetch | None = None,
) -> list[Box | None]:
    """Follows one face through the frames (H, W, 3) of a video, uint8 or float in 0..1, as `follow_boxes` does.

    None for frames without the face. The result is for `steady_box` or `smooth_boxes`. DetectorMissing: no detector is
    installed.
    """
    detect = open_detector(model_dirs, fetch)
    return follow_boxes(((detect(to_float(frame)), frame.shape[-3:-1]) for frame in frames), which, index)


def follow_boxes(
    detections: Iterable[tuple[Sequence[Box], tuple[int, int]]],
    which: str = "largest",
    index: int = 0,
    fps: float | None = None,
) -> list[Box | None]:
    """Follows one face through detections, the boxes and (H, W) of each frame; None for frames without it.

    `choose_face` picks the face in the first frame that has any. After that it is the box nearest to its last position,
    if that is near enough and of similar size. fps: as for `steady_view`.
    """
    followed: list[Box | None] = []
    last, gap = None, 0
    for boxes, size in detections:
        box = None
        if boxes and last is None:
            if not 0 <= index < len(boxes):
                raise InputError(
                    f"There is no face number {index} {_moment(len(followed), fps)}, the first frame with a face: it "
                    f"shows {len(boxes)}, use 0 to {len(boxes) - 1}."
                )
            box = choose_face(boxes, which, index, size)
        elif boxes:
            box = still_there(boxes, last, gap)
        last, gap = (box, 0) if box else (last, gap + 1)
        followed.append(box)
    return followed


def still_there(boxes: Sequence[Box], last: Box, gap: int) -> Box | None:
    """The box of the face that was at `last`, `gap` frames without it ago; None if there is none."""
    if not boxes:
        return None
    nearest = min(boxes, key=lambda other: math.dist(other.center, last.center))
    # False detections differ in size, other people are further away; our face may move further in a longer gap.
    near = math.dist(nearest.center, last.center) < last.side * (0.5 + 0.1 * gap)
    return nearest if near and 2 / 3 < nearest.side / last.side < 3 / 2 else None


def _moment(number: int, fps: float | None) -> str:
    return f"in frame {number}" if fps is None else f"at {number / fps:.2f} s"


def _span(count: int, fps: float | None) -> str:
    return f"from 0 to {count - 1}" if fps is None else f"from 0 to {(count - 1) / fps:.2f} s"


def steady_box(boxes: Sequence[Box | None]) -> Box:
    """One box for a whole video: the median of each edge over the frames with a box. FaceNotFound: all are None."""
    found = _boxes_found(boxes)
    return Box(*(median(getattr(box, edge) for box in found) for edge in ("x0", "y0", "x1", "y1", "score")))


@dataclass(frozen=True)
class View:
    """One fixed crop for a whole clip, and the stretches of frames in which its face is not shown."""

    crop: Crop
    hidden: tuple[range, ...] = ()


def steady_view(
    frames: Iterable[Tensor],
    count: int | None,
    scale: float = CROP_SCALE,
    which: str = "largest",
    index: int = 0,
    model_dirs: Sequence[str | Path] = (),
    fetch: Fetch | None = None,
    fps: float | None = None,
) -> View:
    """Finds one fixed crop for a whole clip of frames (H, W, 3), uint8 or float in 0..1, from its `steady_box`.

    count: number of frames in the clip, None if unknown; about SEARCHED_FRAMES of them are searched, and every frame
    from one without a face to the next that shows one.
    fps: the clip's frame rate, with which messages say the time.
    FaceNotFound, DetectorMissing. InputError: a clip without frames.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError("The clip has no frames: choose another.")
    every = min(max(1, (count or 0) // SEARCHED_FRAMES), MAX_STEP)
    detect = open_detector(model_dirs, fetch)
    searched: list[int] = []

    def detections() -> Iterator[tuple[Sequence[Box], tuple[int, int]]]:
        lost = False
        for number, frame in enumerate(itertools.chain([first], frames)):
            boxes = []
            if lost or number % every == 0:
                searched.append(number)
                boxes = detect(to_float(frame))
                lost = not boxes
            yield boxes, frame.shape[-3:-1]

    boxes = follow_boxes(detections(), which, index, fps)
    if not any(boxes):
        raise FaceNotFound(
            f"No face was found in {len(searched)} frames {_span(len(boxes), fps)}: use a clip with a visible face"
        )
    return View(framed(steady_box(boxes), *first.shape[:2], scale), _hidden(boxes, searched))


def _hidden(boxes: Sequence[Box | None], searched: Sequence[int]) -> tuple[range, ...]:
    """The stretches between the frames that show the face, if long enough."""
    stretches, after, missed = [], 0, 0
    for number in [*searched, None]:
        if number is not None and boxes[number] is None:
            missed += 1
            continue
        if missed >= HIDDEN_FRAMES:
            stretches.append(range(after, len(boxes) if number is None else number))
        if number is not None:
            after, missed = number + 1, 0
    return tuple(stretches)


def smooth_boxes(boxes: Sequence[Box | None], fps: float, seconds: float = SMOOTH_SECONDS) -> list[Box]:
    """One box per frame without the detector's jitter, for a crop that follows the head as a camera would.

    Gaps are interpolated linearly and held at both ends, a running median removes outliers, then a Gaussian with a
    standard deviation of `seconds` smooths centre and size. It is symmetric in time, so the crop does not lag; with
    0.4 s at 25 fps, white jitter drops to about a sixth. FaceNotFound: all boxes are None.
    """
    from scipy import ndimage  # takes half of this package's import time

    found = _boxes_found(boxes)
    known = [number for number, box in enumerate(boxes) if box]
    rows = np.array([(*box.center, box.x1 - box.x0, box.y1 - box.y0) for box in found])
    track = np.stack([np.interp(np.arange(len(boxes)), known, column) for column in rows.T], axis=1)
    track = ndimage.median_filter(track, size=(2 * round(0.1 * fps) + 1, 1), mode="nearest")
    track = ndimage.gaussian_filter1d(track, seconds * fps, axis=0, mode="nearest")
    return [Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in track.tolist()]


def _boxes_found(boxes: Sequence[Box | None]) -> list[Box]:
    """The boxes that are not None. FaceNotFound: there are none."""
    found = [box for box in boxes if box]
    if not found:
        raise FaceNotFound(f"No face was found in any of {len(boxes)} frames: use a video with a visible face")
    return found
