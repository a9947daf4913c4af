"""Choosing a face, following one person, and boxes that stay still."""

import logging
import math
import pickle
import sys

import numpy as np
import pytest
import torch

from imtalker.errors import InputError
from imtalker.face import follow
from imtalker.face.crop import Box, Crop

WALL = torch.full((300, 400, 3), 0.5)  # an image without a face
PEOPLE = [Box(300, 10, 340, 50, 0.9), Box(10, 10, 110, 110, 0.7), Box(190, 130, 240, 180, 0.8)]


@pytest.mark.parametrize(
    ("which", "expected"), [("largest", 1), ("left to right", 1), ("nearest to centre", 2), ("best score", 0)]
)
def test_a_face_is_chosen_by_its_place_size_or_score_in_any_order_of_boxes(which, expected):
    assert follow.choose_face(PEOPLE, which, size=(300, 400)) is PEOPLE[expected]
    assert follow.choose_face(PEOPLE[::-1], which, size=(300, 400)) is PEOPLE[expected]


def test_a_face_is_chosen_by_number_and_a_missing_one_is_refused():
    assert follow.choose_face(PEOPLE, "left to right", index=2) is PEOPLE[0]
    with pytest.raises(InputError, match=r"number 3, 3 found"):
        follow.choose_face(PEOPLE, index=3)
    with pytest.raises(follow.FaceNotFound):
        follow.choose_face([])


def test_without_a_face_or_detector_it_is_an_error_or_the_middle_square_as_chosen(monkeypatch, caplog):
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setitem(sys.modules, "cv2", None)
        assert follow.find_crop(WALL, fallback="centre") == Crop(50, 0, 300, 300, 400)
    assert "pip install opencv-python" in caplog.text
    assert "middle square" in caplog.text
    monkeypatch.setattr(follow, "open_detector", lambda *args: lambda image: [])
    with pytest.raises(follow.FaceNotFound, match=r"No face was found in wall\.png"):
        follow.find_crop(WALL, name="wall.png")
    assert follow.find_crop(WALL[None], fallback="centre", name="wall.png").size == 300
    assert "No face was found in wall.png. Using the middle square of the whole picture" in caplog.text


def test_steady_box_ignores_outliers_and_gaps():
    boxes = [Box(10, 10, 50, 60), None, Box(12, 10, 52, 60), Box(11, 10, 51, 60), Box(300, 300, 310, 310), None]
    box = follow.steady_box(boxes)
    assert 11 <= box.x0 <= 12
    assert box.y0 == 10
    for summary in (follow.steady_box, lambda boxes: follow.smooth_boxes(boxes, 25)):
        with pytest.raises(InputError, match="No face was found in any of 2 frames"):
            summary([None, None])


def test_smoothing_removes_jitter_bridges_gaps_and_does_not_lag():
    rng = np.random.default_rng(0)
    truth = [(200 + 40 * math.sin(2 * math.pi * t / 200), 150.0, 100.0) for t in range(200)]  # sways once in 8 seconds
    boxes = []
    for x, y, side in truth:
        x, y, side = np.array([x, y, side]) + rng.normal(0, 4, 3)
        boxes.append(Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2))
    boxes[60:70] = [None] * 10
    boxes[120] = Box(0, 0, 30, 30)
    smooth = follow.smooth_boxes(boxes, fps=25)
    got = np.array([(*box.center, box.side) for box in smooth])
    assert len(smooth) == 200
    assert np.abs(np.diff(got, 2, axis=0)).max() < 0.5  # pixels per frame squared; that of the jitter is about 10
    assert np.abs(got - truth)[10:-10].max() < 4  # the ends lean inwards, with nothing beyond them
    shifts = range(-10, 11)
    errors = [np.square(np.roll(got[:, 0], -s)[20:-20] - np.array(truth)[20:-20, 0]).sum() for s in shifts]
    assert abs(shifts[int(np.argmin(errors))]) <= 1


def follow_script(script, monkeypatch, **options):
    """`follow_face` through a video whose detections are `script`."""
    detections = iter(script)
    monkeypatch.setattr(follow, "open_detector", lambda *args: lambda frame: next(detections))
    return follow.follow_face([WALL] * len(script), **options)


