"""Dubbing: the mouth says the new words, and the rest of the clip stays as it was."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_generator, tiny_renderer

from imtalker import InputError, dub
from imtalker.avatar.readback import correlation
from imtalker.drawn import example as drawn
from imtalker.drawn.head import MOTION
from imtalker.dubbing import plan as planning
from imtalker.dubbing.mouth import Manner, Mouth, loudness
from imtalker.dubbing.plan import DUBBED, NO_FACE, OTHER_SHOT, Following, study
from imtalker.dubbing.redraw import lower_face
from imtalker.face.crop import Box, Crop, centre_crop
from imtalker.face.follow import FaceNotFound
from imtalker.media.audio import Audio, AudioFile
from imtalker.media.mixing import Mixed
from imtalker.media.video import VideoReader
from imtalker.media.video_writer import write_video
from imtalker.motion.motion import Motion
from imtalker.motion.rig import Rig
from imtalker.weights.checkpoints import AVATAR

FPS = 30
BOX = Box(40, 20, 80, 60)


@pytest.fixture(scope="module")
def engines():
    return tiny_renderer("v2"), tiny_generator("v2")


def scene(seed, frames=12, height=72, width=128):
    """Frames (T,H,W,3), uint8, of one view in which something moves a little."""
    random = torch.Generator().manual_seed(seed)
    view = F.interpolate(torch.rand(1, 3, 6, 9, generator=random), (height, width), mode="bicubic").clamp(0, 1)[0]
    moved = (view.roll(number % 3, dims=2) for number in range(frames))
    return torch.stack([(255 * frame).round().byte().movedim(0, -1) for frame in moved])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """24 frames of 128 x 72 at 30 a second, with 0.8 s of sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, scene(1, 24), FPS, Audio(drawn.speech(0.8).waveform, 22050), crf=0)
    return path


def spoken(seconds):
    return Audio(drawn.speech(seconds).waveform, 22050)


def finds(monkeypatch, boxes):
    """A detector that finds these boxes, a list for each frame."""
    upcoming = iter(boxes)
    monkeypatch.setattr(planning, "open_detector", lambda *where: lambda frame: next(upcoming))


class TestPlan:
    def test_frames_without_the_face_are_left_alone_and_counted(self, monkeypatch):
        finds(monkeypatch, [[BOX]] * 30 + [[]] * 10 + [[BOX]] * 10 + [[]] * 3 + [[BOX]] * 17)
        plan = study(scene(1, 70), 25, Following())
        assert (plan.reasons[30:40] == NO_FACE).all()
        assert int((plan.reasons == DUBBED).sum()) == 60, "a face that is lost for a moment is still there"
        assert (plan.opacity[30:40] == 0).all()
        assert plan.report() == (
            "60 of 70 frames are dubbed; left as they are: 10 that do not show the face (frames 31 to 40)."
        )
        # softly into and out of what is left alone, but not at the ends of the clip
        assert plan.share[0] == plan.share[-1] == 1
        assert 0 < plan.share[29] < plan.share[25] < plan.share[20]
        assert 0 < plan.opacity[40] < plan.opacity[41] < plan.opacity[45] == 1

    def test_another_shot_is_left_alone_and_nothing_reaches_across_the_cut(self, monkeypatch):
        moved = Box(BOX.x0 + 15, BOX.y0, BOX.x1 + 15, BOX.y1)
        finds(monkeypatch, [[BOX]] * 12 + [[BOX]] * 12 + [[moved]] * 12)
        plan = study(torch.cat([scene(1), scene(2), scene(1)]), 25, Following())
        assert plan.reasons.tolist() == [DUBBED] * 12 + [OTHER_SHOT] * 12 + [DUBBED] * 12
        assert (plan.share[plan.reasons == DUBBED] == 1).all()
        assert (plan.squares[:12] == plan.squares[0]).all(), "the square does not move towards that of the next shot"
        assert "12 that belong to another shot (frames 13 to 24)" in plan.report()

    def test_every_shot_is_dubbed_where_that_is_wanted(self, monkeypatch):
        other = Box(10, 10, 40, 40)
        finds(monkeypatch, [[BOX]] * 12 + [[other]] * 12)
        plan = study(torch.cat([scene(1), scene(2)]), 25, Following(shots="every shot", tracking="steady"))
        assert (plan.reasons == DUBBED).all()
        assert plan.squares[11, 2] == pytest.approx(1.6 * BOX.side)
        assert plan.squares[12, 2] == pytest.approx(1.6 * other.side)

    def test_which_face_as_in_face_crop(self, monkeypatch):
        left, right = Box(5, 20, 35, 50), Box(80, 20, 110, 50)
        finds(monkeypatch, [[right, left]] * 6)
        plan = study(scene(1, 6), 25, Following("left to right", 1))
        assert plan.faces[0].tolist() == pytest.approx([95, 35, 30])
        finds(monkeypatch, [[left]] * 6)
        with pytest.raises(InputError, match="no face number 1"):
            study(scene(1, 6), 25, Following("left to right", 1))
        finds(monkeypatch, [[]] * 6)
        with pytest.raises(FaceNotFound, match="any of 6 frames"):
            study(scene(1, 6), 25, Following())

    def test_a_moving_head_is_followed_smoothly_or_stays_in_a_steady_square(self, monkeypatch):
        track = [[Box(20 + n, 20, 60 + n, 60)] for n in range(40)]
        for tracking, moves in (("smooth", True), ("steady", False)):
            finds(monkeypatch, track)
            plan = study(scene(1, 40), 25, Following(tracking=tracking))
            assert bool((plan.squares[:, 0].diff() > 0).all()) is moves
            assert (plan.faces[:, 0].diff() > 0).all(), "the mask follows the face either way"

    def test_unknown_words(self):
        for wrong in ({"tracking": "wild"}, {"shots": "none"}, {"crop": "face"}):
            with pytest.raises(InputError, match=next(iter(wrong.values()))):
                Following(**wrong)


