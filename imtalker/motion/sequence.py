"""Sequences of rows over time, for motion and control: frame rates and files."""

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..media.tensors import is_plain, read_safetensors, save_safetensors

MAX_ROWS, MAX_SECONDS = 10_000_000, 24 * 3600


def rows_at(rows: Tensor, position: Tensor) -> Tensor:
    """Samples rows (T,C) at fractional indices (N,): linear between rows, held at both ends -> (N,C)."""
    position = position.clamp(0, len(rows) - 1)
    before = position.floor().long()
    after = position.ceil().long()
    return rows[before].lerp(rows[after], (position - before).to(rows).unsqueeze(1))


def stretched(curve: float | Tensor, count: int) -> Tensor:
    """One number, or a curve (N,) stretched over the whole length -> (count,1), linear between its values."""
    rows = torch.as_tensor(curve, dtype=torch.float32).reshape(-1, 1)
    return rows_at(rows, torch.linspace(0, len(rows) - 1, count, dtype=torch.float64))


def row_count(count: int, fps: float, new_fps: float) -> int:
    """Number of rows at `new_fps` that cover the duration of `count` rows at `fps`."""
    return max(1, math.ceil(count * new_fps / fps - 1e-6))


def resample_rows(rows: Tensor, fps: float, new_fps: float, count: int | None = None) -> Tensor:
    """Resamples rows (T,C) at `fps` to (count,C) at `new_fps`, linear in time; the last row is held past the end.

    count: None covers the same duration.
    """
    count = row_count(len(rows), fps, new_fps) if count is None else count
    return rows_at(rows, torch.arange(count, dtype=torch.float64) * (fps / new_fps))


def save_sequence(path: str | Path, kind: str, tensors: dict[str, Tensor], **metadata: object) -> None:
    """Writes tensors as .safetensors, with `kind` and the metadata in the header."""
    header = {"format": "imtalker", "kind": kind, **{name: str(value) for name, value in metadata.items()}}
    save_safetensors(path, tensors, header)


def load_sequence(path: str | Path, kind: str, names: Iterable[str]) -> tuple[dict[str, Tensor], float, dict[str, str]]:
    """Reads a file that `save_sequence` wrote as (tensors, fps, metadata).

    InputError: another kind of file, damaged, or tensors not in `names`.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("kind") != kind:
        found = metadata.get("kind", "something else")
        raise InputError(f"{path} holds {found}, not {kind}: choose a file that IMTalker saved as {kind}.")
    try:
        fps = float(metadata.get("fps", "missing"))
    except ValueError:
        fps = math.nan
    # from one frame a minute to one a millisecond: outside, resampling a small file could fill the memory
    if not 1 / 60 <= fps <= 1000:
        raise InputError(f"{path} has an impossible frame rate ({metadata.get('fps', 'none')[:40]}): save it again.")
    for name, rows in tensors.items():
        if name not in names:
            raise InputError(f"{path} holds {name[:40]!r}, which does not belong to {kind}: save it again.")
        if not is_plain(rows) or rows.ndim != 2 or not 0 < len(rows) <= min(MAX_ROWS, MAX_SECONDS * fps):
            shape = f"{tuple(rows.shape)} {rows.dtype}".replace("torch.", "")
            raise InputError(f"{name} in {path} is {shape}: it must be rows of floats, a day long at most.")
    return tensors, fps, metadata
