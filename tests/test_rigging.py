"""A rig from the models alone, in a motion space whose names were taken away."""

import pytest
import torch
from meaning import sentence, value
from scrambled import mixed, mixing
from tiny import tiny_generator

from imtalker import InputError, Motion, Rig, rigging
from imtalker.avatar.readback import correlation
from imtalker.drawn.head import MOTION
from imtalker.media.audio import Audio
from imtalker.rigging import ask, check_rig, rig_of

MATRIX = mixing()
BACK = torch.linalg.inv(MATRIX)


@pytest.fixture(scope="module")
def rig(avatar):
    return ask(mixed(avatar.generator, MATRIX))


def named(motion):
    """The avatar's own latents (T,16) of a mixed motion."""
    return motion.latents @ BACK


def speaking(avatar, seed, sound=None):
    """Speech of the avatar in the mixed space."""
    return Motion(avatar.say(sound or sentence(), seed=seed) @ MATRIX)


def test_the_mouth_ends_where_the_ratios_drop(rig):
    ratios = [c.score**2 / (1 - c.score**2) for c in rig.channels if c.part == "mouth"]
    assert 2 <= len(ratios) <= 4
    assert min(ratios) > 0.5
    assert sorted(ratios, reverse=True) == ratios


def test_the_mouth_of_another_clip_leaves_head_and_eyes(avatar, rig):
    backwards = Audio(sentence().waveform.flip(-1), sentence().sample_rate)
    base, other = speaking(avatar, 1), speaking(avatar, 2, backwards)
    taken = named(rig.combine(base, other, ["mouth"]))
    base, other = named(base), named(other)
    for name in ("mouth_open", "mouth_width"):
        assert correlation(value(taken, name), value(other, name)) >= 0.95, name
        assert abs(correlation(value(base, name), value(other, name))) < 0.6
    for name in ("yaw", "pitch", "roll", "x", "y", "scale", "gaze_x", "gaze_y"):
        assert correlation(value(taken, name), value(base, name)) >= 0.95, name
    assert correlation(value(taken, "blink"), value(base, "blink")) >= 0.9


def test_a_head_that_turns_in_another_clip_turns_here_and_leaves_the_mouth(avatar, rig):
    base = speaking(avatar, 1)
    turned = rig.add(speaking(avatar, 2), {"yaw": torch.linspace(-20, 20, 50), "roll": torch.tensor([8.0, -8, 8])})
    taken, base, other = map(named, (rig.combine(base, turned, ["head"]), base, turned))
    for name in ("yaw", "roll"):
        assert correlation(value(taken, name), value(other, name)) >= 0.95, name
    for name in ("mouth_open", "mouth_width", "blink"):
        assert correlation(value(taken, name), value(base, name)) >= 0.95, name


@pytest.mark.parametrize(
    ("channel", "moved", "amount"),
    [
        ("yaw", "yaw", 15.0),
        ("pitch", "pitch", 10.0),
        ("roll", "roll", 10.0),
        ("gaze horizontal", "gaze_x", 10.0),
        ("gaze vertical", "gaze_y", 10.0),
    ],
)
def test_written_channels_move_their_own_value_alone(avatar, rig, channel, moved, amount):
    base = speaking(avatar, 1)
    written = rig.add(base, {channel: torch.tensor([amount])})
    change = (named(written) - named(base)).mean(0)
    own = change[MOTION.index(moved)].abs()
    assert own > 0.15
    others = change[[i for i in range(len(MOTION)) if MOTION[i] != moved]].abs()
    assert others.max() <= 0.1 * max(1.0, own), dict(zip(MOTION, change.tolist()))
    assert (rig.read(written)[channel] - rig.read(base)[channel] - amount).abs().max() < 1e-3 * amount


def test_weights_that_know_nothing_say_so(caplog):
    with caplog.at_level("INFO", logger="imtalker"):
        rig = ask(tiny_generator("v2"))
    assert "directions of the mouth" in caplog.text
    assert torch.isfinite(rig.write_in).all()
    assert torch.isfinite(rig.read_out).all()


def test_a_rig_is_asked_for_once_and_kept(tmp_path, monkeypatch, caplog):
    generator, asked = tiny_generator("v2"), []

    def quick(model, progress):
        asked.append(model)
        return Rig((), torch.zeros(8, 0), torch.zeros(0, 8), torch.zeros(1, 8), model.generation, model.fingerprint)

    monkeypatch.setattr(rigging, "ask", quick)
    folder = tmp_path / "models" / "rigs"
    _, file = rig_of(generator, folder)
    assert file.parent == folder
    assert rig_of(generator, folder)[1] == file
    assert len(asked) == 1
    file.write_bytes(b"damaged")
    assert rig_of(generator, folder)[1] == file
    rig, _ = rig_of(generator, folder)
    assert len(asked) == 2
    other = tiny_generator("v2")
    with torch.no_grad():
        other.flow.head.linear.weight.neg_()
    assert rig_of(other, folder)[1] != file
    with pytest.raises(InputError, match="rig and the generator were made with different weights: choose a rig"):
        check_rig(rig, other)
    check_rig(rig, generator)
    (tmp_path / "file").touch()
    assert rig_of(generator, tmp_path / "file")[1] is None
    assert "made again next time" in caplog.text


def test_the_avatar_brings_its_own(avatar, tmp_path):
    rig, file = rig_of(avatar.generator, tmp_path)
    assert file == rigging.SHIPPED
    assert len(rig.usable()) == len(MOTION)
    assert not list(tmp_path.iterdir())