class TestWholeClip:
    def test_outside_the_mask_nothing_changes(self, engines, clip):
        made = dub(*engines, clip, spoken(1), rig="none", crop=Crop(40, 10, 48, 72, 128))
        assert (made.fps, made.count) == (FPS, 24)
        frames = torch.cat(list(made.blocks))
        original = torch.stack(list(VideoReader(clip)))
        same = (frames * 255).round().byte() == original
        assert same[:, :, :40].all()
        assert same[:, :, 88:].all()
        assert same[:, :10].all()
        assert not same[:, 36:50, 56:72].all(), "the mouth is another"

    @pytest.mark.parametrize(("seconds", "ending", "count"), [(0.5, "cut", 15), (1.5, "cut", 24), (0.5, "hold", 24),
                                                               (1.5, "hold", 45), (1.5, "ping-pong", 45)])  # fmt: skip
    def test_speech_of_another_length(self, engines, clip, tmp_path, seconds, ending, count):
        made = dub(*engines, clip, spoken(seconds), rig="none", crop="none", ending=ending, nfe=2)
        assert made.save(tmp_path / "o.mp4") == count
        with VideoReader(tmp_path / "o.mp4") as reader:
            assert (reader.fps, reader.width, reader.height) == (FPS, 128, 72)
            assert sum(1 for _ in reader) == count
        assert AudioFile(tmp_path / "o.mp4").seconds == pytest.approx(count / FPS, abs=0.05)  # AAC comes in blocks

    def test_a_resumed_render_gives_the_same_frames(self, engines, clip):
        def frames(first=None, batch_size=5):
            settings = {"rig": "none", "crop": "none", "ending": "ping-pong", "nfe": 2, "batch_size": batch_size}
            return torch.cat(list(dub(*engines, clip, spoken(3.4), first=first, **settings).blocks))

        whole = frames()
        assert torch.equal(frames(96), whole[96:])
        torch.testing.assert_close(frames(96, batch_size=1), whole[96:], rtol=0, atol=1e-4)

    def test_only_what_the_mask_shows_is_changed(self, engines, clip):
        mask = torch.zeros(1, 72, 128)
        mask[:, 40:50, 60:70] = 1
        made = dub(*engines, clip, spoken(0.3), rig="none", crop="none", mask=mask)
        frames, original = torch.cat(list(made.blocks)), torch.stack(list(VideoReader(clip)))[:9]
        changed = ((frames * 255).round().byte() != original).any(dim=3)
        assert changed.any()
        assert not changed[:, mask[0] == 0].any()
        with pytest.raises(InputError, match="3 masks do not match the clip's 9 frames"):
            dub(*engines, clip, spoken(0.3), rig="none", crop="none", mask=mask.expand(3, -1, -1))

    def test_what_is_wrong_is_said(self, engines, clip):
        for setting, words in (
            ({"ending": "loop"}, "cannot end by 'loop'"), ({"strength": 3.0}, "strength must be from 0 to 2"),
            ({"gate": 1.0}, "gate"), ({"keep_sound": 2.0}, "volume"), ({"lower_face": 2.0}, "lower_face"),
            ({"head": 0.5}, "No rig tells the head"), ({"frames": 0}, "At least 1 frame"),
            ({"rig": Rig.load(AVATAR / "rig.safetensors")}, "the rig"),
        ):  # fmt: skip
            with pytest.raises(InputError, match=f"(?i){words}"):
                dub(*engines, clip, spoken(0.3), **{"rig": "none", "crop": "none"} | setting)
        with pytest.raises(InputError, match="generation"):
            dub(engines[0], tiny_generator("v1"), clip, spoken(0.3), rig="none", crop="none")
        with pytest.raises(TypeError, match="no setting 'size'"):
            dub(*engines, clip, spoken(0.3), size=3)


