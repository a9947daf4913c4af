"""Face detectors: our own for drawn heads, YuNet or Haar through OpenCV, with boxes corrected to match SFD's.

Images are float tensors (N, H, W, 3), RGB, 0..1, on the CPU; positions are pixels from the image's top left corner.
"""

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..media.files import sha256_of
from .crop import Box
from .drawn_heads import drawn_heads

log = logging.getLogger("imtalker")

DETECTION_SIDE = 640  # pixels
HAAR_FILE = "haarcascade_frontalface_default.xml"
YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_FILES = YUNET_FILE, "face_detection_yunet_2026may.onnx"
YUNET_HASHES = (  # SHA-256 of either version, whatever the file is called
    "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
)
_one_at_a_time = threading.Lock()  # OpenCV's networks are not for several threads

WITHOUT_FACE = "use the whole picture (no_face or crop in the nodes, --crop none on the command line)"


class NoFace(InputError):
    """The face that a crop needs is not there. `what` says why and what to do, `instead` how to do without it."""

    def __init__(self, what: str, instead: str = WITHOUT_FACE):
        super().__init__(f"{what}, or {instead}.")
        self.what, self.instead = what, instead

    def __reduce__(self) -> tuple:
        return type(self), (self.what, self.instead)


class DetectorMissing(NoFace):
    """No face detector is installed."""


# Size factor and downward shift (share of the box's side) that turn a box of each kind into SFD's. Estimated on 16
# images with a detector trained like SFD, not with SFD itself: accurate to about 5 %.
CORRECTIONS: dict[str, tuple[float, float]] = {
    "yunet": (1.0, 0.0),
    "haar": (1.03, 0.02),
    "mediapipe_mesh": (1.10, -0.055),
}


def correct_box(box: Box, kind: str) -> Box:
    """Turns a box of the given `kind`, a key of CORRECTIONS, into the box that SFD would give."""
    factor, shift = CORRECTIONS[kind]
    x, y = box.center
    y += shift * box.side
    half_width, half_height = factor * (box.x1 - box.x0) / 2, factor * (box.y1 - box.y0) / 2
    return Box(x - half_width, y - half_height, x + half_width, y + half_height, box.score)


Detector = Callable[[Tensor], list[Box]]
Fetch = Callable[[], str | Path]  # gets YuNet's file and returns its path


def open_detector(model_dirs: Sequence[str | Path] = (), fetch: Fetch | None = None) -> Detector:
    """Finds drawn heads by itself, and other faces with YuNet or Haar, which are loaded when they are first needed.

    YuNet is used if one of YUNET_FILES is in one of `model_dirs` or `fetch` gets it, else Haar, which only OpenCV 4
    includes. The detector takes an image (H, W, 3) or (1, H, W, 3) and returns every face as an SFD
    box, best score first; [] if there is none. It raises DetectorMissing if there is no drawn head and nothing to find
    other faces with, what `fetch` raises, and InputError for a batch.
    """
    others: list[Detector] = []
    drawn = False

    def detect(image: Tensor) -> list[Box]:
        nonlocal drawn
        image = _one(image)
        if heads := drawn_heads(image):
            drawn = True
            return heads
        if not others:
            try:
                others.append(open_face_detector(model_dirs, None if drawn else fetch))
            except DetectorMissing:
                if drawn:  # the rest of a clip of a drawn head, which hides for a moment
                    return []
                raise
        return others[0](image)

    return detect


def open_face_detector(model_dirs: Sequence[str | Path] = (), fetch: Fetch | None = None) -> Detector:
    """Loads YuNet or Haar, as `open_detector`. DetectorMissing: neither is installed."""
    cv2 = _opencv()
    try:
        model = _find_yunet(model_dirs) or (fetch and fetch())
        if model is None:
            raise DetectorMissing(
                f"No face detector is installed: run `python -m imtalker download`, put {YUNET_FILE} next to the "
                "other weights"
            )
    except DetectorMissing:
        cascade = Path(cv2.__file__).parent / "data" / HAAR_FILE
        if hasattr(cv2, "CascadeClassifier") and cascade.is_file():
            return _haar(cv2, cascade)
        raise
    return _yunet(cv2, Path(model))


def _opencv():
    try:
        import cv2
        from cv2 import FaceDetectorYN  # noqa: F401  a half removed OpenCV imports as an empty package
    except ImportError as error:
        raise DetectorMissing(
            f"OpenCV cannot be loaded ({error}): run `pip install opencv-python` (on a server opencv-python-headless) "
            "in the Python environment that runs this"
        ) from error
    return cv2


def _find_yunet(model_dirs: Sequence[str | Path]) -> Path | None:
    for path in (Path(folder) / name for folder in model_dirs for name in YUNET_FILES):
        if not path.is_file():
            continue
        if sha256_of(path) in YUNET_HASHES:
            return path
        log.warning("Ignoring %s, which is damaged or another version: delete it and download it again", path)
    return None


