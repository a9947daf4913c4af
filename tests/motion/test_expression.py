"""Expressions as keyframes: what they add to a motion through a rig, what a rig lacks, blinks now and then."""

import itertools
import json
import logging
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imtalker import InputError, Motion
from imtalker.avatar.rig import named_rig
from imtalker.drawn.head import MOTION
from imtalker.motion import expression
from imtalker.motion.expression import EXPRESSION, blink_times, express, express_stream, lacking, one_for_both
from imtalker.motion.presets import EXPRESSION_PRESETS, expand
from imtalker.motion.rig import Channel, Rig

RIG = named_rig()
STILL = Motion(torch.zeros(100, 16))
SCRIPTS = Path(__file__).parents[2] / "web/js"


def document(**channels) -> dict:
    return {"version": 2, "channels": {name.replace("_", " "): curve for name, curve in channels.items()}}


def column(motion: Motion, name: str) -> torch.Tensor:
    return motion.latents[:, MOTION.index(name)]


def rig_of(**channels: tuple[float, float, float]) -> Rig:
    """A rig of an identity: name=(low, high, score)."""
    made = tuple(Channel(name, "mouth", *values, "readings") for name, values in channels.items())
    count = len(made)
    return Rig(made, torch.eye(count), torch.eye(count), torch.zeros(1, count))


class TestWhatIsAdded:
    @pytest.mark.parametrize(
        ("channel", "latent"), [("brows", "brows"), ("smile", "smile"), ("mouth open", "mouth_open")]
    )
    def test_one_is_the_most_that_was_seen_and_the_rest_stays(self, channel, latent):
        for share in (0.25, 0.5, 1.0):
            result = express(STILL, RIG, {"version": 2, "channels": {channel: [[0, share]]}})
            torch.testing.assert_close(column(result, latent), torch.full((100,), share))
            others = [number for number in range(16) if number != MOTION.index(latent)]
            assert not result.latents[:, others].any()

    def test_it_is_added_to_the_motion_and_stays_within_what_was_seen(self):
        moving = replace(STILL, latents=0.4 * torch.sin(torch.arange(1600.0)).view(100, 16))
        added = express(moving, RIG, document(smile=[[0, 0.5]])).latents - moving.latents
        torch.testing.assert_close(added[:, MOTION.index("smile")], torch.full((100,), 0.5))
        added[:, MOTION.index("smile")] = 0
        assert added.abs().max() < 1e-6
        full = express(moving, RIG, document(smile=[[0, 1]]))
        assert column(full, "smile").max() == pytest.approx(1)
        more = express(moving, RIG, document(smile=[[0, 1]]), allow_more=True)
        assert column(more, "smile").max() > 1.3

    def test_motion_beyond_what_was_seen_is_not_taken_back(self):
        wide = replace(STILL, latents=torch.full((100, 16), 1.5))
        torch.testing.assert_close(express(wide, RIG, document(smile=[[0, 0.5]])).latents, wide.latents)
        assert column(express(wide, RIG, document(smile=[[0, -1]])), "smile").unique().tolist() == [0.5]

    def test_minus_one_keeps_the_eyes_open(self):
        blinking = replace(STILL, latents=torch.rand(100, 16, generator=torch.Generator().manual_seed(1)))
        result = express(blinking, RIG, document(blink_left=[[0, -1]], blink_right=[[0, -1]]))
        assert column(result, "blink").abs().max() < 1e-6

    def test_blinks_are_where_they_are_asked_for(self):
        result = express(STILL, RIG, document(blink_left=[[1, 0], [1.08, 1], [1.12, 1], [1.3, 0]]))
        shut = column(result, "blink") > 0.99
        assert shut.nonzero().flatten().tolist() == [27, 28]
        assert not column(result, "blink")[:26].any()
        assert column(result, "blink")[33:].max() < 1e-9

    def test_seconds_make_the_motion_longer_or_shorter(self):
        steps = replace(STILL, latents=torch.arange(1600.0).view(100, 16))
        longer = express(steps, RIG, document(), seconds=6)
        assert len(longer) == 150
        torch.testing.assert_close(longer.latents[99:], steps.latents[-1:].expand(51, 16))
        assert len(express(steps, RIG, document(), seconds=1.5)) == 38
        one = express(Motion(torch.zeros(1, 16), 30), RIG, document(smile=[[0, 0], [1, 1]]), seconds=1)
        assert (len(one), one.fps) == (30, 30)
        assert column(one, "smile")[-1] == pytest.approx(29 / 30)

    def test_blocks_are_the_whole(self):
        moving = replace(STILL, latents=torch.rand(100, 16, generator=torch.Generator().manual_seed(2)))
        text = document(smile=[[0, 0], [2, 1], [3, -1]], gaze_horizontal=[[1, 0.5]])
        blocks = [replace(moving, latents=part) for part in moving.latents.split(17)]
        found = torch.cat([part.latents for part in express_stream(blocks, RIG, text, blinks=30, seed=4)])
        torch.testing.assert_close(found, express(moving, RIG, text, blinks=30, seed=4).latents)

    def test_no_keyframes_change_nothing(self):
        moving = replace(STILL, latents=torch.rand(100, 16))
        assert torch.equal(express(moving, RIG, "").latents, moving.latents)


