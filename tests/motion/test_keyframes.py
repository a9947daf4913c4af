"""Keyframes: the file format, what the values mean in the image, and that the page computes the same."""

import dataclasses
import itertools
import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from imtalker import Control, InputError
from imtalker.motion import keyframes
from imtalker.motion.control import blend, merge
from imtalker.motion.keyframes import (
    CHANNELS,
    EASINGS,
    POSE,
    parse,
    to_control,
    values_at,
)
from imtalker.motion.presets import GAZE_PRESETS, POSE_PRESETS, expand

SCRIPTS = Path(__file__).parents[2] / "web/js"


def document(**channels) -> dict:
    return {"version": 2, "channels": channels}


def written(curves: dict) -> str:
    """The JSON text of curves, as the editors write it."""
    return json.dumps(document(**curves))


def turned(vector: list[float], **degrees: float) -> np.ndarray:
    """Turns a vector (x to the image's right, y up, z to the camera) of the head by a pose in degrees."""
    control = to_control(document(**{name: [[0, value]] for name, value in degrees.items()}), allow_more=True)
    return Rotation.from_rotvec(control.pose[0].double().numpy()).apply(vector)


NOSE, CROWN, LEFT_OF_PICTURE = [0, 0, 1], [0, 1, 0], [-1, 0, 0]


class TestSigns:
    def test_zero_faces_the_camera(self):
        assert not to_control(document(yaw=[[0, 0]])).pose.any()
        assert not to_control(document(horizontal=[[0, 0]])).gaze.any()

    def test_yaw_turns_the_nose_to_the_right_of_the_image(self):
        np.testing.assert_allclose(turned(NOSE, yaw=30), [0.5, 0, math.cos(math.pi / 6)], atol=1e-6)

    def test_pitch_lifts_the_nose(self):
        np.testing.assert_allclose(turned(NOSE, pitch=30), [0, 0.5, math.cos(math.pi / 6)], atol=1e-6)

    def test_roll_tilts_the_crown_to_the_right_of_the_image(self):
        np.testing.assert_allclose(turned(CROWN, roll=30), [0.5, math.cos(math.pi / 6), 0], atol=1e-6)

    def test_pitch_of_a_turned_head_is_around_its_own_ears(self):
        """Pitch lifts the nose by the same angle at any yaw, and roll does not move the nose."""
        nose = turned(NOSE, yaw=50, pitch=20, roll=35)
        assert math.degrees(math.asin(nose[1])) == pytest.approx(20, abs=1e-4)
        assert math.degrees(math.atan2(nose[0], nose[2])) == pytest.approx(50, abs=1e-4)
        assert turned(LEFT_OF_PICTURE, roll=10)[1] > 0

    def test_signs_are_those_of_smirk(self):
        pose = torch.cat([to_control(document(**{name: [[0, 10]]})).pose for name in ("pitch", "yaw", "roll")])
        torch.testing.assert_close(pose, torch.diag(torch.tensor([-1.0, 1.0, -1.0])) * math.radians(10))

    def test_signs_of_gaze_are_those_of_l2cs_net(self):
        """Its visualiser draws an arrow along (-sin a cos b, -sin b) in image coordinates, y down."""
        a, b = to_control(document(horizontal=[[0, 12]], vertical=[[0, 7]])).gaze[0].double()
        assert -a.sin() * b.cos() > 0.2
        assert -b.sin() < -0.1

    def test_camera_scales_and_shifts_as_smirk_projects(self):
        """scale * (point + shift), in half sides of the crop, y up."""
        scale, x, y = to_control(document(distance=[[0, 1.2]], x=[[0, 0.05]], y=[[0, -0.1]])).cam[0]
        assert scale == pytest.approx(keyframes.REST_SCALE / 1.2)
        assert scale * x / 2 == pytest.approx(0.05)
        assert scale * y / 2 == pytest.approx(-0.1)


