"""Face detectors: YuNet or Haar through OpenCV, and their boxes corrected to those of SFD.

Pictures are float tensors (N, H, W, 3), RGB, 0..1, on the CPU; positions are pixels from the picture's top left corner.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..media.files import sha256_of
from .crop import Box

logger = logging.getLogger("imtalker")

DETECTION_SIDE = 640
HAAR_FILE = "haarcascade_frontalface_default.xml"
YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
GET_A_DETECTOR = (
    "run `pip install opencv-python` (opencv-python-headless on a server) and `python -m imtalker download`, which puts"
    ' the detector beside the other weights, or set the crop to "none"'
)


class DetectorMissing(InputError):
    """No face detector is installed; the message says how to get one."""


# Size factor and downward shift (share of the box's side) that turn a detector's box into SFD's. Estimated over 16
# pictures through a detector trained like SFD, not against SFD itself: expect +-5 %.
CORRECTIONS: dict[str, tuple[float, float]] = {
    "sfd": (1.0, 0.0),
    "yunet": (1.0, 0.0),
    "retinaface": (1.0, 0.0),
    "scrfd": (1.0, 0.0),
    "yolo": (1.0, 0.0),
    "haar": (1.03, 0.02),
    "mediapipe_mesh": (1.10, -0.055),
    "mediapipe_full": (1.12, -0.055),
    "mediapipe_short": (1.19, -0.11),
}


def correct_box(box: Box, kind: str) -> Box:
    """The box SFD would have drawn, from one of the detector `kind` (a key of CORRECTIONS)."""
    if kind not in CORRECTIONS:
        raise InputError(f"There is no kind of face box {kind!r}: choose one of {', '.join(CORRECTIONS)}.")
    factor, shift = CORRECTIONS[kind]
    x, y = box.center
    y += shift * box.side
    half_width, half_height = factor * (box.x1 - box.x0) / 2, factor * (box.y1 - box.y0) / 2
    return Box(x - half_width, y - half_height, x + half_width, y + half_height, box.score)


def detect_faces(image: Tensor, detector: str = "auto", model_dirs: Sequence[str | Path] = ()) -> list[Box]:
    """Every face of one picture (H, W, 3) or (1, H, W, 3) as an SFD box, best score first; [] where there is none.

    `detector`: "yunet" (needs YUNET_FILE in one of `model_dirs`), "haar" (OpenCV 4 carries it), or "auto": the first of
    these that is there. Raises DetectorMissing where it is not, InputError for a batch.
    """
    return open_detector(detector, model_dirs)(image)


Detector = Callable[[Tensor], list[Box]]


def open_detector(detector: str, model_dirs: Sequence[str | Path]) -> Detector:
    if detector not in ("auto", "yunet", "haar"):
        raise InputError(f"There is no face detector {detector!r}: use auto, yunet or haar.")
    try:
        import cv2
        from cv2 import FaceDetectorYN  # noqa: F401  a half removed OpenCV imports as an empty package
    except ImportError as error:
        raise DetectorMissing(f"OpenCV cannot be loaded ({error}): {GET_A_DETECTOR}.") from error
    model = _find_yunet(model_dirs) if detector != "haar" else None
    if model:
        return _yunet(cv2, model)
    cascade = Path(cv2.__file__).parent / "data" / HAAR_FILE
    if detector != "yunet" and hasattr(cv2, "CascadeClassifier") and cascade.is_file():
        return _haar(cv2, cascade)
    missing = {"yunet": YUNET_FILE, "haar": HAAR_FILE}.get(detector, f"{YUNET_FILE} or, with OpenCV 4, {HAAR_FILE}")
    raise DetectorMissing(f"No face detector is installed (looked for {missing}): {GET_A_DETECTOR}.")


def _find_yunet(model_dirs: Sequence[str | Path], sha256: str = YUNET_SHA256) -> Path | None:
    for folder in model_dirs:
        path = Path(folder) / YUNET_FILE
        if not path.is_file():
            continue
        if sha256_of(path) == sha256:
            return path
        logger.warning("%s is damaged or another version and is not used: delete it and download it again", path)
    return None


def _yunet(cv2, model: Path) -> Detector:
    find = _yunet_rows(cv2, model)

    def detect(image: Tensor) -> list[Box]:
        boxes = [Box(x, y, x + w, y + h, row[-1]) for x, y, w, h, *row in find(image).tolist()]
        return sorted((correct_box(box, "yunet") for box in boxes), key=lambda box: -box.score)

    return detect


def point_finder(model_dirs: Sequence[str | Path] = ()) -> Callable[[Tensor], np.ndarray | None] | None:
    """Finds eyes, nose and corners of the mouth: a picture (H, W, 3) -> (5, 2) in pixels of its largest face, or None.

    None where YuNet, which alone finds points, or OpenCV is not installed.
    """
    model = _find_yunet(model_dirs)
    try:
        import cv2
        from cv2 import FaceDetectorYN  # noqa: F401  as in open_detector
    except ImportError:
        return None
    if model is None:
        return None
    find = _yunet_rows(cv2, model)

    def points(image: Tensor) -> np.ndarray | None:
        rows = find(image)
        return rows[np.argmax(rows[:, 2] * rows[:, 3]), 4:14].reshape(5, 2) if len(rows) else None

    return points


def _yunet_rows(cv2, model: Path) -> Callable[[Tensor], np.ndarray]:
    """A picture to (faces, 15): x, y, width, height, five points, score; in the picture's own pixels."""
    # A fixed canvas: the 2023mar network is written for 640 x 640 and OpenCV 5, unlike 4, will not reshape it.
    size, settings = (DETECTION_SIDE, DETECTION_SIDE), {"score_threshold": 0.6, "nms_threshold": 0.3}
    try:
        # From memory: on Windows OpenCV cannot open a path that is not ASCII.
        content, nothing = np.fromfile(model, np.uint8), np.zeros(0, np.uint8)
        network = cv2.FaceDetectorYN.create("onnx", content, nothing, size, **settings)
    except (cv2.error, TypeError):  # OpenCV 4.8 reads files only
        network = cv2.FaceDetectorYN.create(str(model), "", size, **settings)

    def find(image: Tensor) -> np.ndarray:
        # Trained on faces up to about 300 of 640 pixels: a close-up is seen only when made smaller.
        for side in (DETECTION_SIDE, DETECTION_SIDE // 2):
            small, across, down = _shrink(cv2, image, side)
            canvas = np.zeros((*size, 3), np.uint8)
            canvas[: small.shape[0], : small.shape[1]] = small[..., ::-1]
            _, found = network.detect(canvas)
            if found is not None:
                return found * np.array([*[across, down] * 7, 1])
        return np.zeros((0, 15))

    return find


def _haar(cv2, cascade: Path) -> Detector:
    storage = cv2.FileStorage(cascade.read_text("utf-8"), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    classifier = cv2.CascadeClassifier()
    classifier.read(storage.getFirstTopLevelNode())

    def detect(image: Tensor) -> list[Box]:
        small, across, down = _shrink(cv2, image, DETECTION_SIDE)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        # The last stage's margin stands in for a score: a real face clears it by more than a patch of wallpaper.
        found, _, margins = classifier.detectMultiScale3(grey, 1.1, 5, outputRejectLevels=True)
        rows = zip(np.reshape(found, (-1, 4)).tolist(), np.ravel(margins).tolist(), strict=True)
        boxes = [Box(x * across, y * down, (x + w) * across, (y + h) * down, margin) for (x, y, w, h), margin in rows]
        return sorted((correct_box(box, "haar") for box in boxes), key=lambda box: -box.score)

    return detect


def _shrink(cv2, image: Tensor, side: int) -> tuple[np.ndarray, float, float]:
    """The picture as bytes with its long side at most `side`, and what x and y in it must be multiplied by."""
    if image.ndim == 4 and len(image) != 1:
        raise InputError(f"One picture is wanted here but {len(image)} were given: pick one of them.")
    pixels = image.reshape(image.shape[-3:])[..., :3].float().numpy()
    height, width = pixels.shape[:2]
    ratio = min(1.0, side / max(height, width))
    small = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    shrunk = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    return (shrunk * 255).clip(0, 255).round().astype(np.uint8), width / small[0], height / small[1]
