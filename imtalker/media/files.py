"""Files of any kind: checks of paths to read and to write, and SHA-256."""

import errno
import hashlib
import os
import stat
from pathlib import Path

from ..errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mov")
CHUNK = 1 << 20  # bytes
KERNEL = ("/proc/", "/sys/")  # their files look regular, but some never end

WHAT_TO_DO = {
    errno.EACCES: "change its permissions or those of its folder, or choose another",
    errno.EPERM: "change its permissions or those of its folder, or choose another",
    errno.EROFS: "choose a folder that can be written to",
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle; choose the file itself",
    errno.EISDIR: "choose a file, not a folder",
    errno.ENOENT: "it or its folder was removed or renamed meanwhile; check both",
    errno.ENOTDIR: "part of its path is a file, not a folder; check the name",
    errno.EMFILE: "too many files are open; close other programs",
    errno.ENFILE: "too many files are open; close other programs",
    errno.EIO: "the disk or the network fails; copy the file elsewhere first",
}


def unusable(path: str | os.PathLike, what: str, problem: Exception) -> InputError:
    """The sentence for an error of the system: unusable("a.png", "read", problem). what: "read", "written", ..."""
    code = getattr(problem, "errno", None)
    reason = os.strerror(code) if code else str(problem) or type(problem).__name__
    return InputError(f"{path} cannot be {what} ({reason}): {WHAT_TO_DO.get(code, 'check the name and the folder')}.")


def regular_file(path: str | os.PathLike) -> Path:
    """Checks a file before it is read: it exists, is an ordinary file or a link to one, is not empty, can be opened.

    Pipes, devices, sockets and the kernel's own files are refused because reading them may never end.
    Returns the path. InputError: anything else.
    """
    try:
        state = os.stat(path)
        if stat.S_ISDIR(state.st_mode):
            raise InputError(f"{path} is a folder: choose a file.")
        if not stat.S_ISREG(state.st_mode) or os.path.realpath(path).startswith(KERNEL):
            raise InputError(f"{path} is a pipe, a device or a socket: save it as an ordinary file first.")
        with open(path, "rb"):
            pass
    except FileNotFoundError as problem:
        raise InputError(f"There is no file {path}: check the name and the folder.") from problem
    except InputError:
        raise
    except (OSError, ValueError) as problem:  # ValueError: a name that no system can have
        raise unusable(path, "read", problem) from problem
    if not state.st_size:
        raise InputError(f"{path} is empty: choose another file, or copy it again.")
    return Path(path)


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
    """Returns the SHA-256 of a file, in hexadecimal. InputError: not an ordinary file that can be read."""
    digest = hashlib.sha256()
    regular_file(path)
    try:
        with open(path, "rb") as file:
            while block := file.read(CHUNK):
                digest.update(block)
    except OSError as problem:
        raise unusable(path, "read", problem) from problem
    return digest.hexdigest()
