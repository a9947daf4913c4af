"""Control: head pose, camera and gaze that steer the sampled motion."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..media.files import regular_file
from ..media.tensors import is_plain, read_pickle
from .sequence import MAX_ROWS, load_sequence, resample_rows, rows_at, save_sequence

WIDTHS = {"pose": 3, "cam": 3, "gaze": 2}


@dataclass(frozen=True)
class Control:
    """Sequences at `fps` frames per second; None leaves that part to the model.

    pose (T,3): SMIRK `pose_params`, the head's rotation as axis-angle in radians.
    cam  (T,3): SMIRK weak-perspective camera (scale, x, y).
    gaze (T,2): L2CS-Net angles in radians.

    Each part's strength, 0..1, scales its contribution to the condition: 0 equals None, 1 is as published.
    """

    pose: Tensor | None = None
    cam: Tensor | None = None
    gaze: Tensor | None = None
    fps: float = 25.0
    pose_strength: float = 1.0
    cam_strength: float = 1.0
    gaze_strength: float = 1.0

    def __post_init__(self):
        if not self.fps > 0:
            raise InputError(f"A control needs a frame rate above 0, not {self.fps}.")
        for name, rows in self.parts().items():
            if rows.ndim != 2 or rows.shape[1] != WIDTHS[name] or not len(rows):
                raise InputError(f"{name} must be (frames, {WIDTHS[name]}), not {tuple(rows.shape)}.")
            if not torch.isfinite(rows).all():
                raise InputError(f"{name} contains NaN or infinite values: make it again.")
        for name, strength in self.strengths().items():
            if not 0 <= strength <= 1:
                raise InputError(f"The strength of {name} must be between 0 and 1, not {strength}.")

    def parts(self) -> dict[str, Tensor]:
        """The sequences that are not None, by name."""
        return {name: rows for name in WIDTHS if (rows := getattr(self, name)) is not None}

    def strengths(self) -> dict[str, float]:
        return {name: getattr(self, f"{name}_strength") for name in WIDTHS}

    def with_strength(self, strength: float) -> "Control":
        """Returns a copy with one strength for all parts."""
        return replace(self, **{f"{name}_strength": strength for name in WIDTHS})

    def at_fps(self, fps: float) -> "Control":
        """Changes the frame rate, linear in time."""
        if fps == self.fps:
            return self
        return replace(self, **{n: resample_rows(rows, self.fps, fps) for n, rows in self.parts().items()}, fps=fps)

    def save(self, path: str | Path) -> None:
        """Writes a .safetensors file with the frame rate and strengths in its metadata."""
        strengths = {f"{name}_strength": value for name, value in self.strengths().items()}
        save_sequence(path, "control", self.parts(), fps=self.fps, **strengths)

    @classmethod
    def load(cls, path: str | Path) -> "Control":
        """Reads a file that `save` wrote. InputError: another kind of file, or damaged."""
        tensors, fps, metadata = load_sequence(path, "control", WIDTHS)
        try:
            strengths = {f"{name}_strength": float(metadata.get(f"{name}_strength", 1)) for name in WIDTHS}
        except ValueError as error:
            raise InputError(f"{path} holds a strength that is not a number: save it again.") from error
        return cls(**tensors, fps=fps, **strengths)


def merge(controls: Sequence[Control]) -> Control:
    """Combines the parts of several controls and their strengths; later controls override earlier ones.

    The result has the highest of their frame rates.
    """
    fps = max(control.fps for control in controls)
    fields = {}
    for control in (control.at_fps(fps) for control in controls):
        for name, rows in control.parts().items():
            fields |= {name: rows, f"{name}_strength": getattr(control, f"{name}_strength")}
    return Control(**fields, fps=fps)


def blend(a: Control, b: Control, share: float) -> Control:
    """Interpolates between two controls at the higher of their frame rates: share 0 is `a`, 1 is `b`.

    If both have a part, its rows and strength are interpolated, with the shorter one held at its last row. If only one
    has it (at a strength above 0), its rows stay and its strength fades. InputError: share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise InputError(f"The share of a blend must be between 0 and 1, not {share}.")
    fps = max(a.fps, b.fps)
    a, b = (control.at_fps(fps) for control in (a, b))
    fields = {}
    for name in WIDTHS:
        (rows, strength), (others, other_strength) = _active_part(a, name), _active_part(b, name)
        if rows is None and others is None:
            continue
        if rows is not None and others is not None:
            every = torch.arange(max(len(rows), len(others)), dtype=torch.float64)
            rows, others = rows_at(rows, every), rows_at(others, every)
        blended = others if rows is None else rows if others is None else rows.lerp(others, share)
        fields |= {name: blended, f"{name}_strength": (1 - share) * strength + share * other_strength}
    return Control(**fields, fps=fps)


def _active_part(control: Control, name: str) -> tuple[Tensor | None, float]:
    """One part's rows and strength; (None, 0) if it has no effect."""
    strength = getattr(control, f"{name}_strength")
    rows = getattr(control, name)
    return (None, 0.0) if rows is None or strength == 0 else (rows, strength)


def load_pose(path: str | Path) -> dict[str, Tensor]:
    """Reads pose and cam from a SMIRK .pt file as published with IMTalker, {"pose_params": (T,3), "cam": (T,3)}."""
    values = read_pickle(path)
    names = {"pose": "pose_params", "cam": "cam"}
    found = {name: values[key] for name, key in names.items() if isinstance(values, dict) and key in values}
    if not found:
        raise InputError(f"{path} holds neither 'pose_params' nor 'cam': choose a published SMIRK file.")
    for name, rows in found.items():
        if not is_plain(rows):
            raise InputError(
                f"'{names[name]}' in {path} is not a tensor of floats: choose a SMIRK file in the published format."
            )
        _check_rows(path, rows.shape, WIDTHS[name])
    return {name: rows.float() for name, rows in found.items()}


def load_gaze(path: str | Path) -> Tensor:
    """Reads an L2CS-Net .npy file, (T,2) in radians."""
    try:
        # memory-mapped, so that a header cannot claim more than the file holds
        values = np.lib.format.open_memmap(regular_file(path), mode="r")
    except InputError:
        raise
    except Exception as error:  # numpy parses the header: ValueError, SyntaxError, OverflowError, tokenizer errors
        raise InputError(f"{path} is not a readable .npy file of numbers: {error}") from error
    if values.dtype.kind not in "fiu":
        raise InputError(f"{path} is not a .npy file of numbers but of {values.dtype}: choose an L2CS-Net file.")
    _check_rows(path, values.shape, WIDTHS["gaze"])
    with np.errstate(over="ignore"):  # Control refuses what becomes infinite
        return torch.from_numpy(values.astype(np.float32))


def _check_rows(path: str | Path, shape: Sequence[int], width: int) -> None:
    """Refuses a wrong shape before any computation: a small file can claim a huge one."""
    if len(shape) != 2 or shape[1] != width or not 0 < shape[0] <= MAX_ROWS:
        raise InputError(
            f"{path} holds {tuple(shape)} numbers, but must hold (frames, {width}), {MAX_ROWS} frames at most."
        )
