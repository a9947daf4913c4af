"""Masks and boxes from other packs, converted to the engine's boxes."""

from torch import Tensor

from ..imtalker import InputError
from ..imtalker.face.crop import Box

MIN_SIDE = 4.0  # pixels; anything smaller is a box in fractions of the picture


def boxes_of_mask(mask: Tensor, count: int, height: int, width: int) -> list[list[Box]]:
    """The rectangle around the white area of a MASK, for each of `count` pictures; [] if there is none.

    A mask of another size is stretched over the whole picture. InputError unless there are 1 or `count` masks.
    """
    masks = mask.reshape(-1, *mask.shape[-2:]).cpu() > 0.5
    down, across = height / masks.shape[1], width / masks.shape[2]
    found = []
    for white in masks:
        rows, columns = (white.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
        edges = rows and (columns[0] * across, rows[0] * down, (columns[-1] + 1) * across, (rows[-1] + 1) * down)
        found.append([Box(*edges)] if edges else [])
    return _one_per_picture(found, count, "masks")


def boxes_of_input(value: object, count: int, height: int, width: int) -> list[list[Box]]:
    """The boxes in each of `count` pictures of height x width, from a BOUNDING_BOX or BBOX.

    A box is {"x", "y", "width", "height"} or four numbers in this order, x and y its top left corner, in pixels.
    `value` is one of these, as ComfyUI's own nodes output them:
    - one box, or one list of boxes: used for every picture;
    - a list with one entry per picture, each a list of boxes, one box or None.
    A flat list of `count` boxes of four numbers is one box per picture. InputError for anything else.
    """
    value = _plain(value)
    value = [value] if _is_box(value) else value
    if not isinstance(value, list):
        raise InputError(f"A box must be x, y, width and height in pixels, not {value!r}.")
    if value and all(map(_is_box, value)):
        one_each = isinstance(value[0], list) and len(value) == count > 1
        value = [[box] for box in value] if one_each else [value]
    pictures = [boxes if isinstance(boxes, list) and not _is_box(boxes) else [boxes] for boxes in value or [[]]]
    found = [[_read(box, height, width) for box in boxes if box is not None] for boxes in pictures]
    return _one_per_picture(found, count, "lists of boxes")


def _plain(value: object) -> object:
    """Arrays, tensors and tuples as nested lists of numbers."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _is_box(value: object) -> bool:
    """A dict or a list of four numbers."""
    numbers = isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)
    return isinstance(value, dict) or (numbers and len(value) == 4)


def _read(box: object, height: int, width: int) -> Box:
    """InputError unless it has a size and its centre lies in the picture."""
    try:
        values = [box[key] for key in ("x", "y", "width", "height")] if isinstance(box, dict) else box
        x, y, w, h = map(float, values)
        found = Box(x, y, x + w, y + h, float(box.get("score", 1.0)) if isinstance(box, dict) else 1.0)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"A box must be x, y, width and height in pixels, not {box!r}.") from error
    inside = 0 <= found.center[0] <= width and 0 <= found.center[1] <= height
    if not (inside and w > 0 and h > 0 and found.side >= MIN_SIDE):
        raise InputError(
            f"The box x {x:g}, y {y:g}, width {w:g}, height {h:g} is not in the picture of {width}x{height}: connect a "
            "box with the top left corner and the size in pixels of this picture."
        )
    return found


def _one_per_picture(found: list, count: int, what: str) -> list:
    if len(found) not in (1, count):
        raise InputError(f"{len(found)} {what} do not match {count} pictures: connect 1 or {count}.")
    return found if len(found) == count else found * count