class TestCurves:
    def test_one_keyframe_holds_two_make_a_line_and_none_leave_everything_free(self):
        assert values_at([(1, 5)], np.array([0, 1, 9])).tolist() == [5, 5, 5]
        np.testing.assert_allclose(values_at([(1, 0), (3, 10)], np.array([0, 1, 1.5, 3, 4])), [0, 0, 2.5, 10, 10])
        empty = to_control(document())
        assert empty.parts() == {}

    def test_curves_never_overshoot(self):
        random = np.random.default_rng(3)
        for _ in range(30):
            curve = random_curve(random, 6)
            times = np.linspace(-1, 12, 500)
            found = values_at(curve, times)
            for (t0, v0), (t1, v1) in zip(curve, curve[1:]):
                between = found[(times >= t0) & (times <= t1)]
                assert (between >= min(v0, v1) - 1e-9).all()
                assert (between <= max(v0, v1) + 1e-9).all()

    def test_smooth_curves_are_those_of_scipy(self):
        random = np.random.default_rng(5)
        for count in (3, 4, *random.integers(3, 20, 60)):
            knots, values = zip(*(curve := random_curve(random, count)))
            times = np.linspace(knots[0], knots[-1], 300)
            np.testing.assert_allclose(values_at(curve, times), PchipInterpolator(knots, values)(times), atol=1e-9)

    def test_easings(self):
        curve = [(0, 0), (1, 10, "hold"), (2, 20, "linear"), (4, 0), (6, 8)]
        times = np.array([0.5, 1, 1.5, 1.999, 2, 2.5, 3, 4, 5, 6, 7])
        found = values_at(curve, times)
        assert 5 < found[0] < 10  # smooth, and flat where it is held
        np.testing.assert_allclose(found[1:8], [10, 10, 10, 20, 15, 10, 0])
        assert 0 < found[8] < 8
        assert found[9:].tolist() == [8, 8]
        assert values_at([(0, 1, "hold"), (1, 2)], np.array([0, 0.99, 1])).tolist() == [1, 1, 2]
        control = to_control(document(yaw=[[0, 5, "hold"], [1, 20]]))
        assert control.pose[:25, 1].unique().tolist() == pytest.approx([math.radians(5)])
        assert control.pose[25, 1] == pytest.approx(math.radians(20))

    def test_channels_without_keyframes_rest_and_parts_without_any_stay_free(self):
        control = to_control(document(yaw=[[0, 10]]))
        assert control.parts().keys() == {"pose"}
        assert control.pose[0, 0] == control.pose[0, 2] == 0
        control = to_control(document(x=[[0, 0.05]]))
        assert control.parts().keys() == {"cam"}
        assert control.cam[0, 0] == pytest.approx(keyframes.REST_SCALE)

    def test_length_is_the_last_keyframe_or_the_given_seconds(self):
        text = document(yaw=[[0, 0], [2, 10]])
        assert len(to_control(text).pose) == 51
        assert to_control(text).pose[-1, 1] == pytest.approx(math.radians(10))
        assert len(to_control(text, 4).pose) == 100
        assert len(to_control(text, 1).pose) == 25
        assert torch.equal(to_control(text, 1).pose, to_control(text, 4).pose[:25])
        with pytest.raises(InputError, match="0 to 3600 seconds"):
            to_control(text, float("nan"))

    def test_values_are_limited_and_allow_more_widens_the_limits(self, caplog):
        for name, channel in CHANNELS.items():
            far = to_control(document(**{name: [[0, 1000]]}))
            edge = to_control(document(**{name: [[0, channel.high]]}))
            assert all(torch.equal(rows, edge.parts()[part]) for part, rows in far.parts().items())
            assert f"{name} ({channel.low:g} to {channel.high:g})" in caplog.text
            assert channel.wide_low < channel.low < channel.rest < channel.high < channel.wide_high
        more = to_control(document(yaw=[[0, -45]]), allow_more=True)
        assert more.pose[0, 1] == pytest.approx(-math.radians(45))


