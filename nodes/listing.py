"""Listings of folders with tens of thousands of files: only folders that changed are read again."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

RACE = 0.1  # seconds; a folder that changed this short before it was read may have changed again at the same time


class _Folder(NamedTuple):
    """The names that one folder holds."""

    changed: float
    settled: bool
    files: list[str]
    folders: list[str]
    links: list[str]  # to folders


class Listing:
    """The files below folders, by suffix. Names that start with a dot are left out.

    Links are followed, but no folder is listed twice: links among folders make endless or countless paths.

    suffixes: in lower case, of all files that anybody may ask for; others are not remembered.
    """

    def __init__(self, suffixes: tuple[str, ...]):
        self.suffixes = suffixes
        self._folders: dict[str, _Folder] = {}
        self._names: dict[str, tuple[list[_Folder], list[str]]] = {}  # root: what its names were made from

    def files(self, root: str, suffixes: tuple[str, ...]) -> list[str]:
        """Sorted names relative to `root`, with forward slashes; [] if there is no such folder."""
        found = list(self._walk(root))
        state = [folder for _, folder in found]
        known, names = self._names.get(root, ([], []))
        # unchanged folders are the same objects
        if len(known) != len(state) or any(old is not new for old, new in zip(known, state)):
            names = sorted(start + name for start, folder in found for name in folder.files)
            self._names[root] = state, names
        return [name for name in names if name.lower().endswith(suffixes)]

    def _walk(self, root: str) -> Iterator[tuple[str, _Folder]]:
        """Every folder with the start of its files' names."""
        waiting, links, seen = [(root, "")], deque(), set()
        while waiting or links:
            path, start = waiting.pop() if waiting else links.popleft()  # a file's own path rather than a link's
            try:
                state = os.stat(path)
                here = state.st_dev, state.st_ino
                if here in seen:
                    continue
                folder = self._read(path, state.st_mtime)
            except OSError:  # removed meanwhile, or not ours to read
                continue
            seen.add(here)
            yield start, folder
            for names, queue in ((folder.folders, waiting), (folder.links, links)):
                queue += [(os.path.join(path, name), f"{start}{name}/") for name in names]

    def _read(self, path: str, changed: float) -> _Folder:
        folder = self._folders.get(path)
        if folder is None or not folder.settled or folder.changed != changed:
            files, folders, links, now = [], [], [], time.time()
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    with contextlib.suppress(OSError):  # a link to itself
                        if entry.name.lower().endswith(self.suffixes) and entry.is_file():
                            files.append(entry.name)
                        elif entry.is_dir():
                            (links if entry.is_symlink() else folders).append(entry.name)
            settled = not now - RACE < changed <= now
            folder = self._folders[path] = _Folder(changed, settled, files, sorted(folders), sorted(links))
        return folder
