"""The motion that goes with synthetic speech, on phonemes written down by hand."""

import numpy as np
import pytest

from imtalker.avatar.speech import Phoneme
from imtalker.avatar.visemes import CHANNEL, LIMITS, SOUNDS, head_motion, motion_control, mouth_shapes, sound_labels
from imtalker.drawn.head import MOTION, MOTION_SIZE
from imtalker.motion.control import Control

OPEN, WIDTH, ROUND = range(3)


def spoken(text, each=0.12, lead=0.4):
    """Phonemes of one letter and equal length between two silences; "_" is a silence too."""
    names = ["", *text.replace("_", " ").split(" "), ""] if " " in text else ["", *text, ""]
    names = ["" if name == "_" else name for name in names]
    edges = np.cumsum([0, lead, *[each] * (len(names) - 2), lead])
    return [Phoneme(name, start, end) for name, start, end in zip(names, edges, edges[1:])]


def shape(text, number=0, **settings):
    """The mouth (4,) in the middle of a phoneme; 0 is the first after the silence."""
    phonemes = spoken(text, **settings)
    middle = (phonemes[number + 1].start + phonemes[number + 1].end) / 2
    return mouth_shapes(phonemes, int(phonemes[-1].end * 25))[int(middle * 25)]


@pytest.mark.parametrize("stop", ["p", "b", "m"])
def test_lips_meet_between_any_vowels(stop):
    """At 25 frames a second, wherever the frames fall."""
    for vowel in "aɑiuɛ":
        for start in (0.0, 0.013, 0.033):
            phonemes = spoken(vowel + stop + vowel, each=0.07, lead=0.4 + start)
            opened = mouth_shapes(phonemes, 25)[:, OPEN]
            first, last = (int(t * 25) for t in (phonemes[2].start - 0.04, phonemes[2].end + 0.04))
            assert opened[first : last + 1].min() < 0.05, (vowel, start)
            assert opened.max() > 0.1, (vowel, start)


def test_hurried_lips_meet_too():
    for start in np.arange(0, 0.04, 0.005):
        phonemes = [Phoneme("", 0, 0.2), Phoneme("a", 0.2, 0.4 + start), Phoneme("m", 0.4 + start, 0.42 + start)]
        opened = mouth_shapes([*phonemes, Phoneme("a", 0.42 + start, 0.8)], 20)[:, OPEN]
        assert opened[9:13].min() < 0.05


def test_a_short_stop_is_closed_before_its_burst():
    """espeak-ng reports only the burst of some stops, 30 ms, and counts the closure to the vowel before it."""
    phonemes = [Phoneme("", 0, 0.4), Phoneme("a", 0.4, 0.6), Phoneme("p", 0.6, 0.63), Phoneme("i", 0.63, 0.8)]
    assert mouth_shapes(phonemes, 20)[14, OPEN] < 0.05  # 0.58 s


def test_teeth_on_the_lip_nearly_close():
    hurried = shape("afa", 1, each=0.07)[OPEN]
    assert 0.02 < shape("afa", 1)[OPEN] < 0.2
    assert 0.02 < hurried < 0.2
    assert hurried < shape("aka", 1, each=0.07)[OPEN]


def test_vowels_by_openness_rounding_and_spread():
    a, i, u = (shape(vowel, each=0.25) for vowel in "aiu")
    assert a[OPEN] > 0.7 > 0.4 > i[OPEN]
    assert u[ROUND] > 0.8 > 0.1 > max(a[ROUND], i[ROUND])
    assert i[WIDTH] > 0.5 > -0.5 > u[WIDTH]


def test_silence_closes():
    rows = mouth_shapes([Phoneme("a", 0, 0.3), Phoneme("", 0.3, 1.2), Phoneme("a", 1.2, 1.5)], 38)
    assert np.abs(rows[13:25, :3]).max() < 0.01
    assert rows[4, OPEN] > 0.7


def test_neighbours_colour_a_consonant():
    """The same s is rounder before u than before i, and a k leaves the mouth to the vowels around it."""
    assert shape("susu", 2, each=0.08)[ROUND] > shape("sisi", 2, each=0.08)[ROUND] + 0.2
    assert shape("aka", 1, each=0.08)[OPEN] > shape("iki", 1, each=0.08)[OPEN] + 0.2


