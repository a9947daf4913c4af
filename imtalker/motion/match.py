"""Checks that two inputs come from matching models."""

from typing import NamedTuple

from ..errors import InputError
from .fingerprint import differ as other_weights


class Side(NamedTuple):
    """One of the two inputs. A property that is None is not compared."""

    name: str  # in the middle of a sentence: "the renderer"
    generation: str | None = None
    size: int | None = None  # values per frame
    weights: str = ""  # fingerprints of the weights it was made with (motion/fingerprint.py)


def check_match(first: Side, second: Side, remedy: str | None = None) -> None:
    """Raises InputError, which names both sides, if their generations, sizes or weights differ.

    remedy: what the user should do; None recommends a renderer and a generator that belong together.
    """

    def differ(one: str | int | None, other: str | int | None) -> bool:
        return one is not None and other is not None and one != other

    name = first.name[0].upper() + first.name[1:]
    if differ(first.generation, second.generation):
        remedy = remedy or "use a renderer and a generator of the same generation throughout."
        raise InputError(f"{name} is {first.generation} but {second.name} is {second.generation}: {remedy}")
    if differ(first.size, second.size):
        remedy = remedy or "use a renderer and a generator that belong together."
        raise InputError(f"{name} has {first.size} values per frame but {second.name} has {second.size}: {remedy}")
    if other_weights(first.weights, second.weights):
        remedy = remedy or "use models and files that belong together."
        raise InputError(f"{name} and {second.name} were made with different weights: {remedy}")
