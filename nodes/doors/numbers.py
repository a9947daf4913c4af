"""The doors of INT, FLOAT, BOOLEAN, STRING and COMBO: widgets that became inputs can be linked to anything."""

import contextlib
import math
import numbers
from collections.abc import Sequence
from decimal import Decimal

from ...imtalker.errors import InputError
from .opening import kind_of


def whole(name: str, value: object, low: int | None = None, high: int | None = None) -> int:
    """An int from a number, a numpy or tensor scalar, or digits. InputError: not whole, or not in low..high."""
    value = _scalar(value)
    if isinstance(value, str):
        with contextlib.suppress(ArithmeticError):
            value = Decimal(value)
    if not isinstance(value, numbers.Integral):
        number = _finite(name, value)
        # as floats, large seeds would lose digits
        value = value if isinstance(value, (numbers.Rational, Decimal)) else number
        if int(value) != value:
            raise InputError(f"{name} must be a whole number, not {number:g}: round it first.")
    return _within(name, int(value), low, high)


def real(name: str, value: object, low: float | None = None, high: float | None = None) -> float:
    """A finite float from a number, a numpy or tensor scalar, or digits. InputError: not in low..high."""
    return _within(name, _finite(name, _scalar(value)), low, high)


def switch(name: str, value: object) -> bool:
    """A bool from a bool or a number that is 0 or 1."""
    value = _scalar(value)
    if isinstance(value, str) or _finite(name, value) not in (0, 1):
        raise InputError(f"{name} must be true or false, not {str(value)[:40]}: connect a boolean.")
    return bool(value)


def text(name: str, value: object) -> str:
    """A plain str."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, not {kind_of(value)}: connect a string.")
    return str(value)


def choice(name: str, value: object, options: Sequence[str]) -> str:
    """One of the options."""
    if text(name, value) not in options:
        raise InputError(f"{name} must be one of {', '.join(options)}, not {value[:40]!r}.")
    return str(value)


def _scalar(value: object) -> object:
    """The one number in an array or tensor; anything else as it is."""
    return value.item() if hasattr(value, "item") else value


def _finite(name: str, value: object) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        shown = f"{value!r:.40}" if isinstance(value, (str, int, complex)) else kind_of(value)
        raise InputError(f"{name} must be a number, not {shown}: connect a number.") from None
    if not math.isfinite(number):
        raise InputError(f"{name} must be a number, not {number}: check the node connected to it.")
    return number


def _within(name: str, number: float, low: float | None, high: float | None) -> float:
    if (low is not None and number < low) or (high is not None and number > high):
        raise InputError(f"{name} must be between {_shown(low)} and {_shown(high)}, not {_shown(number)}.")
    return number


def _shown(number: float | None) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)[:40]
