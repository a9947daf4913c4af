"""Atomic files: written whole or not at all, with cleanup of what killed processes left behind."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from .files import check_output

HEADER_ROOM = 16384  # bytes


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path` and renames that file to `path` if the block ends without error.

    On any error an existing file stays as it was and the temporary file is deleted. Temporary files of the same `path`
    that killed processes left behind are deleted first. InputError: no such folder, disk full, no permission.
    """
    path = check_output(path)
    # In the same folder, so that the rename is atomic; with the same suffix, which tells FFmpeg the format.
    temporary = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    remove_stale(path)
    try:
        # If even the header does not fit, PyAV never closes the file and its disk space stays taken.
        temporary.write_bytes(bytes(HEADER_ROOM))
        yield temporary
        os.replace(temporary, path)
    except BaseException as problem:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if is_disk_full(problem):
            raise InputError(
                f"The disk is full, {path} was not written: free some space or choose another folder."
            ) from problem
        if isinstance(problem, PermissionError) and temporary.name in str(problem.filename):
            raise InputError(
                f"No permission to write {path}: close any program that uses it, or choose another folder."
            ) from problem
        raise


def is_disk_full(problem: BaseException) -> bool:
    """Whether an error means that the disk or the user's quota is full."""
    return getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


def remove_stale(path: Path) -> None:
    """Deletes the temporary files of `path` whose processes no longer run."""
    name = re.compile(rf"\.{re.escape(path.stem)}\.partial-(\d+){re.escape(path.suffix)}")
    for entry in os.scandir(path.parent):
        found = name.fullmatch(entry.name)
        if found and not _is_running(int(found[1])):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def _is_running(process: int) -> bool:
    if os.name == "nt":
        # os.kill would end the process; Windows refuses to delete an open file anyway
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
