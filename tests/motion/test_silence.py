"""The silence gate: where the mouth rests, and that nothing else does."""

import pytest
import torch
from test_editing import sway

from imtalker import InputError, Motion, Rig
from imtalker.media.audio import Audio
from imtalker.motion.rig import Channel
from imtalker.motion.silence import QUIETEST, gate, loudness, resting

RATE, FPS = 16000, 25


def turns(*seconds: float, volume: float = 0.3) -> Audio:
    """A tone and silence in turn, each so many seconds long, the tone first."""
    parts = [volume * (number % 2 == 0) * torch.ones(round(part * RATE)) for number, part in enumerate(seconds)]
    return Audio((torch.cat(parts) * torch.arange(sum(map(len, parts))).mul(0.3).sin())[None], RATE)


def a_rig(size: int = 4) -> Rig:
    """The first value is the head, the second the mouth, the others have no name."""
    channels = tuple(Channel(part, part, -1, 1, 1.0, "names") for part in ("head", "mouth"))
    return Rig(channels, torch.eye(size)[:, :2], torch.eye(size)[:2], torch.full((1, size), 0.1))


def test_the_mouth_rests_in_pauses_and_is_free_in_sound():
    share = resting(turns(1, 1, 1, 0.1, 1), FPS, 120, -40)
    assert share[30:45].eq(1).all()
    assert share[:25].eq(0).all()
    assert share[50:102].eq(0).all()  # a pause between two words too
    assert share[110:].eq(1).all()  # past its end a sound is quiet
    assert share.diff().abs().max() < 0.6  # and it does not snap


def test_another_speakers_sound_is_the_opposite():
    audio = turns(1, 1, 1)
    share = resting(audio, FPS, 75, -40, loud=True)
    assert share[5:20].eq(1).all()
    assert share[25:50].eq(0).all()


@pytest.mark.parametrize("fps", [12, 25, 23.976, 60])
def test_the_level_is_a_level(fps):
    audio = turns(2, volume=10 ** (-30 / 20))
    frames = round(2 * fps)
    assert loudness(audio, fps, frames).median().item() == pytest.approx(-33, abs=0.5)  # a sine's rms
    assert resting(audio, fps, frames, -36).eq(0).all()
    assert resting(audio, fps, frames, -28).eq(1).all()
    assert loudness(Audio(torch.zeros(1, 100), RATE), fps, 3).tolist() == [QUIETEST] * 3


def test_only_the_mouth_rests():
    motion, own = sway(75), torch.tensor([[9.0, 0.5, 9, 9]])
    audio = turns(1, 2)
    rested = gate(motion, a_rig(), audio)
    assert torch.equal(rested.latents[:, [0, 2, 3]], motion.latents[:, [0, 2, 3]])
    torch.testing.assert_close(rested.latents[40:, 1], torch.full((35,), 0.1))
    assert torch.equal(rested.latents[:25], motion.latents[:25])
    torch.testing.assert_close(gate(motion, a_rig(), audio, own=own).latents[40:, 1], torch.full((35,), 0.5))


def test_a_rig_without_a_mouth_is_refused():
    rig = Rig((Channel("yaw", "head", -1, 1, 1.0, "names"),), torch.eye(4)[:, :1], torch.eye(4)[:1], torch.zeros(1, 4))
    with pytest.raises(InputError, match="cannot tell the mouth apart; it knows: head"):
        gate(Motion(torch.zeros(50, 4)), rig, turns(1))