def test_both_vowels_of_a_diphthong():
    rows = mouth_shapes([Phoneme("", 0, 0.2), Phoneme("aʊ", 0.2, 0.6), Phoneme("", 0.6, 0.8)], 20)
    assert rows[7, OPEN] > rows[12, OPEN] + 0.2
    assert rows[12, ROUND] > rows[7, ROUND] + 0.4


def test_accents_and_lengths_do_not_matter():
    assert np.array_equal(shape("_ ɑ̃ː _", 1), shape("_ ɑ _", 1))


def test_the_mouth_moves_smoothly():
    assert np.abs(np.diff(mouth_shapes(spoken("mamafasuwipo" * 3, each=0.08), 90), axis=0)).max() < 0.75


def test_labels_name_the_sound_of_each_frame():
    labels = sound_labels([Phoneme("", 0, 0.2), Phoneme("tʃ", 0.2, 0.36), Phoneme("ʘ", 0.36, 0.6)], 15)
    names = [SOUNDS[number] for number in labels]
    assert names == [""] * 5 + ["t"] * 2 + ["ʃ"] * 2 + ["other"] * 6


def test_motion_follows_the_seed_and_keeps_its_range():
    phonemes = spoken("mamasusipofali", each=0.15, lead=3.0)
    one, again, other = (head_motion(phonemes, 200, seed) for seed in (1, 1, 2))
    assert one.shape == (200, MOTION_SIZE)
    assert one.dtype == np.float32
    assert np.array_equal(one, again)
    assert np.abs(one - other)[:, CHANNEL["yaw"]].max() > 0.01
    assert np.array_equal(one[:, CHANNEL["mouth_open"]], other[:, CHANNEL["mouth_open"]])
    every = np.stack([head_motion(phonemes, 200, seed) for seed in range(30)])
    assert np.abs(every).max() <= 1
    assert (every[..., [CHANNEL["blink"], CHANNEL["mouth_open"]]] >= 0).all()
    assert (every[..., len(MOTION) :] == 0).all()
    still = [name for name in MOTION if every[..., CHANNEL[name]].std() < 0.02]
    assert not still


def test_eyes_blink_now_and_then():
    lids = np.stack([head_motion([Phoneme("", 0, 20)], 500, seed)[:, CHANNEL["blink"]] for seed in range(20)])
    blinks = ((lids[:, 1:] > 0.5) & (lids[:, :-1] <= 0.5)).sum()
    assert 20 / 6 < blinks / 20 < 20 / 1.5
    assert (lids > 0.5).mean() < 0.12


def test_the_control_describes_the_motion():
    """Signs and scales as in keyframes.py: yaw and x to the image's right, pitch, y and gaze up, larger is nearer."""
    rows = np.zeros((3, MOTION_SIZE), np.float32)
    rows[1, [CHANNEL["yaw"], CHANNEL["gaze_x"], CHANNEL["x"]]] = 0.5
    rows[2, [CHANNEL["pitch"], CHANNEL["gaze_y"], CHANNEL["scale"]]] = 0.5
    control = motion_control(rows)
    assert isinstance(control, Control)
    assert control.fps == 25
    half = {name: np.radians(value / 2) for name, value in LIMITS.items()}
    assert control.pose[0].tolist() == [0, 0, 0]
    assert control.pose[1].tolist() == pytest.approx([0, half["yaw"], 0], abs=1e-6)
    assert control.pose[2].tolist() == pytest.approx([-half["pitch"], 0, 0], abs=1e-6)
    assert control.gaze[1].tolist() == pytest.approx([-half["gaze_x"], 0], abs=1e-6)
    assert control.gaze[2].tolist() == pytest.approx([0, half["gaze_y"]], abs=1e-6)
    # a shift moves the face by scale * shift / 2 image sides
    assert (control.cam[1, 0] * control.cam[1, 1] / 2).item() == pytest.approx(0.5 * LIMITS["x"])
    assert (control.cam[2, 0] / control.cam[0, 0]).item() == pytest.approx(1 + LIMITS["scale"] / 2)
