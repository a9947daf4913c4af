"""The numbers that options and cells may hold, and what is said about any other."""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Number:
    """A whole (int) or real (float) number in low..high."""

    kind: type
    low: float
    high: float

    def read(self, text: str) -> int | float:
        """The number in a text. InputError: none, NaN, infinite, or out of range."""
        try:
            value = self.kind(text)
            if math.isfinite(value) and self.low <= value <= self.high:
                return value
        except (ValueError, OverflowError):  # also more digits than Python reads
            pass
        whole = "whole " if self.kind is int else ""
        raise InputError(f"must be a {whole}number from {self.low:g} to {self.high:g}, not {text[:40]!r}.")

    def option(self) -> Callable[[str], int | float]:
        """For argparse, which names the option itself."""

        def value(text: str) -> int | float:
            try:
                return self.read(text)
            except InputError as error:
                raise argparse.ArgumentTypeError(str(error)) from error

        return value


SEED = Number(int, -(2**63), 2**64 - 1)
CFG = Number(float, -100, 100)
NFE = Number(int, 2, 1000)
FPS = Number(float, 0.01, 1000)
FRAMES = Number(int, 1, 100_000_000)
BATCH_SIZE = Number(int, 1, 100_000)
COUNT = Number(int, 1, 1_000_000_000)  # of steps, devices, ranks
FROM_0 = Number(int, 0, 1_000_000_000)
MINUTES = Number(float, 1e-6, 1e9)
BLINKS = Number(float, 0, 60)
SHARE = Number(float, 0, 1)
DUB_STRENGTH = Number(float, 0, 2)
DECIBELS = Number(float, -120, 0)
INDEX = Number(int, 0, 99)
STRENGTH = Number(float, 0, 10)
RATE = Number(float, 1e-12, 10)
WEIGHT = Number(float, 0, 1e6)
