"""Joins without a jump: what a sequence was doing carries over and fades (inertialisation; D. Bollo, GDC 2018).

At a join, the new rows are moved so that they go on where the old ones would have gone, and the displacement fades to
nothing. Timing stays as it is: nothing is crossfaded, so lips stay on the sound.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError

Joins = Literal["smooth", "published"]

FRAMES = 12  # how long a displacement lasts at 25 frames a second: half a second


def fading(count: int, length: int, start: int = 0) -> Tensor:
    """Weights (count,) of rows `start` and on after a join: from 1 to 0 over `length` rows, without a kink at the ends.

    (1-t)^3 (1 + 3t + 6t^2): slope and curvature are zero at both ends.
    """
    t = ((torch.arange(count) + start) / length).clamp(max=1)
    return (1 - t) ** 3 * (1 + 3 * t + 6 * t * t)


def check_joins(joins: str) -> None:
    """Raises InputError for another name than those of `Joins`."""
    if joins not in get_args(Joins):
        raise InputError(f"There are no joins called {joins!r}: use {' or '.join(get_args(Joins))}.")


class Inertia:
    """Carries motion across the joins of a sequence (n,C) that arrives in pieces of any size.

        inertia = Inertia()
        for window in windows:
            rows = inertia.join(window)    # a new window begins
        more = inertia.follow(rows)        # the same window goes on

    A step as large as the steps before it (root mean square, each value by itself) stays: only what exceeds it is
    displaced. So a mouth that speech moves is hardly touched.

    begin: the displacement (C,) of the very first row; None for none.
    length: rows over which a displacement fades.
    """

    def __init__(self, begin: Tensor | None = None, length: int = FRAMES):
        self.length = length
        self._last = self._velocity = None  # of the rows given out
        self._offset, self._since = begin, 0  # the displacement at the join, and rows since then
        self._raw = self._squares = None  # the last row that came, and the sum of squared steps in this window
        self._steps = 0

    def join(self, rows: Tensor) -> Tensor:
        """The first rows (n,C), n >= 1, of a new window."""
        if self._last is not None:
            self._offset, self._since = self._last + self._velocity / 2 - rows[0], 0
            if self._steps:
                usual = (self._squares / self._steps).sqrt()
                self._offset = self._offset.sign() * (self._offset.abs() - usual).clamp(min=0)
        self._raw, self._squares, self._steps = None, torch.zeros_like(rows[0]), 0
        return self.follow(rows)

    def follow(self, rows: Tensor) -> Tensor:
        """Further rows (n,C) of the same window."""
        if len(rows) == 0:
            return rows
        joined = rows if self._raw is None else torch.cat([self._raw[None], rows])
        steps = joined.diff(dim=0)
        self._squares, self._steps, self._raw = (
            self._squares + steps.square().sum(0),
            self._steps + len(steps),
            rows[-1],
        )
        if self._offset is not None and self._since < self.length:
            weights = fading(len(rows), self.length, self._since).to(rows)
            rows = rows + weights[:, None] * self._offset
        self._since += len(rows)
        shown = rows if self._last is None else torch.cat([self._last[None], rows])
        self._velocity = shown[-1] - shown[-2] if len(shown) > 1 else torch.zeros_like(shown[-1])
        self._last = rows[-1]
        return rows
