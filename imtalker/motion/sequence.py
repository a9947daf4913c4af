"""Sequences of rows over time, shared by motion and control: frame rates and files."""

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..media.tensors import is_plain, read_safetensors, save_safetensors

MAX_ROWS, MAX_SECONDS = 10_000_000, 24 * 3600


def rows_at(rows: Tensor, position: Tensor) -> Tensor:
    """Rows (T,C) at fractional indices (N,), linear between rows, the outer ones held beyond them -> (N,C)."""
    position = position.clamp(0, len(rows) - 1)
    before = position.floor().long()
    after = position.ceil().long()
    return rows[before].lerp(rows[after], (position - before).to(rows).unsqueeze(1))


def row_count(count: int, fps: float, new_fps: float) -> int:
    """How many rows at `new_fps` cover the time of `count` rows at `fps`."""
    return max(1, math.ceil(count * new_fps / fps - 1e-6))


def resample_rows(rows: Tensor, fps: float, new_fps: float, count: int | None = None) -> Tensor:
    """Rows (T,C) at `fps` -> (count,C) at `new_fps`, linear in time, the last row held past the end.

    `count` defaults to as many rows as cover the same time.
    """
    count = row_count(len(rows), fps, new_fps) if count is None else count
    return rows_at(rows, torch.arange(count, dtype=torch.float64) * (fps / new_fps))


def save_sequence(path: str | Path, kind: str, tensors: dict[str, Tensor], **metadata: object) -> None:
    """Writes `tensors` as .safetensors, with the kind and the metadata in its header."""
    header = {"format": "imtalker", "kind": kind, **{name: str(value) for name, value in metadata.items()}}
    save_safetensors(path, tensors, header)


def load_sequence(path: str | Path, kind: str, names: Iterable[str]) -> tuple[dict[str, Tensor], float, dict[str, str]]:
    """What `save_sequence` wrote, as (tensors, fps, metadata); another kind of file is refused, and other names."""
    tensors, metadata = read_safetensors(path)
    if metadata.get("kind") != kind:
        found = metadata.get("kind", "something else")
        raise InputError(f"{path} holds {found}, not {kind}; choose a file that IMTalker saved as {kind}.")
    try:
        fps = float(metadata.get("fps", "missing"))
    except ValueError:
        fps = math.nan
    # from a frame in a minute to a millisecond a frame; beyond, a small file could ask for a huge result
    if not 1 / 60 <= fps <= 1000:
        raise InputError(f"{path} says no possible frame rate ({metadata.get('fps', 'none')[:40]}); save it again.")
    for name, rows in tensors.items():
        if name not in names:
            raise InputError(f"{path} holds {name[:40]!r}, which is no part of {kind}; save it again.")
        if not is_plain(rows) or rows.ndim != 2 or not 0 < len(rows) <= min(MAX_ROWS, MAX_SECONDS * fps):
            shape = f"{tuple(rows.shape)} {rows.dtype}".replace("torch.", "")
            raise InputError(f"{name} in {path} is {shape}; rows of numbers are wanted, a day of them at most.")
    return tensors, fps, metadata