def test_the_mask_is_soft_and_lies_on_the_lower_face():
    crop, face = Crop(100, 50, 160, 400, 400), (180, 130, 100)
    for amount in (0.0, 0.5, 1.0):
        mask = lower_face(crop, face, amount, 160)  # a pixel each
        assert mask[80 + 25, 80] == 1, "the mouth, a quarter of the box below its middle"
        assert mask[:40].max() == 0, "nothing above the eyes"
        assert mask.diff(dim=0).abs().max() < 0.3
        assert max(mask[0].max(), mask[:, 0].max(), mask[:, -1].max()) == 0
    assert lower_face(crop, face, 1.0).sum() > 2 * lower_face(crop, face, 0.0).sum()
    moved = lower_face(crop, (190, 130, 100), 0.5, 160)
    torch.testing.assert_close(moved[:, 10:], lower_face(crop, face, 0.5, 160)[:, :-10], rtol=0, atol=1e-4)


class TestMouth:
    def test_the_level_is_that_of_each_frame(self):
        levels = loudness(Audio(torch.cat([torch.full((1, 8000), 0.1), torch.zeros(1, 8320)], dim=1), 16000))
        assert levels.tolist() == pytest.approx([-20.0] * 12 + [-23.0] + [-120.0] * 13, abs=0.02)

    def test_silence_shuts_the_mouth_and_only_the_mouth_is_new(self, avatar):
        mouth = Mouth(avatar.generator, Rig.load(AVATAR / "rig.safetensors"), Manner(cfg=1.0))
        own = Motion(0.3 * torch.randn(60, 16, generator=torch.Generator().manual_seed(1)))
        rows = {}
        for name, sound in (("words", spoken(2)), ("silence", Audio(torch.zeros(1, 32000), 16000))):
            wanted = torch.cat([block.latents for block in mouth.wanted(avatar.source, sound, None, 60)])[:60]
            rows[name] = mouth.change(own, wanted, torch.ones(60)).latents
        mouths = [MOTION.index(name) for name in ("mouth_open", "mouth_width", "mouth_round", "smile")]
        others = [value for value in range(14) if value not in mouths]
        torch.testing.assert_close(rows["words"][:, others], own.latents[:, others], rtol=0, atol=1e-5)
        opened = [rows[name][:, MOTION.index("mouth_open")] for name in ("words", "silence")]
        assert opened[0][:45].std() > 0.05
        assert opened[1].abs().max() < 0.1
        assert opened[0][58:].abs().max() < 0.1, "it also rests after the speech"

    def test_strength_scales_the_movement_about_rest(self, avatar):
        rig = Rig.load(AVATAR / "rig.safetensors")

        def opened(**manner):
            mouth = Mouth(avatar.generator, rig, Manner(cfg=1.0, **manner))
            wanted = mouth.wanted(avatar.source, spoken(2), None, 50)
            return torch.cat([block.latents for block in wanted])[:50, MOTION.index("mouth_open")]

        one, twice = opened(), opened(strength=2.0)
        assert correlation(one, twice) > 0.999
        assert twice.std() == pytest.approx(2 * one.std().item(), rel=1e-3)
        assert opened(strength=0.0).std() < 1e-4

    def test_the_heads_own_movement_can_be_steadied(self, avatar):
        mouth = Mouth(avatar.generator, Rig.load(AVATAR / "rig.safetensors"), Manner(head=0.25))
        own = Motion(0.3 * torch.randn(9, 16, generator=torch.Generator().manual_seed(1)))
        pose = own.latents[:1].expand(9, -1)
        changed = mouth.change(own, own.latents, torch.ones(9), pose).latents - pose
        for name, left in (("yaw", 0.25), ("roll", 0.25), ("blink", 1.0), ("brows", 1.0)):
            number = MOTION.index(name)
            torch.testing.assert_close(changed[:, number], left * (own.latents - pose)[:, number], rtol=0, atol=1e-5)

    def test_a_head_that_turns_away_fades_to_the_frame_as_it_is(self, avatar):
        rig = Rig.load(AVATAR / "rig.safetensors")
        own = torch.zeros(4, 16)
        own[:, MOTION.index("yaw")] = torch.tensor([0.0, -0.8, 1.0, -1.2])  # of 40 degrees
        facing = Mouth(avatar.generator, rig, Manner()).facing(Motion(own)).tolist()
        assert facing == [1, 1, pytest.approx(0.5, abs=0.01), 0]
        asked = replace(rig, channels=tuple(replace(channel, origin="generator") for channel in rig.channels))
        assert Mouth(avatar.generator, asked, Manner()).facing(Motion(own)).tolist() == [1, 1, 1, 1]

    def test_without_a_rig_the_speech_s_difference_is_added(self, engines):
        renderer, generator = engines
        person = renderer.encode_source(torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1)))
        mouth = Mouth(generator, None, Manner())
        same = torch.cat([b.latents for b in mouth.wanted(person, spoken(2), spoken(2), 60)])
        # its own words change nothing where they are heard
        assert same[5:45].abs().max() < 1e-5
        other = torch.cat([b.latents for b in mouth.wanted(person, spoken(2), None, 60)])
        assert other[5:45].abs().max() > 1e-3
        assert len(other) >= 60


