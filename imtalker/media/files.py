"""What holds for files of every kind: where an output may go, and the hash of a file's content."""

import hashlib
from pathlib import Path

from ..errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mov")
HASHED = 1 << 20  # bytes read at a time


def check_output(path: str | Path, *suffixes: str) -> Path:
    """The path of a file to write, checked before the work: its folder exists, and it ends in one of `suffixes`.

    Without `suffixes` any name will do. Raises InputError.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{path} must end in {' or '.join(suffixes)}.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent}: create it or choose another.")
    return path


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal. Raises InputError for a file that cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(HASHED):
                digest.update(block)
    except OSError as problem:
        raise InputError(f"{path} cannot be read ({problem.strerror}): check the name and the folder.") from problem
    return digest.hexdigest()
