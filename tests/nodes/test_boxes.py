"""How masks and boxes of other packs are read."""

import numpy as np
import pytest
import torch

from imtalker import InputError


@pytest.fixture(scope="module")
def boxes(pack):
    return pack("nodes.doors.boxes")


def named(x, y, width, height):
    return {"x": x, "y": y, "width": width, "height": height, "label": "face"}


A, B = (10, 20, 30, 40), (60, 20, 20, 25)
CORNERS_A = (10, 20, 40, 60)


def read(boxes, value, count=3, order="auto"):
    found = boxes.boxes_of_input("box", value, boxes.Frame(count, 100, 200), order)
    return [[(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0) for box in one] for one in found]


@pytest.mark.parametrize(
    ("value", "expected"),
    {
        "one": (named(*A), [[A], [A], [A]]),
        "four numbers": (A, [[A], [A], [A]]),
        "array": (np.array(A), [[A], [A], [A]]),
        "tensor of floats": (torch.tensor(A).float(), [[A], [A], [A]]),
        "several in one picture": ([named(*A), named(*B)], [[A, B]] * 3),
        "as many as pictures, named": ([named(*A)] * 3, [[A] * 3] * 3),
        "as many as pictures, numbers": ([A, B, A], [[A], [B], [A]]),
        "tensor of them": (torch.tensor([A, B, A]), [[A], [B], [A]]),
        "one list": ([[named(*A), named(*B)]], [[A, B]] * 3),
        "a list for each": ([[named(*A)], [], [named(*B), named(*A)]], [[A], [], [B, A]]),
        "one or none for each": ([A, None, (torch.tensor(60), 20, 20, 25)], [[A], [], [B]]),
        "none": ([], [[], [], []]),
        "corners by name": ({"x0": 10, "y0": 20, "x1": 40, "y1": 60}, [[A], [A], [A]]),
        "as an editor stores them": ({"startX": 10, "startY": 20, "endX": 40, "endY": 60}, [[A]] * 3),
        "drawn from the lower right": ({"startX": 40, "startY": 60, "endX": 10, "endY": 20}, [[A]] * 3),
        "numpy scalars": ({"x": np.int64(10), "y": np.float32(20), "width": 30, "height": torch.tensor(40)}, [[A]] * 3),
    }.values(),
)
def test_forms_of_boxes(boxes, value, expected):
    assert read(boxes, value) == expected


def test_the_order_of_four_numbers_is_set_or_seen(boxes, caplog):
    assert read(boxes, CORNERS_A, order=boxes.CORNERS) == [[A]] * 3
    assert read(boxes, named(*A), order=boxes.CORNERS) == [[A]] * 3  # its names say more
    wide = (120, 20, 180, 90)  # as sizes it would leave the picture
    assert read(boxes, wide) == [[(120, 20, 60, 70)]] * 3
    assert not caplog.records
    assert read(boxes, CORNERS_A) == [[CORNERS_A]] * 3
    assert "Set box_order if that is wrong" in caplog.text
    caplog.clear()
    assert read(boxes, CORNERS_A, order=boxes.SIZES) == [[CORNERS_A]] * 3
    assert not caplog.records
    # one box that can only be corners says it for all
    assert read(boxes, [[CORNERS_A, wide]]) == [[A, (120, 20, 60, 70)]] * 3
    with pytest.raises(InputError, match="set box_order"):
        read(boxes, B, order=boxes.CORNERS)
    assert not caplog.records


def test_the_order_of_a_box_that_leaves_the_picture(boxes, caplog):
    assert read(boxes, (150, 20, 230, 90)) == [[(150, 20, 80, 70)]] * 3  # as sizes, its centre would be outside
    assert read(boxes, (150, 60, 80, 70)) == [[(150, 60, 80, 70)]] * 3
    assert not caplog.records
    assert read(boxes, (-20, -10, 60, 60)) == [[(-20, -10, 60, 60)]] * 3
    assert "Set box_order if that is wrong" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        "10,20,30,40",
        7,
        {"left": 1},
        (10, 20, 30),
        [[10, 20, "wide", 40]],
        (0.1, 0.2, 0.3, 0.4),
        (10, 20, -5, 40),
        (190, 20, 300, 40),
        [A, B],
        (np.nan, 20, 30, 40),
        (10, 20, np.inf, 40),
        (10, 20, 1e9, 40),
        (10, 20, 10**400, 40),
        named(10, 20, 30, None),
        {**named(*A), "score": float("nan")},
        ["9999"],
        [b"\x0a\x14\x1e\x28"],
        torch.zeros(1).expand(500, 1080, 1920, 3),
        [np.zeros((1, 64, 64))],
    ],
)
def test_anything_else_is_a_sentence(boxes, value):
    value = [[one] for one in value] if value == [A, B] else value
    with pytest.raises(InputError, match=r"must be x, y, width|not in the picture of 200x100|2 lists .* 3 pict"):
        read(boxes, value)


def test_masks(boxes):
    mask = torch.zeros(2, 50, 100)
    mask[0, 10:20, 30:50] = 1
    (box,), none = boxes.boxes_of_mask(mask, boxes.Frame(2, 100, 200))
    assert (box.x0, box.y0, box.x1, box.y1) == (60, 20, 100, 40)
    assert none == []
    assert boxes.boxes_of_mask(mask[:1], boxes.Frame(3, 50, 100))[2][0].x0 == 30
    with pytest.raises(InputError, match="2 masks do not match 3 pictures"):
        boxes.boxes_of_mask(mask, boxes.Frame(3, 50, 100))
