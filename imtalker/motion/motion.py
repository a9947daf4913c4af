"""Motion: what a face does over time, one latent per frame."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from .sequence import load_sequence, resample_rows, row_count, rows_at, save_sequence


@dataclass(frozen=True)
class Motion:
    """Latents (T,motion_size) at `fps` frames per second, in the motion space of one generation of weights.

    weights: fingerprint of the model that made them (motion/fingerprint.py), "" if unknown.
    """

    latents: Tensor
    fps: float = 25.0
    generation: str = "v2"
    weights: str = ""

    def __post_init__(self):
        if self.latents.ndim != 2 or not len(self.latents):
            raise InputError(
                f"Motion latents must be (frames, size) with at least one frame, not {tuple(self.latents.shape)}."
            )
        if not self.fps > 0:
            raise InputError(f"Motion needs a frame rate above 0, not {self.fps}.")
        if not self.latents.is_floating_point():
            raise InputError(f"Motion latents must be floats, not {self.latents.dtype}: convert them first.")
        if not torch.isfinite(self.latents).all():
            raise InputError("The motion contains NaN or infinite values: make it again.")

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def seconds(self) -> float:
        return len(self) / self.fps

    def at_fps(self, fps: float, frames: int | None = None) -> "Motion":
        """Changes the frame rate: latents are interpolated linearly in time, the last one is held past the end.

        frames: number of frames returned; None covers the same duration.
        """
        if fps == self.fps and frames in (None, len(self)):
            return self
        return replace(self, latents=resample_rows(self.latents, self.fps, fps, frames), fps=fps)

    def save(self, path: str | Path) -> None:
        """Writes a .safetensors file with the frame rate and generation in its metadata."""
        details = {"fps": self.fps, "generation": self.generation, "weights": self.weights}
        save_sequence(path, "motion", {"latents": self.latents}, **details)

    @classmethod
    def load(cls, path: str | Path) -> "Motion":
        """Reads a file that `save` wrote. InputError: another kind of file, or damaged."""
        tensors, fps, metadata = load_sequence(path, "motion", ["latents"])
        if "latents" not in tensors or metadata.get("generation") not in ("v1", "v2"):
            raise InputError(f"{path} lacks its latents or their generation: save the motion again.")
        return cls(tensors["latents"], fps, metadata["generation"], metadata.get("weights", ""))


def stream_at_fps(blocks: Iterable[Motion], fps: float, frames: int | None = None) -> Iterator[Motion]:
    """`Motion.at_fps` for motion that arrives in blocks at one frame rate: yields each latent as soon as possible.

    Takes no more blocks once `frames` latents are out.
    """
    rows, first, done = None, 0, 0  # the latest latents, the index of their first, and the number yielded
    for block in blocks:
        rows = block.latents if rows is None else torch.cat([rows, block.latents])
        step = block.fps / fps
        known = math.floor((first + len(rows) - 1) / step + 1e-9) + 1
        until = known if frames is None else min(known, frames)
        if until > done:
            position = torch.arange(done, until, dtype=torch.float64) * step - first
            yield replace(block, latents=rows_at(rows, position), fps=fps)
            done = until
        if done == frames:
            return
        passed = min(math.floor(done * step) - first, len(rows) - 1)
        rows, first = rows[passed:], first + passed
    total = row_count(first + len(rows), block.fps, fps) if frames is None else frames
    if total > done:
        position = torch.arange(done, total, dtype=torch.float64) * step - first
        yield replace(block, latents=rows_at(rows, position), fps=fps)
