"""Whether two things come from models that belong together."""

from typing import NamedTuple

from ..errors import InputError


class Side(NamedTuple):
    """One of the two things compared. A property left as None is not compared."""

    name: str  # in the middle of a sentence: "the renderer"
    generation: str | None = None
    size: int | None = None  # values a frame


def check_match(first: Side, second: Side, remedy: str | None = None) -> None:
    """Raises InputError, naming both sides, if their generations or sizes differ.

    remedy: what to do about it; None asks for a renderer and a generator that belong together.
    """

    def differ(one: str | int | None, other: str | int | None) -> bool:
        return one is not None and other is not None and one != other

    if differ(first.generation, second.generation):
        remedy = remedy or "use a renderer and a generator of the same generation throughout."
        name = first.name[0].upper() + first.name[1:]
        raise InputError(f"{name} is {first.generation} but {second.name} is {second.generation}: {remedy}")
    if differ(first.size, second.size):
        remedy = remedy or "use a renderer and a generator that belong together."
        raise InputError(
            f"There are {first.size} values a frame in {first.name} but {second.size} in {second.name}: {remedy}"
        )
