"""A driver's motion on another portrait: its own pose and expression kept, only the driver's changes added."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal, get_args

from torch import Tensor

from ..errors import InputError
from .match import Side, check_match
from .motion import Motion

Reference = Literal["first", "mean", "neutral"]


def reference(text: str) -> Reference | int:
    """A reference as a person writes it. ValueError: neither a name of `Reference` nor a frame number."""
    return text if text in get_args(Reference) else int(text)


def retarget(motion: Motion, own: Tensor, reference: Reference | int = "first", strength: float = 1.0) -> Motion:
    """Relative motion: the portrait's own latent plus `strength` times how the driver differs from its reference.

    own: the portrait's latent (1,size), `Source.motion`.
    reference: the driver's frame that counts as the portrait's pose and expression: its "first" frame, its "mean", its
    most ordinary frame ("neutral"), or a frame number from 0.
    strength: 0 stands still, 1 moves as far as the driver, 2 twice as far.
    InputError: another size of latents, no such reference or frame.
    """
    return next(relative([motion], own, reference_latent(motion, reference), strength))


def relative(blocks: Iterable[Motion], own: Tensor, reference: Tensor, strength: float = 1.0) -> Iterator[Motion]:
    """`retarget` for motion in blocks, with the reference (1,size) from `reference_latent`."""
    for block in blocks:
        check_match(Side("the source", size=own.shape[1]), Side("the motion", size=block.latents.shape[1]))
        start, driver = own.to(block.latents), reference.to(block.latents)
        yield replace(block, latents=start + strength * (block.latents - driver))


def reference_latent(motion: Motion, reference: Reference | int) -> Tensor:
    """The latent (1,size) that `reference` means, see `retarget`.

    The most ordinary frame is the one nearest to the clip's median, each value measured in its own mean deviation.
    """
    latents = motion.latents
    if reference == "first":
        return latents[:1]
    if reference == "mean":
        return latents.mean(dim=0, keepdim=True)
    if reference == "neutral":
        middle = latents.median(dim=0).values
        away = (latents - middle).abs()
        return latents[(away / away.mean(dim=0).clamp_min(1e-6)).sum(dim=1).argmin()][None]
    if isinstance(reference, str):
        names = ", ".join(get_args(Reference))
        raise InputError(f"There is no reference {reference!r}: use {names} or a frame number.")
    if not 0 <= reference < len(latents):
        raise InputError(f"The driver has frames 0 to {len(latents) - 1}, not {reference}: choose one of them.")
    return latents[reference][None]
