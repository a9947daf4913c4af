"""Whatever hypothesis puts on a link: the door answers with the engine's form or with one sentence, never otherwise.

DOOR_TRIES sets the tries for each type, 100 by default; `make fuzz` sets 2,000.
"""

import os

import pytest
import strategies
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imtalker import InputError
from imtalker.face.crop import Box, Crop, apply_crop
from imtalker.media.audio import Audio
from imtalker.readings import from_landmarks
from imtalker.tracking import control_from_landmarks, landmark_boxes

TRIES = int(os.environ.get("DOOR_TRIES", "100"))
tries = settings(max_examples=TRIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def check_sentence(text):
    assert text.endswith(".")
    assert len(text) < 700


@pytest.fixture(scope="module")
def through(pack):
    enter = pack("nodes.doors.opening").enter

    def through(door, value, **more):
        """What the door gives, or None if it refuses."""
        module, name = door.split(".")
        try:
            return enter("thing", getattr(pack(f"nodes.doors.{module}"), name), value, **more)
        except InputError as refused:
            check_sentence(str(refused))
            return None

    return through


@tries
@given(value=strategies.audio)
def test_audio(through, value):
    found = through("sound.sound", value)
    if found is not None:
        assert isinstance(found, Audio)
        assert (found.waveform.ndim, found.waveform.dtype, type(found.sample_rate)) == (2, torch.float32, int)
        assert found.samples > 0
        assert found.waveform.abs().max() <= 1


@tries
@given(value=strategies.images)
def test_images(through, value):
    found = through("pictures.pictures", value)
    if found is not None:
        for picture in found:
            assert (picture.shape, picture.dtype) == ((found.height, found.width, 3), torch.float32)
            assert 0 <= picture.min() <= picture.max() <= 1


@tries
@given(value=strategies.masks)
def test_masks(through, value):
    found = through("pictures.masks", value)
    if found is not None:
        assert (found.ndim, found.dtype) == (3, torch.float32)
        assert 0 <= found.min() <= found.max() <= 1


@tries
@given(
    value=strategies.boxes, count=st.integers(1, 3), order=st.sampled_from(["auto", "x y width height", "x0 y0 x1 y1"])
)
def test_boxes(through, pack, value, count, order):
    frame = pack("nodes.doors.boxes").Frame(count, 100, 200)
    found = through("boxes.boxes_of_input", value, frame=frame, order=order)
    if found is not None:
        assert len(found) == count
        for box in [box for boxes in found for box in boxes]:
            assert isinstance(box, Box)
            assert 4 <= box.side <= 3200
            assert 0 <= box.center[0] <= 200
            assert 0 <= box.center[1] <= 100


@tries
@given(value=strategies.crops)
def test_crops(through, value):
    found = through("ours.crops", value)
    if found is not None:
        for crop in [found] if isinstance(found, Crop) else found:
            if crop.height * crop.width < 1e6:
                assert apply_crop(torch.zeros(1, crop.height, crop.width, 3), crop, 8).isfinite().all()


@tries
@given(value=strategies.landmarks)
def test_landmarks(through, value):
    found = through("ours.landmarks", value)
    if found is not None:
        try:
            assert len(landmark_boxes(found)) == len(found["frames"])
            assert control_from_landmarks(found, 25.0).pose.isfinite().all()
            assert all(rows.isfinite().all() for rows in from_landmarks(found).values.values())
        except InputError:
            pass


@tries
@given(
    value=strategies.ours, door=st.sampled_from(["renderer", "generator", "source", "features", "motion", "control"])
)
def test_our_types(through, value, door):
    found = through(f"ours.{door}", value)
    if found is not None:
        assert 1 / 60 <= found.fps <= 1000


@tries
@given(value=strategies.numbers)
def test_numbers(through, value):
    for door, kind in (("whole", int), ("real", float)):
        found = through(f"numbers.{door}", value, low=-5, high=500)
        if found is not None:
            assert type(found) is kind
            assert -5 <= found <= 500
    assert through("numbers.switch", value) in (None, True, False)
    assert type(through("numbers.text", value)) in (str, type(None))
    assert through("numbers.choice", value, options=["a", "b"]) in (None, "a", "b")


@tries
@given(value=strategies.videos)
def test_videos(through, value):
    found = through("clips.video", value, new_file=lambda end: pytest.fail("no file is needed"))
    if found is not None:
        assert len(list(found.frames)) == found.count > 0
        assert 1 / 60 <= found.fps <= 1000
        sound = found.sound()
        assert sound is None or isinstance(sound, Audio)
