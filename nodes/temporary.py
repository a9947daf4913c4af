"""Our files in ComfyUI's temp folder: they live as long as the links that lead to them, and a few longer."""

import contextlib
import os
import uuid
import weakref
from collections import deque

import folder_paths

KEPT = 4  # files that nothing leads to any more: other packs may still read or show them

_living: "weakref.WeakValueDictionary[str, TemporaryFile]" = weakref.WeakValueDictionary()
_left: deque[str] = deque()
_lost = 0


class TemporaryFile(str):
    """The path of a file that may be deleted when this object is gone.

    ComfyUI's VIDEO keeps the object that it was given and hands it on when it is trimmed, so the file lives as long as
    any result in ComfyUI's cache needs it.
    """


def new_temporary(suffix: str) -> TemporaryFile:
    """A path for a new file in temp/, which ComfyUI empties on start and exit. OSError: the folder cannot be made."""
    while len(_left) > KEPT:
        with contextlib.suppress(OSError):
            os.unlink(_left.popleft())
    folder = folder_paths.get_temp_directory()
    os.makedirs(folder, exist_ok=True)
    path = TemporaryFile(os.path.join(folder, f"imtalker_{uuid.uuid4().hex}{suffix}"))
    weakref.finalize(path, _left.append, str(path)).atexit = False
    return path


def handed_out(path: TemporaryFile) -> TemporaryFile:
    """Notes that a link leads to this file, which is written, so that its loss is noticed."""
    _living[str(path)] = path
    return path


def lost_files() -> int:
    """How many files of living links have been found deleted: a fingerprint for nodes that hand out such files.

    When somebody empties temp/, the number changes, and ComfyUI runs these nodes again instead of handing on a result
    whose file is gone.
    """
    global _lost
    for name in list(_living):
        if not os.path.exists(name):
            _lost += 1
            del _living[name]
    return _lost
