"""The doors of masks and boxes that say where a face is: the engine's boxes in each picture."""

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ...imtalker.errors import InputError
from ...imtalker.face.crop import Box
from .ours import FURTHEST

log = logging.getLogger("imtalker")

MIN_SIDE = 4.0  # pixels; anything smaller is a box in fractions of the picture

AUTO, SIZES, CORNERS = "auto", "x y width height", "x0 y0 x1 y1"
ORDERS = (AUTO, SIZES, CORNERS)  # of a box's four numbers
# A box with names says itself which numbers they are.
NAMES = {
    ("x", "y", "width", "height"): SIZES,
    ("x", "y", "w", "h"): SIZES,
    ("left", "top", "width", "height"): SIZES,
    ("x0", "y0", "x1", "y1"): CORNERS,
    ("x1", "y1", "x2", "y2"): CORNERS,
    ("xmin", "ymin", "xmax", "ymax"): CORNERS,
    ("x_min", "y_min", "x_max", "y_max"): CORNERS,
    ("left", "top", "right", "bottom"): CORNERS,
    ("startX", "startY", "endX", "endY"): CORNERS,
}


class Frame(NamedTuple):
    """The pictures that boxes belong to."""

    count: int
    height: int
    width: int


def boxes_of_mask(masks: Tensor, frame: Frame) -> list[list[Box]]:
    """The rectangle around the white area of masks (N,h,w), for each picture; [] if there is none.

    A mask of another size is stretched over the whole picture. InputError unless there is one mask or one per picture.
    """
    masks = masks.cpu() > 0.5
    down, across = frame.height / masks.shape[1], frame.width / masks.shape[2]
    found = []
    for white in masks:
        rows, columns = (white.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
        edges = rows and (columns[0] * across, rows[0] * down, (columns[-1] + 1) * across, (rows[-1] + 1) * down)
        found.append([Box(*edges)] if edges else [])
    return _one_per_picture(found, frame.count, "masks")


def boxes_of_input(name: str, value: object, frame: Frame, order: str = AUTO) -> list[list[Box]]:
    """The boxes in each picture, from a BOUNDING_BOX or BBOX.

    A box is four numbers in pixels, in `order`, or a mapping with the names of the numbers. `value` is one of these, as
    other nodes output them:
    - one box, or one list of boxes: used for every picture;
    - a list with one entry per picture, each a list of boxes, one box or None.
    A flat list of as many boxes of four numbers as there are pictures is one box per picture.

    order: AUTO takes the one in which all boxes lie in the picture, or at least have their centres in it; if both do,
    SIZES, with a warning. Corners with names may be any two opposite ones.
    InputError: anything else, or a box that is not in the picture.
    """
    value = _plain(value)
    value = [value] if _is_box(value) else value
    if not isinstance(value, list):
        raise InputError(f"A box must be x, y, width and height in pixels, not {value!r:.80}.")
    if value and all(map(_is_box, value)):
        one_each = isinstance(value[0], list) and len(value) == frame.count > 1
        value = [[box] for box in value] if one_each else [value]
    pictures = [boxes if isinstance(boxes, list) and not _is_box(boxes) else [boxes] for boxes in value or [[]]]
    numbers = [[_numbers(box) for box in boxes if box is not None] for boxes in pictures]
    order = _settle(order, [box for boxes in numbers for box in boxes], frame)
    return _one_per_picture([[_read(box, order, frame) for box in boxes] for boxes in numbers], frame.count, "lists")


def _plain(value: object) -> object:
    """Arrays, tensors and tuples as nested lists of numbers."""
    shape = tuple(value.shape) if isinstance(value, Tensor) or _is_numbers(value) else ()
    # pictures would become lists of many millions of numbers
    if shape and 0 not in shape and (len(shape) > 3 or shape[-1] != 4):
        raise InputError(f"A box must be x, y, width and height in pixels, not numbers of shape {shape!s:.80}.")
    value = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _is_numbers(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufc"


def _is_box(value: object) -> bool:
    """A mapping or a list of four numbers."""
    numbers = isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)
    return isinstance(value, Mapping) or (numbers and len(value) == 4)


class _Numbers(NamedTuple):
    """Four numbers, their order (None: not said) and the score."""

    values: tuple[float, ...]
    order: str | None
    score: float


def _numbers(box: object) -> _Numbers:
    try:
        if not isinstance(box, Mapping):
            if not isinstance(box, list) or len(box) != 4:
                raise ValueError
            return _Numbers(tuple(map(float, box)), None, 1.0)
        keys = next(keys for keys in NAMES if all(key in box for key in keys))
        score = box.get("score")
        return _Numbers(tuple(float(box[key]) for key in keys), NAMES[keys], 1.0 if score is None else float(score))
    except (StopIteration, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"A box must be x, y, width and height in pixels, not {box!r:.80}.") from error


def _settle(order: str, boxes: list[_Numbers], frame: Frame) -> str:
    """The order of all boxes that do not say it themselves."""
    unnamed = [box for box in boxes if box.order is None]
    if order != AUTO or not unnamed:
        return order
    for fits in (_is_inside, _is_usable):
        orders = [kind for kind in (SIZES, CORNERS) if all(fits(_box(box, kind), frame) for box in unnamed)]
        if orders:
            break
    if len(orders) > 1:
        log.warning(
            "The four numbers of a box could be %s or %s; they are read as %s. Set box_order if that is wrong.",
            SIZES,
            CORNERS,
            SIZES,
        )
    return orders[0] if orders else SIZES


def _box(box: _Numbers, order: str) -> Box:
    x, y, a, b = box.values
    if box.order == CORNERS:  # drawn from any corner to the opposite one
        return Box(min(x, a), min(y, b), max(x, a), max(y, b), box.score)
    return Box(x, y, a, b, box.score) if (box.order or order) == CORNERS else Box(x, y, x + a, y + b, box.score)


def _is_inside(box: Box, frame: Frame) -> bool:
    """Whether a box lies in the picture, give or take a rounded pixel."""
    return box.x1 > box.x0 >= -1 and box.y1 > box.y0 >= -1 and box.x1 <= frame.width + 1 and box.y1 <= frame.height + 1


def _is_usable(box: Box, frame: Frame) -> bool:
    """Whether a box has a size and its centre lies in the picture."""
    inside = 0 <= box.center[0] <= frame.width and 0 <= box.center[1] <= frame.height
    largest = FURTHEST / 4 * max(frame.height, frame.width)  # Face Crop's scale makes up to 4 times as much of it
    return inside and box.x1 > box.x0 and box.y1 > box.y0 and MIN_SIDE <= box.side <= largest


def _read(numbers: _Numbers, order: str, frame: Frame) -> Box:
    """InputError unless the box is usable."""
    box = _box(numbers, order)
    if not (_is_usable(box, frame) and math.isfinite(box.score)):
        sides = box.x1 - box.x0, box.y1 - box.y0
        raise InputError(
            f"The box x {box.x0:g}, y {box.y0:g}, width {sides[0]:g}, height {sides[1]:g} is not in the picture of "
            f"{frame.width}x{frame.height}: connect a box in pixels of this picture, and set box_order to the order of "
            "its numbers."
        )
    return box


def _one_per_picture(found: list, count: int, what: str) -> list:
    if len(found) not in (1, count):
        raise InputError(f"{len(found)} {what} do not match {count} pictures: connect 1 or {count}.")
    return found if len(found) == count else found * count
