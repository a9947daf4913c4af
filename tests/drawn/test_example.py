"""The drawn people and the driving video that ship with the pack."""

import av
import numpy as np
import torch

from imtalker.drawn.example import driving_frames, driving_motion, portrait, two_people
from imtalker.drawn.head import MOTION
from imtalker.media.audio import read_audio
from imtalker.weights.checkpoints import AVATAR


def test_two_people_are_different_and_the_left_one_is_that_of_the_portrait():
    pair = two_people(64, 5)
    assert pair.shape == (1, 64, 128, 3)
    assert torch.equal(pair[:, :, :64], portrait(64, 5))
    assert (pair[:, :, 64:] - pair[:, :, :64]).abs().mean() > 0.05


def test_the_driver_starts_at_rest_and_moves_head_eyes_and_mouth():
    motion = driving_motion(read_audio(AVATAR / "speech.wav"))
    assert motion[0].abs().max() < 0.05
    spread = dict(zip(MOTION, motion.std(dim=0)))
    assert min(spread[name] for name in ("yaw", "pitch", "roll", "blink", "mouth_open", "gaze_x", "smile")) > 0.1
    assert motion.abs().max() <= 1.05


def test_the_shipped_driving_video_is_what_is_drawn():
    drawn = next(driving_frames(read_audio(AVATAR / "speech.wav")))
    with av.open(str(AVATAR / "driving.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(len(drawn)), file.decode(video=0))]
    assert np.abs(np.stack(frames) / 255 - drawn.numpy()).mean() < 0.02
