"""Downloading the published weights, only on request: what exists, what is missing, and fetching it.

Importing this module touches no network. Hugging Face's library resumes interrupted downloads and reads HF_ENDPOINT,
HF_TOKEN and HF_HUB_OFFLINE itself.
"""

import inspect
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..face.detectors import YUNET_FILE, YUNET_SHA256
from ..media.files import sha256_of

logger = logging.getLogger("imtalker")

# A branch, because the commit's hash was not known when this was written. Pin the commit here once it is.
REVISION = "main"


@dataclass(frozen=True)
class PublishedFile:
    """One file to fetch; `name` is its path in the repository and below the target folder."""

    name: str
    repo: str
    size: int
    sha256: str | None = None

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.repo}/resolve/{REVISION}/{self.name}"


# Sizes are for planning offline and may be out of date; hashes are those the publisher states.
PUBLISHED = (
    PublishedFile("renderer.ckpt", "cbsjtu01/IMTalker", 2_121_068_003),
    PublishedFile("generator.ckpt", "cbsjtu01/IMTalker", 621_318_134),
    PublishedFile("wav2vec2-base-960h/config.json", "cbsjtu01/IMTalker", 1_596),
    PublishedFile(
        "wav2vec2-base-960h/pytorch_model.bin",
        "cbsjtu01/IMTalker",
        377_667_514,
        "c34f9827b034a1b9141dbf6f652f8a60eda61cdf5771c9e05bfa99033c92cd96",
    ),
    PublishedFile(YUNET_FILE, "opencv/face_detection_yunet", 232_589, YUNET_SHA256),
)

Progress = Callable[[str, int, int | None], None]


def plan(to: str | Path) -> list[tuple[str, int | None, bool]]:
    """What `download` would do: (name, size in bytes, already there) of every published file.

    The sizes of missing files come from the hub, or from PUBLISHED if it does not answer.
    """
    missing = [file for file in PUBLISHED if not os.path.isfile(Path(to) / file.name)]
    sizes = {file.name: file.size for file in PUBLISHED}
    if missing:
        sizes |= _sizes_on_hub(missing)
    return [(file.name, sizes[file.name], file not in missing) for file in PUBLISHED]


def download(to: str | Path, progress: Progress | None = None, files: Sequence[str] | None = None) -> list[Path]:
    """Downloads the published files (or only those named in `files`) into the folder `to`; returns their paths.

    Files already there are skipped. During a transfer, `progress(name, bytes so far, bytes in all)` is called if
    huggingface_hub is new enough to report it. Raises InputError for an unknown name, without huggingface_hub, if the
    hub cannot be reached or refuses (listing the addresses for a download by hand), and for a file that is not the
    published one.
    """
    names = [file.name for file in PUBLISHED]
    for name in files or ():
        if name not in names:
            raise InputError(f"{name!r} is not a published file: choose from {', '.join(names)}.")
    to = Path(to)
    wanted = [file for file in PUBLISHED if files is None or file.name in files]
    missing = [file for file in wanted if not os.path.isfile(to / file.name)]
    for file in missing:
        _fetch(file, to, progress, missing)
        _verify(file, to / file.name)
    return [to / file.name for file in wanted]


def _sizes_on_hub(files: Sequence[PublishedFile]) -> dict[str, int]:
    hub = _hub()
    sizes = {}
    for repo in {file.repo for file in files}:
        names = [file.name for file in files if file.repo == repo]
        try:
            found = hub.HfApi().get_paths_info(repo, names, revision=REVISION)
        except (OSError, hub.errors.HTTPError) as error:
            logger.warning("The hub does not answer for %s (%s): sizes are approximate.", repo, _first_line(error))
            continue
        sizes |= {entry.path: entry.size for entry in found}
    return sizes


def _fetch(file: PublishedFile, to: Path, progress: Progress | None, missing: Sequence[PublishedFile]) -> None:
    hub = _hub()
    options = {}
    if progress and "tqdm_class" in inspect.signature(hub.hf_hub_download).parameters:  # older releases cannot report
        options["tqdm_class"] = _reporter(hub, file.name, progress)
    try:
        hub.hf_hub_download(repo_id=file.repo, filename=file.name, revision=REVISION, local_dir=to, **options)
    # Network errors are OSErrors with requests, the hub's own HTTPErrors with httpx, RuntimeErrors from xet.
    except (OSError, hub.errors.HTTPError, RuntimeError) as error:
        by_hand = "; ".join(f"{other.url} to {to / other.name}" for other in missing)
        raise InputError(
            f"{file.name} cannot be downloaded ({_first_line(error)}): try again later, or download by hand: {by_hand}."
        ) from error


def _verify(file: PublishedFile, path: Path) -> None:
    if file.sha256 is not None and sha256_of(path) != file.sha256:
        path.unlink()
        raise InputError(f"{path} is not the published file (its SHA-256 differs) and was removed: download it again.")


def _hub():
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise InputError(f"huggingface_hub cannot be loaded ({error}): run `pip install huggingface_hub`.") from error
    return huggingface_hub


def _reporter(hub, name: str, progress: Progress) -> type:
    """A progress bar class for the hub that calls `progress` instead of drawing."""

    class Reporter(hub.utils.tqdm):
        furthest = 0  # over all bars: xet opens one for receiving and one for writing

        def __init__(self, *args, **options):
            # Disabled bars do not count, and bars are disabled without a terminal.
            self.done, self.whole = options.get("initial", 0), options.get("total")
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n=1):
            self.done += n or 0
            if self.done > Reporter.furthest:
                Reporter.furthest = self.done
                progress(name, self.done, self.whole)

    return Reporter


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
