"""Files of any kind: checks of paths to read and to write, and SHA-256."""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mov")
CHUNK = 1 << 20  # bytes
LONG_NAME, LONG_SUFFIX = 180, 20  # most systems allow 255 bytes, some 143
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


def check_output(path: str | Path, *suffixes: str, inputs: Iterable[str | os.PathLike] = ()) -> Path:
    """Checks an output path before the work starts: a file of this name can be written and is none of the `inputs`.

    suffixes: what it may end in, if any. Returns the path.
    InputError: another suffix, no such folder, a folder or device of this name, the same file as an input (by link, or
    on a disk that ignores case), no permission, read-only, a name too long.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{path} must end in {' or '.join(suffixes)}: change the name.")
    if not os.path.isdir(path.parent):
        raise InputError(f"There is no folder {path.parent}: create it or choose another.")
    for name in inputs:
        if is_same_file(path, name):
            raise InputError(f"{path} is also an input ({name}), which would be lost: choose another name.")
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise InputError(f"{path} is a folder or a device: choose another name.")
            with open(path, "r+b"):  # renaming over a file would not ask whether it may be changed
                pass
        probe = path.with_name(temporary_name(path, f"probe-{os.getpid()}"))
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT))
        with contextlib.suppress(FileNotFoundError):  # another thread was quicker
            os.unlink(probe)
    except InputError:
        raise
    except (OSError, ValueError) as problem:
        raise unusable(path, "written", problem) from problem
    return path


def is_same_file(one: str | os.PathLike, other: str | os.PathLike) -> bool:
    """Whether two paths lead to one existing file: by another path, a link, or another spelling where that counts."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def temporary_name(path: Path, mark: str) -> str:
    """The name of a hidden file beside `path` for work on it; short even where the name of `path` is the longest."""
    stem = path.stem if len(os.fsencode(path.name)) <= LONG_NAME else hashlib.sha1(os.fsencode(path.stem)).hexdigest()
    # the suffix tells FFmpeg the format
    return f".{stem}.{mark}{path.suffix[:LONG_SUFFIX]}"


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
