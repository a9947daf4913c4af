"""Files that appear whole or not at all, and what a killed process left of them."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from .files import check_output

HEADER_ROOM = 16384


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """A name to write to in the folder of `path`; takes the place of `path` when the block ends without an error.

    Whatever goes wrong inside, an older file stays and nothing else is left behind. What a process killed before it
    could clean up has left of the same `path` is removed first. InputError: no such folder, disk full, not permitted.
    """
    path = check_output(path)
    # In the same folder, so that the move at the end is one step; the suffix tells FFmpeg the format.
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    remove_stale(path)
    try:
        # PyAV leaves a file open for ever, and its room taken, where not even the header could be written.
        partial.write_bytes(bytes(HEADER_ROOM))
        yield partial
        os.replace(partial, path)
    except BaseException as problem:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if is_disk_full(problem):
            raise InputError(
                f"The disk is full, {path} was not written: make room or choose another folder."
            ) from problem
        if isinstance(problem, PermissionError) and partial.name in str(problem.filename):
            raise InputError(
                f"{path} may not be written: close the program that uses it or choose another."
            ) from problem
        raise


def is_disk_full(problem: BaseException) -> bool:
    return getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


def remove_stale(path: Path) -> None:
    """Removes the partial files of `path` whose processes are gone."""
    name = re.compile(rf"\.{re.escape(path.stem)}\.partial-(\d+){re.escape(path.suffix)}")
    for entry in os.scandir(path.parent):
        found = name.fullmatch(entry.name)
        if found and not _is_running(int(found[1])):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def _is_running(process: int) -> bool:
    if os.name == "nt":
        # os.kill would end it; a file that is being written cannot be removed there anyway
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
