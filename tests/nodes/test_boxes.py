"""How masks and boxes of other packs are read; nodes/boxes.py needs no ComfyUI."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def boxes():
    """The module inside a stand-in for the pack, whose own __init__ only ComfyUI can run."""
    for name, folder in (("pack", ROOT), ("pack.nodes", ROOT / "nodes")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    from pack.nodes import boxes

    yield boxes
    for name in [name for name in sys.modules if name.split(".")[0] == "pack"]:
        del sys.modules[name]


def named(x, y, width, height):
    return {"x": x, "y": y, "width": width, "height": height, "label": "face"}


A, B = (10, 20, 30, 40), (60, 20, 20, 25)


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
    }.values(),
)
def test_forms_of_boxes(boxes, value, expected):
    found = boxes.boxes_of_input(value, 3, 100, 200)
    assert [[(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0) for box in one] for one in found] == expected


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
    ],
)
def test_anything_else_is_a_sentence(boxes, value):
    value = [[one] for one in value] if value == [A, B] else value
    with pytest.raises(boxes.InputError, match=r"must be x, y, width|not in the picture of 200x100|2 lists .* 3 pict"):
        boxes.boxes_of_input(value, 3, 100, 200)


def test_masks(boxes):
    mask = torch.zeros(2, 50, 100)
    mask[0, 10:20, 30:50] = 1
    (box,), none = boxes.boxes_of_mask(mask, 2, 100, 200)
    assert (box.x0, box.y0, box.x1, box.y1) == (60, 20, 100, 40)
    assert none == []
    assert boxes.boxes_of_mask(mask[0], 3, 50, 100)[2][0].x0 == 30
    with pytest.raises(boxes.InputError, match="2 masks do not match 3 pictures"):
        boxes.boxes_of_mask(mask, 3, 50, 100)