def test_following_stays_with_one_person(monkeypatch):
    def at(x, side=60.0):
        return Box(x, 50, x + side, 50 + side)

    mine = [at(20.0 + 3 * n) for n in range(8)]
    script = [[], *[[at(300 - 3 * n, 80), box] for n, box in enumerate(mine)]]
    script[4] = script[4][:1]  # only the other person
    script[6] = [at(56, 12)]  # only a tiny box in the right place
    followed = follow_script(script, monkeypatch, which="left to right")
    assert followed == [None, *mine[:3], None, mine[4], None, *mine[6:]]


def viewed(monkeypatch, shown):
    """`steady_view` of a clip whose frames show the face where `shown` says so, and how many frames were searched."""
    frames = torch.zeros(len(shown), 300, 400, 3, dtype=torch.uint8)
    frames[torch.tensor(shown)] = 255
    searched = []
    monkeypatch.setattr(
        follow, "open_detector", lambda *args: lambda frame: searched.append(1) or ([PEOPLE[1]] if frame.max() else [])
    )
    return follow.steady_view(iter(frames), len(shown)).hidden, len(searched)


def test_stretches_without_the_face_are_found(monkeypatch):
    assert viewed(monkeypatch, [True] * 25 + [False] * 25 + [True] * 25) == ((range(25, 50),), 75)
    assert viewed(monkeypatch, [False] * 9 + [True] * 20 + [False] * 8)[0] == (range(9), range(29, 37))
    # a detector that misses a turned head for a moment
    assert viewed(monkeypatch, [True] * 10 + [False] * 7 + [True] * 10)[0] == ()


def test_in_a_long_clip_one_frame_in_ten_is_searched_until_the_face_is_gone(monkeypatch):
    hidden, searched = viewed(monkeypatch, [True] * 703 + [False] * 30 + [True] * 500)
    # unknown frames before the first one without the face count as hidden
    assert hidden == (range(701, 733),)
    assert searched < 1233 / 10 + 30


def test_a_steady_crop_sees_bytes_as_it_sees_floats_and_searches_about_sixty_frames(monkeypatch):
    searched = []
    monkeypatch.setattr(follow, "open_detector", lambda *args: lambda frame: searched.append(frame) or [PEOPLE[1]])
    frames = torch.full((180, 300, 400, 3), 128, dtype=torch.uint8)
    crop = follow.steady_view(iter(frames), 180, scale=1.1).crop
    assert (crop.x, crop.y, crop.size) == pytest.approx((5, 5, 110))
    assert len(searched) == 60
    assert searched[0].dtype == torch.float32
    assert searched[0].max() == pytest.approx(128 / 255)
    assert follow.steady_view(iter(frames[:2].float() / 255), None, scale=1.1).crop == crop


def test_a_clip_without_a_face_or_with_too_few_says_when(monkeypatch):
    frames = torch.zeros(100, 30, 40, 3)
    monkeypatch.setattr(follow, "open_detector", lambda *args: lambda frame: [])
    with pytest.raises(follow.FaceNotFound, match=r"in 100 frames from 0 to 3\.96 s: use a clip"):
        follow.steady_view(iter(frames), 100, fps=25.0)
    script = iter([[]] * 10 + [PEOPLE] * 90)
    monkeypatch.setattr(follow, "open_detector", lambda *args: lambda frame: next(script))
    with pytest.raises(InputError, match=r"no face number 3 at 0\.40 s, .* shows 3, use 0 to 2"):
        follow.steady_view(iter(frames), 60, index=3, fps=25.0)


def test_the_sentence_names_what_the_caller_can_do():
    error = follow.FaceNotFound("No face was found", 'set no_face to "whole picture"')
    assert str(pickle.loads(pickle.dumps(error))) == 'No face was found, or set no_face to "whole picture".'


def test_a_clip_without_frames_has_no_steady_crop():
    with pytest.raises(InputError, match="no frames"):
        follow.steady_view(iter([]), None)
