"""Motion: frame rates, streaming and files."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imtalker import InputError, Motion
from imtalker.motion.motion import stream_at_fps


def wave(frames, fps=25.0):
    time = torch.arange(frames) / fps
    return Motion(torch.stack([time, (3 * time).sin()], dim=1), fps, "v1")


@pytest.mark.parametrize("fps", [10, 24, 25, 29.97, 30, 50, 60])
def test_another_frame_rate_keeps_the_timing(fps):
    motion = wave(50).at_fps(fps)
    assert len(motion) == math.ceil(2 * fps - 1e-6)
    assert (motion.fps, motion.generation) == (fps, "v1")
    inside = torch.arange(len(motion)) / fps <= 49 / 25
    torch.testing.assert_close(motion.latents[inside, 0], (torch.arange(len(motion)) / fps)[inside], rtol=0, atol=1e-5)
    assert (motion.latents[~inside, 0] == 49 / 25).all(), "the last latent is held"


def test_the_same_frame_rate_changes_nothing():
    motion = wave(13)
    assert motion.at_fps(25.0) is motion


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 140), st.sampled_from([24, 25, 29.97, 30, 50]) | st.floats(5, 240), st.none() | st.integers(1, 999)
)
def test_streamed_rate_conversion_equals_the_whole(block, fps, frames):
    motion = wave(130)
    blocks = (Motion(part, 25.0, "v1") for part in motion.latents.split(block))
    streamed = torch.cat([part.latents for part in stream_at_fps(blocks, fps, frames)])
    torch.testing.assert_close(streamed, motion.at_fps(fps, frames).latents, rtol=0, atol=1e-6)


def test_streaming_takes_no_more_blocks_than_needed():
    taken = []

    def blocks():
        for number in range(10):
            taken.append(number)
            yield wave(50)

    assert sum(len(block) for block in stream_at_fps(blocks(), 25, 60)) == 60
    assert taken == [0, 1]


def test_a_saved_motion_loads_unchanged(tmp_path):
    motion = wave(20, fps=30.0)
    motion.save(tmp_path / "m.safetensors")
    loaded = Motion.load(tmp_path / "m.safetensors")
    assert torch.equal(loaded.latents, motion.latents)
    assert (loaded.fps, loaded.generation) == (30.0, "v1")


def test_invalid_motions_and_files_are_refused(tmp_path):
    for latents in (torch.zeros(0, 32), torch.zeros(32), torch.full((2, 2), float("nan"))):
        with pytest.raises(InputError):
            Motion(latents)
    with pytest.raises(InputError):
        Motion(torch.zeros(2, 2), fps=0)
    with pytest.raises(InputError, match="no file"):
        Motion.load(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="folder"):
        wave(2).save(tmp_path / "no" / "m.safetensors")


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.complex64])
def test_latents_that_are_no_floats_are_refused(kind):
    with pytest.raises(InputError, match="must be floats"):
        Motion(torch.zeros(2, 3, dtype=kind))
