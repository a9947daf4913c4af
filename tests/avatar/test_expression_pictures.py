"""Expressions on the avatar's pictures: read back by the drawing that looks most alike, in order and size."""

import pytest
import torch
import torch.nn.functional as F
from meaning import PERSON, Avatar

from imtalker import Motion
from imtalker.avatar.readback import correlation, read
from imtalker.avatar.rig import named_rig
from imtalker.drawn.head import MOTION, MOTION_SIZE
from imtalker.drawn.portraits import draw
from imtalker.motion.expression import blink_times, express

SIDE = 96
STILL = Motion(torch.zeros(1, MOTION_SIZE))


def rendered(avatar: Avatar, motion: Motion) -> torch.Tensor:
    """Pictures (T,3,S,S)."""
    return torch.cat(list(avatar.renderer.stream(avatar.source, motion))).movedim(-1, 1).float()


def most_alike(pictures: torch.Tensor, latent: str, low: float) -> torch.Tensor:
    """The value of one latent at which the drawing is nearest to each picture, (T,); the other latents are 0."""
    levels = torch.linspace(low, 1, 41)
    motion = torch.zeros(len(levels), MOTION_SIZE)
    motion[:, MOTION.index(latent)] = levels
    drawings = draw(PERSON[torch.zeros(len(levels), dtype=torch.long)], motion, SIDE)
    small = F.interpolate(pictures, size=(SIDE, SIDE), mode="area")
    distances = torch.cdist(small.flatten(1), drawings.flatten(1))
    return levels[distances.argmin(1)]


@pytest.mark.parametrize(
    ("channel", "latent", "low"),
    [
        ("smile", "smile", -1),
        ("brows", "brows", -1),
        ("mouth open", "mouth_open", 0),
        ("mouth wide", "mouth_width", -1),
    ],
)
def test_a_slider_is_read_back_in_order_and_size(avatar, channel, latent, low):
    asked = torch.linspace(low, 1, 7)
    keyframes = [[number / 25, value, "hold"] for number, value in enumerate(asked.tolist())]
    motion = express(STILL, named_rig(), {"version": 2, "channels": {channel: keyframes}}, seconds=7 / 25)
    found = most_alike(rendered(avatar, motion), latent, low)
    assert correlation(found, asked) >= 0.9
    assert (found.diff() >= 0).all()
    assert (found[-1] - found[0]).item() == pytest.approx(1 - low, rel=0.35)


def test_blinks_are_read_at_the_frames_they_are_asked_for(avatar):
    """A drawn one from 0.4 s, and one that the helper places."""
    still = Motion(torch.zeros(32, MOTION_SIZE))
    curve = [[0.4, 0], [0.48, 1], [0.52, 1], [0.68, 0]]
    (placed,) = blink_times(60, 2, 1.28)
    motion = express(still, named_rig(), {"version": 2, "channels": {"blink left": curve}}, blinks=60, seed=2)
    asked = motion.latents[:, MOTION.index("blink")]
    people = PERSON[torch.zeros(len(still), dtype=torch.long)]
    found = read(rendered(avatar, motion), people, motion.latents * 0)["blink"]
    shut = found > (found.max() + found.min()) / 2
    assert correlation(found, asked) >= 0.9
    assert shut[[12, 13, round((placed + 0.12) * 25)]].all()
    # a lid that is half shut may be read either way
    assert not shut[asked < 0.25].any()