class TestText:
    def test_json_written_by_hand_reads_like_the_editors_own(self):
        by_hand = """
            { "channels": { "roll" : [ ], "yaw": [ [2, -1.0e1], [0,0], [1.00004, 7], [1, 20] ] } , "version": 1 }
        """
        drawn = '{"version": 1, "channels": {\n  "yaw": [[0, 0], [1, 20], [2, -10]]}}'
        assert parse(by_hand) == parse(drawn) == {"yaw": [(0, 0), (1, 20), (2, -10)]}
        assert torch.equal(to_control(by_hand).pose, to_control(drawn).pose)

    def test_version_1_reads_like_version_2_and_knows_no_easings(self):
        curves = {"yaw": [[0, 0], [1, 20], [2, -10]]}
        assert parse({"version": 1, "channels": curves}) == parse(document(**curves))
        assert parse(document(yaw=[[0, 1, "smooth"], [1, 2, "hold"]])) == {"yaw": [(0, 1), (1, 2, "hold")]}
        with pytest.raises(InputError, match="Keyframe 1 of channel 'yaw'"):
            parse({"version": 1, "channels": {"yaw": [[0, 1, "hold"]]}})

    def test_curves_are_read_exactly_and_empty_text_has_none(self):
        curves = {"yaw": [(0.0, 0.0), (1.04, -3.5)], "x": [(0.5, 0.05)]}
        assert parse(written(curves)) == curves
        assert parse(written({})) == parse("") == parse(" \n") == {}

    @pytest.mark.parametrize(("text", "sentence"), json.loads(Path(__file__).with_name("hostile.json").read_text()))
    def test_invalid_text_is_refused_with_a_sentence(self, text, sentence):
        with pytest.raises(InputError, match=sentence):
            parse(text)

    def test_huge_texts_are_refused(self):
        many = json.dumps(document(yaw=[[i / 1000, 0] for i in range(12_000)]))
        for text, sentence in (
            (many, "12000 keyframes"),
            (" " * 3_000_000, "3.0 MB"),
            ("[" * 100_000, "not valid JSON"),
        ):
            with pytest.raises(InputError, match=sentence):
                parse(text)
        with pytest.raises(InputError, match="not valid JSON"):
            parse('{"version": 1, "channels": {"yaw": [[0, ' + "9" * 5000 + "]]}}")

    def test_unreadable_files_are_named(self, tmp_path):
        (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
        for name in ("binary.json", "none.json"):
            with pytest.raises(InputError, match=name):
                keyframes.load(tmp_path / name)

    def test_a_channel_of_the_other_editor_is_named(self):
        with pytest.raises(InputError, match="'vertical', which is unknown here: use yaw, pitch"):
            parse(document(vertical=[[0, 1]]), POSE)


@pytest.mark.parametrize("preset", [*POSE_PRESETS.values(), *GAZE_PRESETS.values()], ids=lambda preset: preset.label)
def test_presets_fit_their_duration_and_limits(preset):
    for seconds in (0.5, 3.3, 60, keyframes.MAX_SECONDS):
        curves = expand(preset, seconds)
        assert parse(written(curves)) == curves
        assert keyframes.limit(curves) == curves
        assert max(curve[-1][0] for curve in curves.values()) <= seconds + 1e-9
        assert all(value == CHANNELS[name].rest for name, c in expand(preset, seconds, 0).items() for _, value in c)


def projected(generator, control, frames, padding):
    return generator.project_control(control or Control(), 0, frames, padding)


class TestStrength:
    def test_strength_survives_saving_and_another_frame_rate(self, tmp_path):
        control = Control(pose=torch.randn(4, 3), gaze=torch.randn(4, 2), pose_strength=0.25, gaze_strength=0.5)
        control.save(tmp_path / "c.safetensors")
        assert Control.load(tmp_path / "c.safetensors").strengths() == control.strengths()
        assert control.at_fps(50).strengths() == control.strengths()
        with pytest.raises(InputError, match="strength of cam"):
            Control(cam_strength=float("nan"))

    def test_strength_scales_the_contribution_from_none_to_full(self, generator):
        control = Control(torch.randn(30, 3) * 0.2, torch.randn(30, 3), torch.randn(30, 2) * 0.2)
        free = projected(generator, None, 30, "hold")
        full = projected(generator, control, 30, "hold")
        assert torch.equal(projected(generator, control.with_strength(0), 30, "hold"), free)
        half = projected(generator, control.with_strength(0.5), 30, "hold")
        torch.testing.assert_close(half, (free + full) / 2)
        only_gaze = Control(control.pose, control.cam, control.gaze, pose_strength=0, cam_strength=0)
        expected = projected(generator, Control(gaze=control.gaze), 30, "hold")
        assert torch.equal(projected(generator, only_gaze, 30, "hold"), expected)

    def test_zero_strength_samples_the_same_motion_as_no_control(self, generator):
        audio = generator.encode_audio(torch.randn(1, 16000), 16000)
        source = Still(generator)
        control = to_control(document(yaw=[[0, 20]], horizontal=[[0, 5]]))
        free, none, full = (
            generator.sample(audio, source, control=c, nfe=3).latents for c in (None, control.with_strength(0), control)
        )
        assert torch.equal(free, none)
        assert not torch.equal(free, full)


class TestMergeAndBlend:
    a = Control(pose=torch.zeros(4, 3), gaze=torch.zeros(4, 2), gaze_strength=0.5)
    b = Control(pose=torch.ones(6, 3), cam=torch.ones(6, 3), pose_strength=0.5)

    def test_later_controls_override_earlier_ones_with_their_strength(self):
        found = merge([self.a, self.b])
        assert found.parts().keys() == {"pose", "cam", "gaze"}
        assert torch.equal(found.pose, self.b.pose)
        assert found.strengths() == {"pose": 0.5, "cam": 1, "gaze": 0.5}

    def test_blend_interpolates_rows_and_strengths(self):
        found = blend(self.a, self.b, 0.25)
        torch.testing.assert_close(found.pose, torch.full((6, 3), 0.25))
        assert torch.equal(found.cam, self.b.cam)
        assert found.strengths() == {"pose": 0.875, "cam": 0.25, "gaze": 0.375}

    def test_a_blend_at_0_and_1_equals_its_controls(self, generator):
        for share, one in ((0, self.a), (1, self.b)):
            found = projected(generator, blend(self.a, self.b, share), 8, "hold")
            assert torch.equal(found, projected(generator, one, 8, "hold"))

    def test_a_part_with_zero_strength_does_not_count_in_a_blend(self):
        silent = Control(pose=torch.full((4, 3), 9.0), pose_strength=0)
        assert torch.equal(blend(silent, self.b, 0.5).pose, self.b.pose)
        with pytest.raises(InputError, match="share"):
            blend(self.a, self.b, 1.5)


def random_curve(random: np.random.Generator, count: int, easings: tuple[str, ...] = ()) -> keyframes.Curve:
    times = np.unique(np.round(random.uniform(0, 10, count), 3))
    values = random.choice([0, 0, 5, -5], len(times)) + random.normal(0, 5, len(times)) * random.integers(0, 2)
    pairs = list(zip(times.tolist(), values.tolist()))
    if not easings:
        return pairs
    return [
        (*pair, *([easing] if easing != "smooth" else []))
        for pair, easing in zip(pairs, random.choice(easings, len(pairs)).tolist())
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Runs a JavaScript expression on `given`, with the editors' modules as `k` and `v`."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed, so web/js/keyframes.js is not tested")
    folder = tmp_path_factory.mktemp("page")
    (folder / "package.json").write_text('{"type": "module"}')
    for name in ("keyframes.js", "view.js"):
        shutil.copy(SCRIPTS / name, folder / name)

    def run(expression: str, given: object) -> object:
        code = f"""(async () => {{
            const k = await import({json.dumps((folder / "keyframes.js").as_uri())})
            const v = await import({json.dumps((folder / "view.js").as_uri())})
            const given = JSON.parse(require("fs").readFileSync(0, "utf8"))
            console.log(JSON.stringify({expression}))
        }})()"""
        done = subprocess.run([program, "-e", code], input=json.dumps(given), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def channels():
    """As the nodes pass them to the page."""
    return {name: dataclasses.asdict(channel) for name, channel in CHANNELS.items()}


class TestInThePage:
    """web/js/keyframes.js, run by node."""

    def test_curves_are_those_of_python(self, page):
        random = np.random.default_rng(0)
        counts = (1, 2, 2, 3, 3, *random.integers(3, 20, 200))
        curves = [random_curve(random, count, easings) for count in counts for easings in ((), EASINGS)]
        times = [*np.linspace(-0.5, 10.5, 97), *[time for time, *_ in curves[-1]]]
        found = page("given[0].map(c => given[1].map(t => k.valueAt(c, t)))", [curves, times])
        expected = [values_at(curve, np.array(times)) for curve in curves]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)

    def test_presets_are_those_of_python(self, page, channels):
        presets = [*POSE_PRESETS.values(), *GAZE_PRESETS.values()]
        cases = list(itertools.product(presets, (0.7, 4, 33.337), (1, 0.35)))
        given = [[dataclasses.asdict(preset), seconds, amount] for preset, seconds, amount in cases]
        found = page("given[0].map(([p, s, a]) => k.expand(p, s, a, given[1]))", [given, channels])
        expected = [expand(*case) for case in cases]
        assert [{name: [tuple(frame) for frame in curve] for name, curve in one.items()} for one in found] == expected

    def test_it_reads_and_refuses_the_same_texts_as_python(self, page):
        hostile = [text for text, _ in json.loads(Path(__file__).with_name("hostile.json").read_text())]
        good = [
            written(expand(POSE_PRESETS["idle_sway"], 9)),
            '{"version": 1}',
            "",
            '{"version": 2, "channels": {"yaw": [[0, 1, "linear"], [1, 2, "smooth"], [2, 3, "hold"]]}}',
            '{"version": 1.0, "channels": {"yaw": [[2, 1], [0.0005, 2], [1.99951, 3], [0, 9]], "x": []}}',
        ]
        script = "given[0].map(t => { try { return k.parse(t, given[1]) } catch { return 'refused' } })"
        found = page(script, [hostile + good, list(CHANNELS)])
        assert found[: len(hostile)] == ["refused"] * len(hostile)
        tuples = [{name: [tuple(frame) for frame in c] for name, c in one.items()} for one in found[len(hostile) :]]
        assert tuples == [parse(text) for text in good]
        rewritten = page("given[0].map(t => k.serialise(k.parse(t, given[1])))", [good, list(CHANNELS)])
        assert [parse(text) for text in rewritten] == [parse(text) for text in good]

    def test_the_head_in_the_gizmo_turns_like_the_control(self, page):
        random = np.random.default_rng(1)
        cases = [(random.normal(size=3).tolist(), *random.uniform(-30, 30, 3)) for _ in range(20)]
        found = page("given.map(([v, ...angles]) => k.turned(v, ...angles))", cases)
        expected = [turned(vector, yaw=yaw, pitch=pitch, roll=roll) for vector, yaw, pitch, roll in cases]
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_moved_keyframes_pass_their_neighbours_and_stop_at_limits(self, page, channels):
        curve = [[0, 0], [1, 10], [2, 20]]
        script = """(() => { const [c, which, s, dv, channels] = given
            const r = k.moved({ yaw: c }, new Set(which.map(i => c[i])), s, { yaw: dv }, channels, false)
            return [r.curves.yaw, [...r.selected]] })()"""

        def moved(which, seconds, change):
            return page(script, [curve, which, seconds, change, channels])

        assert moved([1], 0.5, 4) == [[[0, 0], [1.5, 14], [2, 20]], [[1.5, 14]]]
        # past neighbours, onto one, before the start, over a limit
        assert moved([0], 3, 0)[0] == [[1, 10], [2, 20], [3, 0]]
        assert moved([1], 1, 0)[0] == [[0, 0], [2, 10]]
        assert moved([1, 2], -5, 0)[0] == [[0, 10], [1, 20]]
        assert moved([1, 2], 0, 15)[0] == [[0, 0], [1, 25], [2, 30]]

    def test_a_selection_is_stretched_amplified_and_keeps_its_easings(self, page, channels):
        given = [{"yaw": [[0, 0], [1, 10, "hold"], [2, 20], [3, 5]]}, channels]
        script = """(() => { const [c, channels] = given, chosen = new Set([c.yaw[1], c.yaw[2]])
            return [k.stretched(c, chosen, 1, 2).curves.yaw, k.stretched(c, chosen, 2, 0.5).curves.yaw,
                k.amplified(c, chosen, 2, channels, false).curves.yaw, k.withEasing(c, chosen, 'linear').curves.yaw,
                k.withKeyframe(c, 'yaw', 1.5, 7).yaw, JSON.parse(k.copied(c, chosen)).channels.yaw] })()"""
        assert page(script, given) == [
            [[0, 0], [1, 10, "hold"], [3, 20]],  # onto a neighbour, which it replaces
            [[0, 0], [1.5, 10, "hold"], [2, 20], [3, 5]],
            [[0, 0], [1, 20, "hold"], [2, 30], [3, 5]],
            [[0, 0], [1, 10, "linear"], [2, 20, "linear"], [3, 5]],
            [[0, 0], [1, 10, "hold"], [1.5, 7, "hold"], [2, 20], [3, 5]],
            [[0, 10, "hold"], [1, 20]],
        ]

    def test_a_preset_is_inserted_where_it_is_wanted_and_never_past_the_end(self, page, channels):
        preset = dataclasses.asdict(POSE_PRESETS["nod"])
        before = {"pitch": [[0, 5], [2, 7], [3.9, 6]], "yaw": [[1.5, 3]]}

        def inserted(**where):
            script = "k.inserted(given[0], given[1], given[2], given[3], false)"
            return page(script, [before, preset, {"amount": 1, "end": 4, **where}, channels])

        found = inserted(start=1, seconds=1.6)
        assert found["curves"]["yaw"] == before["yaw"]
        times = [time for time, _ in found["curves"]["pitch"]]
        assert times == [0, 1, 1.4, 1.8, 2.2, 2.6, 3.9]
        for start, seconds, span in ((3.5, 1.6, [2.4, 4]), (0.5, 60, [0, 4]), (4, 4, [0, 4])):
            found = inserted(start=start, seconds=seconds)
            assert [found["from"], found["to"]] == span
            assert found["curves"]["pitch"][-1][0] == 4
        assert len(inserted(start=0, seconds=600, end=600)["curves"]["pitch"]) > 1000  # if that is what is wanted
        assert len(inserted(start=0, seconds=1.6, end=600)["curves"]["pitch"]) == 7

    def test_pasted_keyframes_can_be_read_again(self, page):
        part = {"yaw": [[0, 1], [1, 2], [2, 3]]}
        found = page("k.pasted({}, given, 3599.5).curves", part)
        assert parse(written(found)) == {"yaw": [(3599.5, 1), (3600, 3)]}

    def test_views_stay_inside_and_zoom_around_a_point(self, page):
        def view(expression: str) -> object:
            return page(expression, None)

        assert view("v.zoomed(null, 100, 25, 0.5)") == {"start": 12.5, "seconds": 50}
        assert view("v.zoomed({ start: 12.5, seconds: 50 }, 100, 25, 2)") is None  # all of it again
        assert view("v.zoomed(null, 3600, 1800, 1e-9)") == {"start": pytest.approx(1799.95), "seconds": 0.1}
        assert view("v.scrolled({ start: 90, seconds: 5 }, 100, 50)") == {"start": 95, "seconds": 5}
        assert view("v.fitted({ start: 90, seconds: 5 }, 50)") == {"start": 45, "seconds": 5}
        assert view("v.revealing({ start: 0, seconds: 10 }, 100, 50)") == {"start": 41, "seconds": 10}
        labels = "[[1.04, false], [75, false], [3600.04, false], [1.04, true]].map(given => v.timeLabel(...given))"
        assert view(labels) == ["1.04", "1:15", "60:00.04", "26"]


class Still:
    """A source with only what the generator reads: its motion."""

    def __init__(self, generator):
        self.motion, self.generation = torch.zeros(1, generator.config.motion_size), generator.generation


@pytest.fixture(scope="module")
def generator():
    from tiny import tiny_generator

    return tiny_generator()
