"""Downloading published weights, only on request: what exists, what is missing, and fetching it.

Importing this module touches no network. HF_ENDPOINT names a mirror, HF_TOKEN is sent, HF_HUB_OFFLINE forbids requests.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..face.detectors import YUNET_FILE, YUNET_HASHES, DetectorMissing
from ..media.files import unusable
from .fetch import FetchFailed, WrongContent, fetch, size_of

logger = logging.getLogger("imtalker")

# A branch, because the commit's hash was not known when this was written. Pin the commit here once it is.
REVISION = "main"
HUB = "https://huggingface.co"
CACHE = Path.home() / ".cache" / "imtalker"  # the command line's folder of weights


@dataclass(frozen=True)
class PublishedFile:
    """One file to fetch; `name` is its path in the repository and below the target folder."""

    name: str
    repo: str
    size: int
    sha256: tuple[str, ...] = ()  # the hashes that are right; without any, the hub's own counts

    @property
    def url(self) -> str:
        return f"{HUB}/{self.repo}/resolve/{REVISION}/{self.name}"


# Sizes are for planning offline and may be out of date; hashes are those the publisher states.
DETECTOR = PublishedFile(YUNET_FILE, "opencv/face_detection_yunet", 232_589, YUNET_HASHES)
PUBLISHED = (
    PublishedFile("renderer.ckpt", "cbsjtu01/IMTalker", 2_121_068_003),
    PublishedFile("generator.ckpt", "cbsjtu01/IMTalker", 621_318_134),
    PublishedFile("wav2vec2-base-960h/config.json", "cbsjtu01/IMTalker", 1_596),
    PublishedFile(
        "wav2vec2-base-960h/pytorch_model.bin",
        "cbsjtu01/IMTalker",
        377_667_514,
        ("c34f9827b034a1b9141dbf6f652f8a60eda61cdf5771c9e05bfa99033c92cd96",),
    ),
    DETECTOR,
)

Progress = Callable[[str, int, int | None], None]


def plan(to: str | Path) -> list[tuple[str, int | None, bool]]:
    """What `download` would do: (name, size in bytes, already there) of every published file.

    The sizes of missing files come from the hub, or from PUBLISHED if it does not answer.
    """
    missing = _missing(to)
    sizes = {file.name: file.size for file in PUBLISHED} | _sizes_on_hub(missing)
    return [(file.name, sizes[file.name], file not in missing) for file in PUBLISHED]


def download(to: str | Path, progress: Progress | None = None, files: Sequence[str] | None = None) -> list[Path]:
    """Downloads the published files (or only those named in `files`) into the folder `to`; returns their paths.

    Files already there are skipped, and one that was stopped goes on where it was. `progress(name, bytes so far, bytes
    in all)` is called several times a second, also while nothing arrives; an exception from it stops the download.
    Raises InputError for an unknown name, if the hub cannot be reached or refuses (listing the addresses of all that is
    missing, for a download by hand), and for a file that is not the published one.
    """
    names = [file.name for file in PUBLISHED]
    for name in files or ():
        if name not in names:
            raise InputError(f"{name!r} is not a published file: choose from {', '.join(names)}.")
    wanted = [file for file in PUBLISHED if files is None or file.name in files]
    missing = _missing(to)
    for file in wanted:
        if file in missing:
            # of wav2vec2, which the published generator includes, nothing is said unless it is wanted
            others = [other for other in missing if other in wanted or "/" not in other.name]
            _fetch(file, Path(to), progress, others)
            missing.remove(file)
    return [Path(to) / file.name for file in wanted]


def fetch_detector(to: str | Path, progress: Progress | None = None) -> Path:
    """Downloads the face detector (0.2 MB) into the folder `to`, which is made, as `download`; returns its path.

    DetectorMissing: it cannot be had; the message names its address and the folder.
    """
    path = Path(to) / DETECTOR.name
    if not offline():
        logger.warning("A face must be found: downloading the face detector (0.2 MB) to %s", path.parent)
    try:
        _transfer(DETECTOR, path, progress)
    except FetchFailed as error:
        raise DetectorMissing(
            f"The face detector is missing and cannot be downloaded ({error}): put {DETECTOR.url} into {path.parent}"
        ) from error
    return path


def offline() -> bool:
    """Whether the environment forbids requests, by the switches of Hugging Face's libraries."""
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _missing(to: str | Path) -> list[PublishedFile]:
    return [file for file in PUBLISHED if not os.path.isfile(Path(to) / file.name)]


def _on_hub(file: PublishedFile) -> str:
    """Its address on the hub or the mirror that is set."""
    return file.url.replace(HUB, (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/"), 1)


def _sizes_on_hub(files: Sequence[PublishedFile]) -> dict[str, int]:
    sizes = {}
    for file in files:
        try:
            if offline():
                raise FetchFailed("HF_HUB_OFFLINE is set")
            sizes[file.name] = size_of(_on_hub(file)) or file.size
        except FetchFailed as error:
            logger.warning("The hub does not answer (%s): sizes are approximate.", error)
            break
    return sizes


def _fetch(file: PublishedFile, to: Path, progress: Progress | None, missing: Sequence[PublishedFile]) -> None:
    """Fetches one of the missing files; where that fails, all of them are named."""
    try:
        _transfer(file, to / file.name, progress)
    except WrongContent as error:
        raise InputError(f"What came for {to / file.name} is not the published file: download it again.") from error
    except FetchFailed as error:
        by_hand = "; ".join(f"{each.url} to {to / each.name}" for each in missing)
        raise InputError(
            f"{file.name} cannot be downloaded ({error}): try again later, which goes on where this stopped, or "
            f"download by hand: {by_hand}."
        ) from error


def _transfer(file: PublishedFile, path: Path, progress: Progress | None) -> None:
    if offline():
        raise FetchFailed("HF_HUB_OFFLINE is set")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch(_on_hub(file), path, lambda *sizes: progress and progress(file.name, *sizes), file.sha256)
    except OSError as error:
        raise unusable(path, "written", error) from error
