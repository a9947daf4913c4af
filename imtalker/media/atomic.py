"""Atomic files: written whole or not at all, by one run at a time, with cleanup of what killed processes left."""

import contextlib
import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from .files import check_output, temporary_name, unusable

HEADER_ROOM = 16384  # bytes
_names: set[str] = set()  # of the files that threads of this process are writing
_changing_names = threading.Lock()


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path` and renames that file to `path` if the block ends without error.

    On any error an existing file stays as it was and the temporary file is deleted. Temporary files of the same `path`
    that killed processes left behind are deleted first. InputError: whatever keeps the system from writing it.
    """
    path = check_output(path)
    remove_stale(path)
    with _one_thread(path):
        yield from _written(path)


def _written(path: Path) -> Iterator[Path]:
    # in the same folder, so that the rename is atomic
    temporary = path.with_name(temporary_name(path, f"partial-{os.getpid()}"))
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
        if isinstance(problem, PermissionError):
            raise InputError(
                f"No permission to write {path}: close any program that uses it, or choose another folder."
            ) from problem
        if isinstance(problem, OSError) and problem.errno:
            raise unusable(path, "written", problem) from problem
        raise


@contextlib.contextmanager
def _one_thread(path: Path) -> Iterator[None]:
    name = os.path.realpath(path)
    with _changing_names:
        if name in _names:
            raise _another_run(path)
        _names.add(name)
    try:
        yield
    finally:
        _names.discard(name)


def _another_run(path: Path) -> InputError:
    return InputError(f"Another run is writing {path}: wait until it ends, stop it, or choose another name.")


def is_disk_full(problem: BaseException) -> bool:
    """Whether an error means that the disk or the user's quota is full."""
    return getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


def remove_stale(path: Path) -> None:
    """Deletes the temporary files of `path` whose processes no longer run."""
    start, end = map(re.escape, temporary_name(path, "\0").split("\0"))
    name = re.compile(rf"{start}(?:partial|probe)-(\d+){end}")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            found = name.fullmatch(entry.name)
            if found and not _is_running(int(found[1])):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


@contextlib.contextmanager
def only_run(path: str | os.PathLike) -> Iterator[None]:
    """Keeps `path` for this run while the block lasts, by a locked file beside it, which the system frees if we die.

    InputError: another run, in any process, is writing `path`.
    """
    path = Path(path)
    lock = path.with_name(temporary_name(path, "lock"))
    file = None
    try:
        while file is None:
            file = _locked(lock)
    except BlockingIOError as problem:
        raise _another_run(path) from problem
    except OSError as problem:
        raise unusable(path, "written", problem) from problem
    try:
        yield
    finally:
        # Windows deletes no open file; elsewhere, nobody may lock it once it is deleted, see _locked
        if os.name == "nt":
            os.close(file)
        with contextlib.suppress(OSError):
            lock.unlink()
        if os.name != "nt":
            os.close(file)


def _locked(lock: Path) -> int | None:
    """The open, locked file; None if it was deleted meanwhile. BlockingIOError: somebody else has locked it."""
    file = os.open(lock, os.O_RDWR | os.O_CREAT)
    try:
        _lock(file)
        if os.name == "nt" or os.path.samestat(os.fstat(file), os.stat(lock)):
            return file
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _lock(file: int) -> None:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise BlockingIOError from problem
        # some network disks know no locks: two runs are still each whole or not at all
        if problem.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


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
