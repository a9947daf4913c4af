"""Joins: where sequences meet nothing jumps, and everything else stays as it was."""

import pytest
import torch

from imtalker.drawn.head import DEGREES
from imtalker.errors import InputError
from imtalker.media.audio import Audio
from imtalker.motion.inertia import FRAMES, Inertia, fading
from tests.meaning import loudness, sentence, value


def waves(count, seed, size=3):
    """Smooth rows (count,size) of about unit size, each as fast as the other."""
    random = torch.Generator().manual_seed(seed)
    phase, offset = torch.rand(2, size, generator=random)
    return (torch.arange(count)[:, None] / 8 + 6 * phase).sin() + 3 * (offset - 0.5)


def test_fading_starts_whole_ends_at_nothing_and_has_no_kink():
    weights = fading(401, 400)
    assert weights[0] == 1
    assert weights[-1] == 0
    slope = weights.diff() * 400
    assert slope.max() <= 0
    assert slope[[0, -1]].abs().max() < 1e-3
    assert torch.equal(fading(3, 12, 5), fading(12, 12)[5:8])


def test_a_join_steps_like_the_rows_before_it_and_fades():
    first, second = waves(50, 1), waves(50, 2) + 6
    inertia = Inertia()
    shown = torch.cat([inertia.join(first), inertia.join(second)])
    assert torch.equal(shown[:50], first)
    assert torch.equal(shown[50 + FRAMES :], second[FRAMES:])
    usual = first.diff(dim=0).square().mean(0).sqrt()
    assert (second[0] - first[-1]).abs().min() > 5 * usual.max()
    half_a_step = (first[-1] - first[-2]).abs() / 2
    assert ((shown[50] - first[-1]).abs() <= usual + half_a_step + 1e-6).all()


def test_a_step_like_any_other_stays():
    rows = waves(100, 3)
    inertia = Inertia()
    torch.testing.assert_close(torch.cat([inertia.join(rows[:50]), inertia.join(rows[50:])]), rows, rtol=0, atol=2e-2)


def test_a_displaced_beginning_fades():
    rows = waves(50, 1)
    shown = Inertia(torch.full((3,), 5.0)).join(rows)
    torch.testing.assert_close(shown[0], rows[0] + 5)
    assert torch.equal(shown[FRAMES:], rows[FRAMES:])
    assert ((shown - rows).diff(dim=0) <= 1e-6).all()


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_pieces_of_any_size_give_the_same(size):
    windows = [waves(50, seed) for seed in range(3)]
    whole, inertia = Inertia(torch.ones(3)), Inertia(torch.ones(3))
    for window in windows:
        first, *others = window.split(size)
        pieces = [inertia.join(first), *map(inertia.follow, others)]
        torch.testing.assert_close(torch.cat(pieces), whole.join(window), rtol=0, atol=1e-6)


def test_the_avatar_speaks_on_without_a_jump_every_two_seconds(avatar):
    sound = sentence(4.0, 4.0)
    smooth, published = (
        torch.cat([avatar.say(sound, seed=seed, joins=joins) for seed in range(4)]) for joins in ("smooth", "published")
    )
    at_joins = torch.arange(len(smooth) - 1) % 200 % 50 == 49
    at_joins[torch.arange(len(smooth) - 1) % 200 == 199] = False  # there another seed begins
    for name in ("yaw", "pitch", "roll", "x", "y", "scale"):
        ratio = [
            (steps[at_joins].mean() / steps[~at_joins].mean()).item()
            for steps in (value(motion, name).diff().abs() for motion in (smooth, published))
        ]
        assert ratio[0] <= 1.2, name
        assert ratio[0] < ratio[1], name


def test_the_avatar_begins_in_the_portraits_pose_and_speaks_at_once(avatar):
    sound = sentence(2.0)
    loud = loudness(sound)
    sound = Audio(sound.waveform[:, int((loud > loud.max() / 2).int().argmax()) * sound.sample_rate // 25 :], 16000)
    for seed in range(3):
        smooth, published = (avatar.say(sound, seed=seed, joins=joins) for joins in ("smooth", "published"))
        for name, degrees in DEGREES.items():
            begins = value(smooth - avatar.source.motion, name)[0].abs() * degrees
            assert begins < 1, name
        assert value(published, "mouth_open")[:5].max() > 0.3
        assert value(smooth - published, "mouth_open").abs().max() < 0.05
        assert torch.equal(smooth[FRAMES:50], published[FRAMES:50])


def test_joins_need_a_name_that_exists(avatar):
    with pytest.raises(InputError, match="smooth or published"):
        avatar.say(sentence(1.0), joins="soft")
