"""Files of any kind: checks of output paths, and SHA-256."""

import hashlib
from pathlib import Path

from ..errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mov")
CHUNK = 1 << 20  # bytes


def check_output(path: str | Path, *suffixes: str) -> Path:
    """Checks an output path before the work starts: its folder exists and it ends in one of `suffixes`, if any.

    Returns the path. InputError: another suffix, no such folder.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{path} must end in {' or '.join(suffixes)}: change the name.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent}: create it or choose another.")
    return path


def sha256_of(path: str | Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal. InputError: the file cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(CHUNK):
                digest.update(block)
    except OSError as problem:
        raise InputError(f"{path} cannot be read ({problem.strerror}): check the name and the folder.") from problem
    return digest.hexdigest()


def regular_file(path: str | Path) -> Path:
    """Checks an input file before it is opened: reading a pipe or a device may never end. InputError: no such file."""
    path = Path(path)
    if not path.is_file():
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a pipe or a device: save it as a file first.")
        raise InputError(f"There is no file {path}: check the name and the folder.")
    return path