def _yunet(cv2, model: Path) -> Detector:
    find = _yunet_rows(cv2, model)

    def detect(image: Tensor) -> list[Box]:
        boxes = [Box(x, y, x + w, y + h, row[-1]) for x, y, w, h, *row in find(image).tolist()]
        return sorted((correct_box(box, "yunet") for box in boxes), key=lambda box: -box.score)

    return detect


def point_finder(model_dirs: Sequence[str | Path] = ()) -> Callable[[Tensor], np.ndarray | None] | None:
    """Loads YuNet as a landmark detector: eyes, nose and corners of the mouth; None if YuNet or OpenCV is missing.

    The function it returns takes an image (H, W, 3) and gives (5, 2), in pixels, for the largest face, or None.
    """
    try:
        model, cv2 = _find_yunet(model_dirs), _opencv()
    except DetectorMissing:
        return None
    if model is None:
        return None
    find = _yunet_rows(cv2, model)

    def points(image: Tensor) -> np.ndarray | None:
        rows = find(image)
        return rows[np.argmax(rows[:, 2] * rows[:, 3]), 4:14].reshape(5, 2) if len(rows) else None

    return points


def _yunet_rows(cv2, model: Path) -> Callable[[Tensor], np.ndarray]:
    """Loads YuNet: image -> (faces, 15), as x, y, width, height, five points and score, in pixels of the image."""
    network = _network(cv2, model, model.stat().st_mtime_ns)

    def find(image: Tensor) -> np.ndarray:
        # Trained on faces of up to about 300 of 640 pixels: a close-up is only found at a smaller size.
        for side in (DETECTION_SIDE, DETECTION_SIDE // 2):
            small, across, down = _shrink(cv2, image, side)
            canvas = np.zeros((DETECTION_SIDE, DETECTION_SIDE, 3), np.uint8)
            canvas[: small.shape[0], : small.shape[1]] = small[..., ::-1]
            with _one_at_a_time:
                _, found = network.detect(canvas)
            if found is not None:
                return found * np.array([*[across, down] * 7, 1])
        return np.zeros((0, 15))

    return find


@functools.lru_cache(maxsize=1)
def _network(cv2, model: Path, changed: int):
    """OpenCV's YuNet from a file that was `changed` then; one serves all searches."""
    # Always 640 x 640: the 2023mar network is exported for that size, and OpenCV 5 cannot reshape it.
    size, settings = (DETECTION_SIDE, DETECTION_SIDE), {"score_threshold": 0.6, "nms_threshold": 0.3}
    with _quiet(cv2):
        try:
            # From memory: on Windows OpenCV only opens ASCII paths.
            content, nothing = np.fromfile(model, np.uint8), np.zeros(0, np.uint8)
            return cv2.FaceDetectorYN.create("onnx", content, nothing, size, **settings)
        except (cv2.error, TypeError):  # OpenCV 4.8 only reads files
            return cv2.FaceDetectorYN.create(str(model), "", size, **settings)


@contextlib.contextmanager
def _quiet(cv2) -> Iterator[None]:
    """Without OpenCV's warnings: version 5 prints one whenever it makes a detector."""
    logging_of_opencv = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging_of_opencv is None:
        yield
        return
    before = logging_of_opencv.setLogLevel(logging_of_opencv.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging_of_opencv.setLogLevel(before)


def _haar(cv2, cascade: Path) -> Detector:
    storage = cv2.FileStorage(cascade.read_text("utf-8"), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    classifier = cv2.CascadeClassifier()
    classifier.read(storage.getFirstTopLevelNode())

    def detect(image: Tensor) -> list[Box]:
        small, across, down = _shrink(cv2, image, DETECTION_SIDE)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        # The last stage's margin as a score: faces pass by a larger margin than patterns.
        found, _, margins = classifier.detectMultiScale3(grey, 1.1, 5, outputRejectLevels=True)
        rows = zip(np.reshape(found, (-1, 4)).tolist(), np.ravel(margins).tolist(), strict=True)
        boxes = [Box(x * across, y * down, (x + w) * across, (y + h) * down, margin) for (x, y, w, h), margin in rows]
        return sorted((correct_box(box, "haar") for box in boxes), key=lambda box: -box.score)

    return detect


def _shrink(cv2, image: Tensor, side: int) -> tuple[np.ndarray, float, float]:
    """The image as uint8, its long side at most `side`, and the factors that scale x and y back."""
    pixels = _one(image)[..., :3].float().cpu().numpy()
    height, width = pixels.shape[:2]
    ratio = min(1.0, side / max(height, width))
    small = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    shrunk = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    return (shrunk * 255).clip(0, 255).round().astype(np.uint8), width / small[0], height / small[1]


def _one(image: Tensor) -> Tensor:
    """The image (H, W, 3) of (H, W, 3) or (1, H, W, 3)."""
    if image.ndim == 4 and len(image) != 1:
        raise InputError(f"Face detection takes one image, not a batch of {len(image)}: pick one of them.")
    return image.reshape(image.shape[-3:])
