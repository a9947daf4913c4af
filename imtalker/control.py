"""Control: head pose, camera and gaze that steer the sampled motion."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .files import read_pickle
from .sequence import load_sequence, resample_rows, save_sequence

WIDTHS = {"pose": 3, "cam": 3, "gaze": 2}


@dataclass(frozen=True)
class Control:
    """Sequences at `fps` frames a second; None leaves that part to the model.

    pose (T,3): SMIRK `pose_params`, the head's rotation as axis-angle in radians.
    cam  (T,3): SMIRK weak-perspective camera (scale, x, y).
    gaze (T,2): L2CS-Net angles in radians.
    """

    pose: Tensor | None = None
    cam: Tensor | None = None
    gaze: Tensor | None = None
    fps: float = 25.0

    def __post_init__(self):
        if not self.fps > 0:
            raise InputError(f"A control needs a frame rate above 0, not {self.fps}.")
        for name, rows in self.parts().items():
            if rows.ndim != 2 or rows.shape[1] != WIDTHS[name] or not len(rows):
                raise InputError(f"{name} must be (frames, {WIDTHS[name]}), not {tuple(rows.shape)}.")
            if not torch.isfinite(rows).all():
                raise InputError(f"{name} holds values that are not numbers.")

    def parts(self) -> dict[str, Tensor]:
        """The sequences that are there, by name."""
        return {name: rows for name in WIDTHS if (rows := getattr(self, name)) is not None}

    def at_fps(self, fps: float) -> "Control":
        """The same control at another frame rate, linear in time."""
        if fps == self.fps:
            return self
        return Control(**{name: resample_rows(rows, self.fps, fps) for name, rows in self.parts().items()}, fps=fps)

    def save(self, path: str | Path) -> None:
        """Writes a .safetensors file with the frame rate in its metadata."""
        save_sequence(path, "control", self.parts(), fps=self.fps)

    @classmethod
    def load(cls, path: str | Path) -> "Control":
        tensors, metadata = load_sequence(path, "control")
        return cls(**tensors, fps=float(metadata["fps"]))


def load_pose(path: str | Path) -> dict[str, Tensor]:
    """Reads a SMIRK .pt file as published with IMTalker, {"pose_params": (T,3), "cam": (T,3)}, as pose and cam."""
    values = read_pickle(path)
    names = {"pose": "pose_params", "cam": "cam"}
    found = {name: _rows(values[key]) for name, key in names.items() if isinstance(values, dict) and key in values}
    if not found:
        raise InputError(f"{path} holds neither 'pose_params' nor 'cam'; a SMIRK file of the published form is wanted.")
    return found


def load_gaze(path: str | Path) -> Tensor:
    """Reads an L2CS-Net .npy file, (T,2) in radians."""
    try:
        return _rows(np.load(path, allow_pickle=False))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not a readable .npy file of numbers: {error}") from error


def _rows(values: object) -> Tensor:
    return torch.as_tensor(values).float()
