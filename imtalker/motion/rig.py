"""A rig: names for directions of a motion space that has none, for one set of weights.

A motion latent z is read as c = (z - rest) R, one value a channel, and written as z + dc W. W R is the identity over
the channels, so that writing one leaves the others. A part (head, mouth, eyes, brows) is a set of channels; its share
of a latent is (z - rest) R_part W_part. Channels come from the models alone (imtalker/rigging.py) or from readings of a
clip (motion/rig_learning.py).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..media.tensors import is_plain, read_safetensors, save_safetensors
from .match import Side, check_match
from .motion import Motion
from .sequence import stretched

PARTS = ("head", "mouth", "eyes", "brows")
REST = "rest"  # all of a motion that is in none of the parts
MAX_CHANNELS = 200
GOOD = 0.5  # a channel with a lower score is not used


@dataclass(frozen=True)
class Channel:
    """One named direction. `low`..`high`: the values seen while learning, in its own unit; score: -1..1, how well it is
    read in frames that it was not learned from; origin: "generator", "readings" or "names"."""

    name: str
    part: str
    low: float
    high: float
    score: float
    origin: str


@dataclass(frozen=True)
class Rig:
    """Channels of the motion space (size values) of one generation of weights."""

    channels: tuple[Channel, ...]
    read_out: Tensor  # (size,channels)
    write_in: Tensor  # (channels,size)
    rest: Tensor  # (1,size), the latent at which every channel is 0
    generation: str = "v2"
    weights: str = ""  # fingerprints of the weights it was made for (motion/fingerprint.py); "" if unknown

    def __post_init__(self):
        size, count = self.rest.shape[1], len(self.channels)
        if self.read_out.shape != (size, count) or self.write_in.shape != (count, size):
            raise InputError("This rig does not hold together: learn it again.")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(channel.name for channel in self.channels)

    def usable(self, parts: Iterable[str] = PARTS) -> list[int]:
        """The numbers of the channels of these parts that are read well enough."""
        parts = tuple(parts)
        return [i for i, c in enumerate(self.channels) if c.part in parts and c.score >= GOOD]

    def describe(self) -> str:
        """A line for each channel: name, part, range and score; those that are off say so."""
        width = max(map(len, self.names), default=0)
        lines = [
            f"{c.name:<{width}}  {c.part:<5}  {c.low:8.3g} to {c.high:<8.3g}  score {c.score:.2f}"
            + ("" if c.score >= GOOD else ", off: read too poorly")
            for c in self.channels
        ]
        return "\n".join(lines) or "no channels"

    def read(self, motion: Motion) -> dict[str, Tensor]:
        """The value of each channel over time, (T,) each, in its own unit."""
        self._check(motion)
        values = (motion.latents.float() - self.rest) @ self.read_out
        return dict(zip(self.names, values.unbind(1)))

    def add(self, motion: Motion, changes: Mapping[str, Tensor]) -> Motion:
        """The motion with channels changed by curves (N,), in their own units, each stretched over the duration.

        InputError: the rig has no such channel, or reads it too poorly to use.
        """
        self._check(motion)
        latents = motion.latents.float()
        for name, curve in changes.items():
            number = self._channel(name)
            latents = latents + stretched(curve, len(motion)) * self.write_in[number]
        return replace(motion, latents=latents.to(motion.latents))

    def combine(self, base: Motion, other: Motion, parts: Iterable[str], share: float | Tensor = 1.0) -> Motion:
        """`base` with some parts taken from `other`, which is cut, or held at its last latent.

        parts: of PARTS; REST is all that the rig has no channel for, such as brows that it has not learned.
        share: 0..1, one number or a curve (N,) stretched over the duration. InputError: the rig lacks one of the parts.
        """
        self._check(base)
        self._check(other)
        parts = set(parts)
        for part in (part for part in (*PARTS, *parts) if part in parts - {REST}):
            if not self.usable([part]):
                found = ", ".join(part for part in PARTS if self.usable([part])) or "none"
                raise InputError(
                    f"This rig cannot tell the {part} apart; it knows: {found}. Leave the {part} out, or learn a rig "
                    "from landmarks of a clip in which it moves."
                )
        distance = other.at_fps(base.fps, len(base)).latents.float() - base.latents.float()
        moved = distance - self._share(distance, set(PARTS) - parts) if REST in parts else self._share(distance, parts)
        return replace(base, latents=(base.latents.float() + stretched(share, len(base)) * moved).to(base.latents))

    def _share(self, distance: Tensor, parts: Iterable[str]) -> Tensor:
        """What these parts have in a difference of latents (T,size)."""
        own = self.usable(parts)
        return distance @ self.read_out[:, own] @ self.write_in[own]

    def _channel(self, name: str) -> int:
        if name not in self.names:
            raise InputError(f"This rig has no channel {name!r}; it has: {', '.join(self.names) or 'none'}.")
        number = self.names.index(name)
        if self.channels[number].score < GOOD:
            raise InputError(
                f"This rig reads {name} too poorly to move it (score {self.channels[number].score:.2f}): learn it from "
                "a longer clip in which it moves."
            )
        return number

    def _check(self, motion: Motion) -> None:
        check_match(
            Side("the rig", self.generation, self.rest.shape[1], self.weights),
            Side("the motion", motion.generation, motion.latents.shape[1], motion.weights),
            "use a rig made for the weights that made the motion.",
        )

    def save(self, path: str | Path) -> None:
        """Writes a .safetensors file with channels, generation and fingerprint in its metadata."""
        header = {"format": "imtalker", "kind": "rig", "generation": self.generation, "weights": self.weights}
        channels = json.dumps([vars(channel) for channel in self.channels])
        tensors = {"read_out": self.read_out, "write_in": self.write_in, "rest": self.rest}
        save_safetensors(path, tensors, {**header, "channels": channels})

    @classmethod
    def load(cls, path: str | Path) -> "Rig":
        """Reads a file that `save` wrote. InputError: another kind of file, or damaged."""
        tensors, header = read_safetensors(path)
        if header.get("kind") != "rig":
            raise InputError(
                f"{path} holds {header.get('kind', 'something else')[:40]}, not a rig: choose another file."
            )
        try:
            channels = tuple(_channel(fields) for fields in json.loads(header["channels"])[: MAX_CHANNELS + 1])
            parts = {name: tensors[name] for name in ("read_out", "write_in", "rest")}
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is a damaged rig: learn it again.") from error
        plain = all(is_plain(rows) and rows.ndim == 2 and torch.isfinite(rows).all() for rows in parts.values())
        known = header.get("generation") in ("v1", "v2") and len(channels) <= MAX_CHANNELS
        if not plain or not known or len(parts["rest"]) != 1:
            raise InputError(f"{path} is a damaged rig: learn it again.")
        parts = {name: rows.float() for name, rows in parts.items()}
        return cls(channels, **parts, generation=header["generation"], weights=header.get("weights", ""))


def _channel(fields: dict) -> Channel:
    texts = {name: str(fields[name])[:80] for name in ("name", "part", "origin")}
    return Channel(**texts, **{name: float(fields[name]) for name in ("low", "high", "score")})