def test_two_sounds_as_one():
    over = Audio(0.5 * torch.ones(1, 8000), 8000)
    under = Audio(torch.stack([torch.ones(32000), -torch.ones(32000)]), 16000)
    mixed = Mixed(over, under, 0.25)
    assert (mixed.sample_rate, mixed.samples, mixed.seconds) == (8000, 16000, 2)
    whole = torch.cat(list(mixed.blocks()), dim=1)
    assert whole.shape == (2, 16000)
    for channel, sign in ((0, 1), (1, -1)):
        torch.testing.assert_close(whole[channel, 200:7800], torch.full((7600,), 0.5 + 0.25 * sign), rtol=0, atol=1e-3)
        torch.testing.assert_close(whole[channel, 8200:15800], torch.full((7600,), 0.25 * sign), rtol=0, atol=1e-3)
    assert torch.cat(list(Mixed(under, over, 1.0).blocks()), dim=1).max() == 1, "it is clipped"


def test_the_kept_sound_lies_under_the_speech(engines, clip, tmp_path):
    silence = Audio(torch.zeros(1, 16000), 16000)
    loud = {}
    for volume in (0.0, 0.5):
        made = dub(*engines, clip, silence, rig="none", crop="none", keep_sound=volume, frames=15, nfe=2)
        made.save(tmp_path / "o.mp4")
        loud[volume] = torch.cat(list(AudioFile(tmp_path / "o.mp4").blocks()), dim=1).std().item()
    assert loud[0.0] < 1e-3 < loud[0.5]


def test_the_middle_of_a_framed_clip(engines, clip):
    plan = study(VideoReader(clip), FPS, Following(crop="none"))
    assert plan.crop(3) == centre_crop(72, 128)
