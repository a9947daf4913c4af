"""Every odd value that a link may carry: brought to the engine's form, or refused in one sentence."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from imtalker import Control, InputError, Motion
from imtalker.face.crop import Crop


@pytest.fixture(scope="module")
def enter(pack):
    opening = pack("nodes.doors.opening")
    modules = {name: pack(f"nodes.doors.{name}") for name in ("sound", "numbers", "pictures", "ours")}

    def through(door, value, **settings):
        module, name = door.split(".")
        return opening.enter("thing", getattr(modules[module], name), value, **settings)

    return through


TONE = torch.sin(torch.arange(1600) / 5)[None, None] * 0.5


def audio(waveform=TONE, rate=16000):
    return {"waveform": waveform, "sample_rate": rate}


class TestSound:
    @pytest.mark.parametrize(
        "rate", [16000, 16000.0, np.int32(16000), np.float64(16000), torch.tensor(16000), [16000][0], "16000"]
    )
    def test_sample_rates(self, enter, rate):
        found = enter("sound.sound", audio(rate=rate))
        assert (found.sample_rate, type(found.sample_rate)) == (16000, int)

    @pytest.mark.parametrize("rate", [0, -16000, float("nan"), float("inf"), None, "fast", 1e12, [16000, 16000]])
    def test_impossible_sample_rates(self, enter, rate):
        with pytest.raises(InputError, match=r"sample rate"):
            enter("sound.sound", audio(rate=rate))

    @pytest.mark.parametrize(
        "waveform",
        {
            "three dimensions": TONE,
            "channels, samples": TONE[0],
            "samples": TONE[0, 0],
            "numpy": TONE.numpy(),
            "read-only and reversed": np.flip(TONE.numpy()[..., ::-1].copy(), -1),
            "big-endian": TONE.numpy().astype(">f4"),
            "list": TONE.tolist(),
            "list of tensors": [TONE[0, 0]],
            "float16": TONE.half(),
            "bfloat16": TONE.bfloat16(),
            "float64": TONE.double(),
            "int16": (TONE * 2**15).round().short(),
            "int32": (TONE.double() * 2**31).round().int(),
            "uint8": (TONE * 128 + 128).round().byte(),
            "with gradient": TONE.clone().requires_grad_(),
            "sparse": TONE.to_sparse(),
        }.values(),
    )
    def test_forms_of_waveforms(self, enter, waveform):
        found = enter("sound.sound", audio(waveform)).waveform
        assert (found.dtype, found.shape) == (torch.float32, (1, 1600))
        torch.testing.assert_close(found, TONE[0], atol=0.01, rtol=0)

    def test_values_beyond_sense_are_clamped(self, enter):
        found = enter("sound.sound", audio(torch.tensor([1e8, 0.5, -1e300], dtype=torch.float64))).waveform
        assert found.tolist() == [[1.0, 0.5, -1.0]]

    def test_of_a_batch_the_first_is_used(self, enter, caplog):
        assert enter("sound.sound", audio(torch.cat([TONE, 0 * TONE]))).waveform.equal(TONE[0])
        assert "only the first" in caplog.text

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (None, "no sound"),
            (audio(None), "no sound"),
            ({"samples": TONE}, "'waveform'"),
            ({"waveform": TONE}, "'sample_rate'"),
            (TONE, "a Tensor instead of sound"),
            ("speech.wav", "a str instead of sound"),
            (audio(torch.zeros(1, 1, 0)), "empty"),
            (audio(torch.zeros(0, 2, 100)), "empty"),
            (audio([]), "numbers are needed"),
            (audio("x"), "numbers are needed"),
            (audio([["a"]]), "cannot be read"),
            (audio(torch.tensor(0.5)), "unknown shape"),
            (audio(torch.zeros(1, 1, 1, 10)), "unknown shape"),
            (audio(torch.full((1, 10), float("nan"))), "NaN"),
            (audio(torch.full((1, 10), float("inf"))), "infinite"),
            (audio(TONE.to(torch.complex64)), "complex64"),
            (audio((TONE * 2**15).long()), "int64"),
            (audio(TONE > 0), "bool"),
            (audio(np.zeros((48000, 2), np.float32)), "wrong way round"),
        ],
    )
    def test_what_cannot_be_played_is_a_sentence(self, enter, value, words):
        with pytest.raises(InputError, match=words):
            enter("sound.sound", value)

    def test_a_lazy_sound_that_fails_is_silence(self, enter, pack):
        class Lazy(Mapping):
            """As VHS makes it: FFmpeg is asked when somebody looks, and raises for a silent video."""

            def __getitem__(self, key):
                raise Exception("VHS failed to extract audio from clip.mp4")

            def __iter__(self):
                raise Exception("VHS failed to extract audio from clip.mp4")

            __len__ = __iter__

        with pytest.raises(pack("nodes.doors.sound").NoSound, match="no sound"):
            enter("sound.sound", Lazy())

    @pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
    def test_no_memory_left_is_not_silence(self, enter, error):
        class Lazy(dict):
            def __getitem__(self, key):
                raise error

        with pytest.raises(type(error)):
            enter("sound.sound", Lazy())
        with pytest.raises(type(error)):
            enter("numbers.real", type("Number", (), {"__float__": lambda self: Lazy()[0]})())


class TestNumbers:
    @pytest.mark.parametrize(
        "value", [25, 25.0, True + 24, np.float32(25), np.int8(25), torch.tensor(25), torch.tensor([25.0]), "25"]
    )
    def test_of_any_kind(self, enter, value):
        for door, kind in (("numbers.real", float), ("numbers.whole", int)):
            found = enter(door, value, low=1, high=240)
            assert (found, type(found)) == (25, kind)

    def test_large_seeds_keep_every_digit(self, enter):
        for seed in (2**64 - 1, np.uint64(2**64 - 1), str(2**64 - 1)):
            assert enter("numbers.whole", seed, low=0, high=2**64 - 1) == 2**64 - 1
        # as floats, these would be 2**63
        for seed in (Decimal(2**63 + 1), Fraction(2**63 + 1), str(2**63 + 1), f"{2**63 + 1}.0"):
            assert enter("numbers.whole", seed, low=0, high=2**64 - 1) == 2**63 + 1
        assert enter("numbers.real", Fraction(1, 4)) == 0.25

    @pytest.mark.parametrize(
        "value",
        [
            None,
            "",
            "fast",
            float("nan"),
            float("inf"),
            10**400,
            1 + 2j,
            [1, 2],
            torch.zeros(3),
            np.zeros(0),
            {},
            241,
            -1,
        ],
    )
    def test_others_are_a_sentence(self, enter, value):
        for door in ("numbers.real", "numbers.whole"):
            with pytest.raises(InputError, match="thing"):
                enter(door, value, low=0, high=240)

    @pytest.mark.parametrize("value", [2.5, "2.5", np.float32(2.5), Fraction(5, 2), Decimal("2.5")])
    def test_a_whole_number_is_not_rounded_silently(self, enter, value):
        with pytest.raises(InputError, match=r"whole number, not 2.5"):
            enter("numbers.whole", value)

    @pytest.mark.parametrize("value", ["1e999999999", Decimal("sNaN"), Fraction(1, 3) + 2**70, Decimal("1e-999999")])
    def test_numbers_that_only_look_whole(self, enter, value):
        with pytest.raises(InputError, match="thing"):
            enter("numbers.whole", value, low=0)

    def test_switches_text_and_choices(self, enter):
        for value in (True, 1, 1.0, np.bool_(True), torch.tensor(True)):
            assert enter("numbers.switch", value) is True
        for value in ("False", 2, None, float("nan"), [True, False]):
            with pytest.raises(InputError, match="thing"):
                enter("numbers.switch", value)
        assert type(enter("numbers.text", np.str_("mark"))) is str
        assert enter("numbers.choice", "face", options=["face", "none"]) == "face"
        for value in (5, None, b"face", "eyes"):
            with pytest.raises(InputError, match="thing"):
                enter("numbers.choice", value, options=["face", "none"])


PICTURE = torch.rand(1, 6, 8, 3, generator=torch.Generator().manual_seed(0))


class TestPictures:
    @pytest.mark.parametrize(
        "value",
        {
            "batch": PICTURE,
            "one": PICTURE[0],
            "numpy": PICTURE.numpy(),
            "uint8": (PICTURE * 255).round().byte(),
            "float16": PICTURE.half(),
            "bfloat16": PICTURE.bfloat16(),
            "float64": PICTURE.double(),
            "list": [PICTURE[0]],
            "opaque": torch.cat([PICTURE, torch.ones(1, 6, 8, 1)], -1),
        }.values(),
    )
    def test_forms(self, enter, value):
        found = enter("pictures.pictures", value)
        assert (len(found), found.height, found.width) == (1, 6, 8)
        assert (found[0].dtype, found[0].shape) == (torch.float32, (6, 8, 3))
        torch.testing.assert_close(found[0], PICTURE[0], atol=0.01, rtol=0)

    def test_grey_is_repeated_alpha_is_over_white_and_infinity_is_white(self, enter):
        grey = enter("pictures.pictures", PICTURE[..., :1])[0]
        assert grey.equal(PICTURE[0, ..., :1].expand(-1, -1, 3))
        clear = enter("pictures.pictures", torch.tensor([0.616, 0.616, 0.616, 0.25]).expand(2, 4, 4, 4))
        assert clear[1].mean().item() == pytest.approx(0.904)
        assert enter("pictures.pictures", torch.full((1, 2, 2, 3), float("inf")))[0].min() == 1

    def test_only_what_is_taken_out_is_converted(self, enter):
        found = enter("pictures.pictures", PICTURE.expand(1000, -1, -1, -1))
        assert found.batch.untyped_storage().data_ptr() == PICTURE.untyped_storage().data_ptr()
        assert len(found[10:20]) == 10
        with pytest.raises(InputError, match="one picture, not a batch of 1000"):
            found.one("The source")

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (None, "nothing instead of pictures"),
            ("a.png", "a str instead"),
            (5, "an int instead"),
            (torch.zeros(0, 6, 8, 3), "empty"),
            (torch.zeros(1, 0, 8, 3), "empty"),
            (torch.zeros(6, 8), "shape"),
            (torch.zeros(1, 6, 8, 2), "shape"),
            (torch.zeros(1, 3, 6, 8), "shape"),
            (torch.zeros(1, 1, 6, 8, 3), "shape"),
            (torch.zeros(1, 6, 8, 3).int(), "int32"),
            (torch.zeros(1, 6, 8, 3) > 0, "bool"),
            (torch.full((2, 6, 8, 3), float("nan")), "NaN"),
            (torch.zeros(1, 1, 40000, 3), "40000x1"),
        ],
    )
    def test_others_are_a_sentence(self, enter, value, words):
        with pytest.raises(InputError, match=words):
            enter("pictures.pictures", value)


class TestMasks:
    MASK = torch.rand(5, 6, generator=torch.Generator().manual_seed(1))

    @pytest.mark.parametrize("form", ["h w", "h w 1", "1 h w", "1 1 h w", "1 h w 1"])
    def test_forms(self, enter, form):
        shape = [{"h": 5, "w": 6}.get(side, 1) for side in form.split()]
        for value in (self.MASK.reshape(shape), self.MASK.reshape(shape).numpy(), self.MASK.reshape(shape).half()):
            found = enter("pictures.masks", value)
            assert (found.shape, found.dtype) == ((1, 5, 6), torch.float32)
            torch.testing.assert_close(found[0], self.MASK, atol=1e-3, rtol=0)

    def test_whole_numbers_and_values_out_of_range(self, enter):
        assert enter("pictures.masks", torch.tensor([[0, 255]], dtype=torch.uint8)).tolist() == [[[0, 1]]]
        assert enter("pictures.masks", torch.tensor([[False, True]])).tolist() == [[[0, 1]]]
        assert enter("pictures.masks", torch.tensor([[-2.0, 7.0]])).tolist() == [[[0, 1]]]

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (None, "nothing"),
            (torch.zeros(6), "shape"),
            (torch.zeros(1, 6, 8, 3), "shape"),
            (torch.zeros(0, 6, 8), "empty"),
            (torch.full((6, 8), float("nan")), "NaN"),
        ],
    )
    def test_others_are_a_sentence(self, enter, value, words):
        with pytest.raises(InputError, match=words):
            enter("pictures.masks", value)


class TestOurs:
    CROP = Crop(-3.5, 2, 40, 60, 80)

    def test_crops(self, enter):
        assert enter("ours.crops", self.CROP) == self.CROP
        assert enter("ours.crops", (self.CROP, self.CROP)) == [self.CROP] * 2
        assert type(enter("ours.crops", Crop(True, 2, 40, 60, 80)).x) is float  # tensors cannot subtract a bool
        nan, inf = float("nan"), float("inf")
        wrong = [Crop(nan, 0, 9, 60, 80), Crop(0, 0, inf, 60, 80), Crop(0, 0, 0, 60, 80), Crop(0, 0, 1e-9, 60, 80)]
        wrong += [Crop(0, 0, 1e9, 60, 80), Crop(90, 0, 9, 60, 80), Crop(0, -20, 9, 60, 80), Crop("0", 0, 9, 60, 80)]
        for value in [None, [], [None], "crop", {"x": 1}, *wrong, [self.CROP, wrong[0]]]:
            with pytest.raises(InputError, match=r"Face Crop"):
                enter("ours.crops", value)

    def test_what_another_node_outputs_is_refused(self, enter):
        for door in ("renderer", "generator", "source", "features", "motion", "control", "rig"):
            for value in (
                None,
                5,
                "x",
                {},
                torch.zeros(1),
                object(),
                Motion(torch.zeros(2, 4)) if door != "motion" else 1,
            ):
                with pytest.raises(InputError, match=r"thing got .*: connect"):
                    enter(f"ours.{door}", value)

    def test_impossible_frame_rates(self, enter):
        with pytest.raises(InputError, match="frame rate of thing"):
            enter("ours.motion", Motion(torch.zeros(2, 4), 1e-9))
        with pytest.raises(InputError, match="frame rate of thing"):
            enter("ours.control", Control(gaze=torch.zeros(2, 2), fps=1e9))

    @pytest.mark.parametrize("fps", [np.float32(25), torch.tensor(25.0), Fraction(25), 25])
    def test_frame_rates_of_any_kind_are_floats(self, enter, fps):
        for door, value in (
            ("motion", Motion(torch.zeros(2, 4), fps)),
            ("control", Control(gaze=torch.zeros(2, 2), fps=fps)),
        ):
            found = enter(f"ours.{door}", value)
            assert (found.fps, type(found.fps)) == (25, float)

    def test_landmarks(self, enter):
        face = {
            "bbox_xyxy": torch.tensor([1.0, 2, 30, 40]),
            "transformation_matrix": np.eye(4).tolist(),
            "landmarks_xy": np.zeros((5, 2), np.float32),
            "landmarks_3d": None,
        }
        found = enter("ours.landmarks", {"frames": [[face], None, []], "image_size": torch.Size((60, 80))})
        assert [len(faces) for faces in found["frames"]] == [1, 0, 0]
        assert found["frames"][0][0]["bbox_xyxy"].tolist() == [1, 2, 30, 40]
        assert found["frames"][0][0].keys() == {"score", "bbox_xyxy", "transformation_matrix", "landmarks_xy"}
        shapes = {"blendshapes": {"jawOpen": np.float32(0.5), "cheekPuff": 0}}
        found = enter("ours.landmarks", {"frames": [[face | shapes]], "image_size": (60, 80)})
        assert found["frames"][0][0]["blendshapes"] == {"jawOpen": 0.5, "cheekPuff": 0.0}
        wrong = [
            face | {"blendshapes": shape} for shape in (5, ["jawOpen"], {"jawOpen": float("nan")}, {"jawOpen": None})
        ]
        wrong += [
            {**face, "bbox_xyxy": [1, 2, 3]},
            {**face, "bbox_xyxy": [5, 2, 5, 9]},
            {**face, "score": float("nan")},
        ]
        wrong += [{**face, "landmarks_xy": np.full((5, 2), np.nan)}, {**face, "transformation_matrix": np.eye(3)}, 5]
        values = [{"frames": [[one]], "image_size": (60, 80)} for one in wrong]
        values += [None, 5, {}, {"frames": 5, "image_size": (1, 1)}, {"frames": [5], "image_size": (60, 80)}]
        values += [{"frames": [], "image_size": (0, 80)}, {"frames": [], "image_size": "ab"}]
        for value in values:
            with pytest.raises(InputError, match="thing"):
                enter("ours.landmarks", value)