class TestNames:
    def test_the_avatar_has_all_but_a_squint(self):
        assert lacking(RIG) == {"squint": "not in this rig"}
        assert one_for_both(RIG)

    def test_names_of_arkit(self):
        rig = rig_of(
            eyeBlinkLeft=(0, 0.8, 1),
            eyeBlinkRight=(0, 0.8, 1),
            browInnerUp=(0, 0.5, 1),
            browDownLeft=(0, 0.5, 1),
            browDownRight=(0, 0.5, 0.2),
            mouthSmileLeft=(0, 1, 1),
            jawOpen=(0, 1, 0.3),
        )
        assert not one_for_both(rig)
        text = document(blink_left=[[0, 1]], brows=[[0, -1]])
        result = express(Motion(torch.zeros(1, 7)), rig, text)
        assert dict(zip(rig.names, result.latents[0].tolist())) == pytest.approx(
            dict.fromkeys(rig.names, 0) | {"eyeBlinkLeft": 0.8, "browDownLeft": 0.5}
        )
        reasons = lacking(rig)
        assert reasons["mouth open"] == "too weak in this rig"
        assert reasons["squint"] == "not in this rig"
        assert "smile" not in reasons

    def test_names_as_learn_rig_gives_them(self):
        names = ("blink left", "blink right", "eyes wide", "brows", "brows down", "smile left", "smile right", "frown")
        rig = rig_of(**dict.fromkeys(names, (0, 1, 1)))
        text = document(blink_left=[[0, -0.5]], blink_right=[[0, -0.5]], brows=[[0, -1]], smile=[[0, -0.25]])
        result = express(Motion(torch.zeros(1, len(names))), rig, text)
        moved = {name: value for name, value in zip(names, result.latents[0].tolist()) if value}
        assert moved == {"eyes wide": 0.5, "brows down": 1, "frown": 0.25}
        result = express(Motion(torch.zeros(1, len(names))), rig, document(smile=[[0, 0.5]]))
        moved = {name: value for name, value in zip(names, result.latents[0].tolist()) if value}
        assert moved == {"smile left": 0.5, "smile right": 0.5}

    @pytest.mark.parametrize("name", ["-smile", "!", "Mouth 1", "笑"])
    def test_odd_names_are_names_too(self, name):
        result = express(
            Motion(torch.zeros(1, 1)), rig_of(**{name: (0, 1, 1)}), {"version": 2, "channels": {name: [[0, 1]]}}
        )
        assert result.latents.tolist() == [[1]]

    def test_any_channel_of_the_rig_has_its_own_name(self):
        result = express(STILL, RIG, document(yaw=[[0, 0.5]], mouth_wide=[[0, -1]]))
        assert column(result, "yaw").unique().tolist() == pytest.approx([15 / 40])
        assert column(result, "mouth_width").unique().tolist() == [-1]

    def test_what_the_rig_lacks_is_named_and_the_rest_is_done(self, caplog):
        with caplog.at_level(logging.WARNING):
            result = express(STILL, RIG, document(squint=[[0, 1]], tongue=[[0, 1]], smile=[[0, 1]]))
        (line,) = caplog.messages
        assert "squint (not in this rig), tongue (not in this rig)" in line
        assert column(result, "smile").unique().tolist() == [1]
        assert result.latents.count_nonzero() == 100

    def test_blinks_that_the_rig_lacks_are_named(self, caplog):
        with caplog.at_level(logging.WARNING):
            express(Motion(torch.zeros(99, 1)), rig_of(smile=(0, 1, 1)), "", blinks=20)
        assert "blink left (not in this rig)" in caplog.text

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            ({"version": 2, "channels": {"": [[0, 1]]}}, "1 to 80"),
            ({"version": 2, "channels": {3: [[0, 1]]}}, "1 to 80"),
            ({"version": 2, "channels": {"x" * 81: [[0, 1]]}}, "1 to 80"),
            ({"version": 2, "channels": {f"c{i}": [[0, 1]] for i in range(201)}}, "200 or fewer"),
            ('{"version": 2, "channels": {"smile": [[0, NaN]]}}', "not a number"),
            ('{"version": 2, "channels": {"smile": [[-1, 0]]}}', "smile"),
        ],
    )
    def test_bad_keyframes_are_one_sentence(self, content, part):
        with pytest.raises(InputError, match=part):
            express(STILL, RIG, content)

    @pytest.mark.parametrize("settings", [{"seconds": -1}, {"seconds": float("nan")}, {"blinks": 61}, {"blinks": -1}])
    def test_numbers_out_of_range(self, settings):
        with pytest.raises(InputError):
            express(STILL, RIG, "", **settings)


class TestNowAndThen:
    def test_the_rate_is_kept_with_natural_pauses(self):
        times = blink_times(17, 5, 6000)
        pauses = torch.tensor(times).diff()
        assert len(times) / 100 == pytest.approx(17, rel=0.05)
        assert pauses.min() >= expression.LEAST_PAUSE - 1e-2
        # skewed: the median lies below the mean, and some pauses are long
        assert pauses.median() < 0.9 * pauses.mean()
        assert pauses.max() > 3 * pauses.mean()

    def test_the_seed_decides(self):
        assert blink_times(17, 5, 60) == blink_times(17, 5, 60)
        assert blink_times(17, 5, 60) != blink_times(17, 6, 60)
        assert blink_times(17, 5, 30) == [time for time in blink_times(17, 5, 60) if time < 30]
        assert blink_times(0, 5, 60) == []

    @pytest.mark.parametrize("fps", [24, 25, 30, 60])
    def test_every_blink_shuts_the_eyes_and_opens_them_again(self, fps):
        result = express(Motion(torch.zeros(20 * fps, 16), fps), RIG, "", blinks=30, seed=1)
        closed = column(result, "blink")
        times = [time for time in blink_times(30, 1, 20) if time + expression.BLINK_SECONDS < 20]
        assert len(times) >= 7
        for time in times:
            assert closed[round(time * fps) : round((time + 0.3) * fps)].max() > 0.9
        runs = [key for key, _ in itertools.groupby((closed > 0.5).tolist())]
        assert runs.count(True) == len(blink_times(30, 1, 20 - 0.12))

    def test_a_drawn_blink_is_not_shut_twice(self):
        result = express(STILL, RIG, document(blink_left=[[0, 1]], blink_right=[[0, 1]]), blinks=60, allow_more=True)
        assert column(result, "blink").max() == 1


class TestPresets:
    @pytest.mark.parametrize("name", EXPRESSION_PRESETS)
    def test_they_begin_and_end_at_rest_and_stay_within_one(self, name):
        curves = expand(EXPRESSION_PRESETS[name], 1, 1, EXPRESSION)
        assert curves
        for curve in curves.values():
            assert curve[0] == (0, 0)
            assert curve[-1] == (1, 0)
            assert 0 < max(abs(value) for _, value in curve) <= 1

    def test_they_are_what_they_are_called(self):
        def at_its_height(name):
            curves = {
                key: [list(one) for one in curve] for key, curve in expand(PRESETS[name], 1, 1, EXPRESSION).items()
            }
            result = express(Motion(torch.zeros(25, 16)), RIG, {"version": 2, "channels": curves})
            return dict(zip(MOTION, result.latents[10].tolist()))

        PRESETS = EXPRESSION_PRESETS
        assert at_its_height("blink")["blink"] > 0.9
        assert at_its_height("smile")["smile"] > 0.9
        surprise = at_its_height("surprise")
        assert surprise["brows"] > 0.9
        assert surprise["mouth_open"] > 0.5
        frown = at_its_height("frown")
        assert frown["brows"] < -0.9
        assert frown["smile"] < -0.5
        assert abs(at_its_height("look_away")["gaze_x"]) > 0.3
        assert set(PRESETS) >= {"wink"}


def test_the_page_reads_the_same_names():
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    texts = [
        json.dumps(document(smile=[[0, 1]], tongue=[[0, 0.5, "hold"]])),
        '{"version": 2, "channels": {"": [[0, 1]]}}',
    ]
    script = (
        f"import {{ parse, serialise }} from '{(SCRIPTS / 'keyframes.js').as_uri()}'\n"
        f"for (const text of {json.dumps(texts)}) "
        "try { console.log(serialise(parse(text, null)).replaceAll('\\n', '')) } "
        "catch (error) { console.log(error.message) }"
    )
    lines = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
    first, second = lines.stdout.splitlines()
    assert json.loads(first) == json.loads(texts[0])
    assert "unknown name" in second
