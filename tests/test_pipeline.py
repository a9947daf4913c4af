"""From files to a file: counts, durations, audio; and the answers to bad input."""

import math
from dataclasses import replace

import av
import pytest
import torch
from meaning import PERSON, TALK, backwards, follows, mouth_in, pictures, sentence, value, yaw_in
from tiny import renderer_config, tiny_generator, tiny_renderer
from torch.utils._python_dispatch import TorchDispatchMode

from imtalker import InputError, media, models, motion_stream, pipeline, reenact, session, talk
from imtalker.avatar.readback import by_lag, correlation
from imtalker.drawn import example as drawn
from imtalker.drawn.head import MOTION, MOTION_SIZE
from imtalker.drawn.people import random_appearances
from imtalker.drawn.portraits import draw
from imtalker.face import follow
from imtalker.face.crop import Box, Crop
from imtalker.media.audio import Audio, read_audio
from imtalker.media.video import VideoReader
from imtalker.media.video_writer import write_video
from imtalker.motion.motion import Motion
from imtalker.weights.untrained import untrained_renderer


@pytest.fixture(scope="module")
def renderer():
    return tiny_renderer()


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


def read(path):
    """Frames, their rate, seconds of audio from the container (a decoder adds up to a block), sample rate."""
    with av.open(str(path)) as container:
        track = container.streams.audio[0]
        seconds = float(track.duration * track.time_base)
    with VideoReader(path) as reader:
        return torch.stack(list(reader)), reader.fps, seconds, track.sample_rate


@pytest.mark.parametrize("fps", [25, 24, 29.97])
def test_talk_to_a_file(renderer, generator, inputs, tmp_path, fps):
    clip = talk(renderer, generator, inputs / "portrait.png", inputs / "speech.wav", fps=fps, nfe=3, crop="none")
    assert clip.count == math.ceil(2.0 * clip.fps)
    assert clip.save(tmp_path / "out.mp4") == clip.count
    frames, rate, seconds, sample_rate = read(tmp_path / "out.mp4")
    assert frames.shape == (clip.count, 64, 64, 3)
    assert rate == clip.fps
    assert seconds == pytest.approx(float(clip.count / clip.fps), abs=1e-3)
    assert sample_rate == 22050


def test_lips_and_sound_of_the_file_are_in_sync_with_the_speech(avatar, tmp_path):
    speech = sentence(3.0, pause=0.6)
    clip = talk(avatar.renderer, avatar.generator, drawn.portrait(), speech, fps=30, **TALK)
    clip.save(tmp_path / "o.mp4")
    found, wanted = read_audio(tmp_path / "o.mp4").waveform[0], speech.waveform[0]
    count = min(len(found), len(wanted))
    alike = torch.fft.irfft(torch.fft.rfft(found[:count]) * torch.fft.rfft(wanted[:count]).conj())
    lag = alike.argmax().item()
    lag = lag - count if lag > count // 2 else lag
    assert abs(lag) / speech.sample_rate < 1 / 25
    assert alike.max() / (found.norm() * wanted.norm()) > 0.9
    # the lips follow the audio
    heard = read_audio(tmp_path / "o.mp4")
    opened = mouth_in(pictures(tmp_path / "o.mp4"))
    with_own, lag = follows(opened, heard, 30)
    assert with_own > 0.5
    assert abs(lag) <= 1
    assert follows(opened, backwards(speech), 30)[0] < with_own - 0.3
    silent = opened[-12:]
    assert silent.max() < opened.quantile(0.5) < opened.max() - 0.1


def test_first_frames_are_those_of_the_whole(renderer, generator, inputs):
    settings = {"nfe": 3, "crop": "none"}
    whole, start = (
        torch.cat(list(talk(renderer, generator, drawn.portrait(64), drawn.speech(), frames=frames, **settings).blocks))
        for frames in (60, 7)
    )
    assert len(start) == 7
    torch.testing.assert_close(whole[:7], start, rtol=0, atol=1e-5)


def test_frames_past_the_end_are_not_made(renderer, generator):
    assert talk(renderer, generator, drawn.portrait(), drawn.speech(1), crop="none", frames=99).count == 25
    with pytest.raises(InputError, match="At least 1 frame"):
        talk(renderer, generator, drawn.portrait(), drawn.speech(1), crop="none", frames=0)


@pytest.mark.parametrize(("fps", "count"), [(None, 21), (15, 11), (60, 42)])
def test_reenact_to_a_file(renderer, inputs, tmp_path, fps, count):
    clip = reenact(renderer, inputs / "portrait.png", inputs / "driving.mp4", fps=fps, crop="none")
    assert clip.save(tmp_path / "out.mp4") == count == clip.count
    frames, rate, seconds, sample_rate = read(tmp_path / "out.mp4")
    assert frames.shape == (count, 64, 64, 3)
    assert rate == (fps or 30)
    assert seconds == pytest.approx(float(count / rate), abs=1e-3)
    assert sample_rate == 44100


@pytest.mark.parametrize("driver", [PERSON, random_appearances(1, seed=5)], ids=["self", "cross"])
def test_reenact_follows_the_driving_video(avatar, tmp_path, driver):
    """A head that turns from side to side and speaks, at 24 frames a second; the same at 30, at the same times."""
    time = torch.arange(30) / 24
    motion = torch.zeros(len(time), MOTION_SIZE)
    motion[:, MOTION.index("yaw")] = 0.5 * (6.2832 * time / 1.25).sin()
    motion[:, MOTION.index("mouth_open")] = 0.5 - 0.5 * (6.2832 * time / 0.5).cos()
    shown = draw(driver.repeat_interleave(len(time)), motion, 128).permute(0, 2, 3, 1)
    write_video(tmp_path / "driving.mp4", shown, 24)
    clip = reenact(avatar.renderer, drawn.portrait(), tmp_path / "driving.mp4", fps=30, crop="none")
    frames = torch.cat(list(clip.blocks)).permute(0, 3, 1, 2)
    asked = Motion(motion, 24.0).at_fps(30.0, len(frames)).latents
    assert correlation(yaw_in(frames, asked), value(asked, "yaw")) > 0.8
    by_time = by_lag(mouth_in(frames, asked), value(asked, "mouth_open"), range(-3, 4))
    assert by_time[0] > 0.6
    assert abs(max(by_time, key=by_time.get)) <= 1


@pytest.mark.parametrize("relative", ["first", 0, "neutral"])
def test_relative_reenactment_keeps_the_portraits_own_pose(avatar, tmp_path, relative):
    """The driver looks to its left all the time and nods its head to and fro there; the portrait faces the camera."""
    time = torch.arange(30) / 25
    changes = 0.3 * (6.2832 * time).sin()
    motion = torch.zeros(len(time), MOTION_SIZE)
    motion[:, MOTION.index("yaw")] = 0.4 + changes
    shown = draw(PERSON.repeat_interleave(len(time)), motion, 128).permute(0, 2, 3, 1)
    write_video(tmp_path / "driving.mp4", shown, 25)
    yaws = []
    for setting in (None, relative):
        clip = reenact(avatar.renderer, drawn.portrait(), tmp_path / "driving.mp4", crop="none", relative=setting)
        yaws.append(yaw_in(torch.cat(list(clip.blocks)).permute(0, 3, 1, 2)))
        assert correlation(yaws[-1], changes) > 0.9
    absolute, kept = yaws
    assert absolute.mean() > 0.3
    assert kept[:2].abs().max() < 0.1
    assert kept.mean().abs() < 0.1


def test_relative_reenactment_resumes_and_names_a_missing_frame(renderer, inputs):
    settings = {"crop": "none", "frames": 120, "fps": 200}
    for relative in ("first", 3, "mean"):
        whole, rest = (
            torch.cat(list(reenact(renderer, *inputs_of(inputs), relative=relative, first=first, **settings).blocks))
            for first in (0, 96)
        )
        torch.testing.assert_close(whole[96:], rest, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="has no frame 500"):
        reenact(renderer, *inputs_of(inputs), relative=500, crop="none")


def inputs_of(folder):
    return folder / "portrait.png", folder / "driving.mp4"


def test_the_motion_stands_still_where_the_driving_video_shows_no_face(avatar, tmp_path, monkeypatch, caplog):
    shown = torch.rand(20, 8, 8, 3, generator=torch.Generator().manual_seed(2)).repeat_interleave(8, 1)
    shown = shown.repeat_interleave(8, 2)
    shown[6:15] = 0
    write_video(tmp_path / "driving.mp4", shown, 25)
    find = lambda frame: [Box(16, 16, 48, 48)] if frame.max() > 0.5 else []  # noqa: E731
    monkeypatch.setattr(follow, "open_detector", lambda *args: find)
    clip = reenact(avatar.renderer, drawn.portrait(), tmp_path / "driving.mp4")
    frames = torch.cat(list(clip.blocks))
    moves = frames.diff(dim=0).abs().amax((1, 2, 3))
    assert moves[5:14].max() < 1e-5
    assert moves[:5].min() > 1e-4
    assert [record.getMessage() for record in caplog.records if "stands still" in record.getMessage()] == [
        "No face was found in frames 7 to 15 (0.2 to 0.6 s): the motion stands still there."
    ]


def test_a_given_crop_is_used(renderer, generator):
    picture = torch.zeros(1, 100, 200, 3)
    picture[:, :64, 130:194] = drawn.portrait(64)
    cut = talk(renderer, generator, picture, drawn.speech(0.2), nfe=2, crop=Crop(130, 0, 64, 100, 200))
    alone = talk(renderer, generator, drawn.portrait(64), drawn.speech(0.2), nfe=2, crop="none")
    torch.testing.assert_close(torch.cat(list(cut.blocks)), torch.cat(list(alone.blocks)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "picture",
    [
        torch.rand(1, 8, 8, 3),
        torch.rand(1, 64, 64, 1),
        torch.rand(1, 64, 64, 4),
        torch.rand(1, 40, 90, 3),
        torch.rand(64, 64, 3),
        (torch.rand(1, 64, 64, 3) * 255).byte(),
    ],
    ids=["8x8", "grey", "alpha", "not square", "no batch", "bytes"],
)
def test_odd_pictures_work(renderer, generator, picture):
    blocks = list(talk(renderer, generator, picture, drawn.speech(0.1), nfe=2, crop="none").blocks)
    assert torch.cat(blocks).shape == (3, 64, 64, 3)


def test_a_huge_picture_works(renderer, generator):
    picture = torch.zeros(1, 8000, 8000, 3)
    assert talk(renderer, generator, picture, drawn.speech(0.1), nfe=2, crop="none").count == 3


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (11025, 6), (44100, 2), (96000, 1), (192000, 6)])
def test_any_rate_and_channels(renderer, generator, rate, channels, tmp_path):
    sound = Audio(0.1 * torch.randn(channels, rate // 5), rate)
    clip = talk(renderer, generator, drawn.portrait(64), sound, nfe=2, crop="none")
    assert clip.save(tmp_path / "o.mp4") == 5


class WholeCopies(TorchDispatchMode):
    """Counts new float tensors (not views) that have as many values as one of the named inputs."""

    def __init__(self, **sizes):
        super().__init__()
        self.sizes, self.found = sizes, dict.fromkeys(sizes, 0)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
            for name, size in self.sizes.items():
                self.found[name] += result.numel() == size and result.untyped_storage().data_ptr() not in given
        return result


def test_a_picture_and_a_sound_are_checked_once(renderer, generator, tmp_path, monkeypatch):
    """On the way to the file each is checked once, the picture is copied once and the sound never."""
    checks = []

    def count(name, *modules):
        check = getattr(modules[0], name)

        def counting(*arguments):
            if arguments[0].numel() > 48000:  # not the half second of silence that the beginning is found with
                checks.append(name)
            return check(*arguments)

        for module in modules:
            monkeypatch.setattr(module, name, counting)

    count("check_image", media.image, pipeline, models.renderer)
    count("check_waveform", media.audio, motion_stream)
    picture, waveform = torch.rand(1, 1400, 1500, 3), 0.1 * torch.randn(2, 48000 * 40)
    with WholeCopies(picture=picture.numel(), sound=waveform.numel()) as copies:
        sound = Audio(waveform, 48000)
        clip = talk(renderer, generator, picture, sound, nfe=2, crop=Crop(10, 20, 500, 1400, 1500), frames=3)
        assert clip.save(tmp_path / "o.mp4") == 3
    assert checks == ["check_waveform", "check_image"]
    assert copies.found == {"picture": 1, "sound": 0}


def test_direct_calls_of_the_public_functions_are_checked_too(renderer, generator):
    nowhere = float("nan")
    with pytest.raises(InputError, match="NaN"):
        renderer.encode_source(torch.full((1, 64, 64, 3), nowhere))
    with pytest.raises(InputError, match="NaN"):
        generator.encode_audio(torch.full((1, 640), nowhere), 16000)
    source = renderer.encode_source(drawn.portrait(64))
    with pytest.raises(InputError, match="NaN"):
        session.Session(renderer, generator, source, sample_rate=16000).feed(torch.full((640,), nowhere))


def test_bad_input_is_answered_with_a_sentence(renderer, generator, tmp_path, inputs):
    portrait, sound = drawn.portrait(64), drawn.speech(0.2)
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "broken.wav").write_text("no sound")
    wrong = [
        (torch.rand(2, 64, 64, 3), sound, "batch of 2"),
        (torch.full((1, 64, 64, 3), float("nan")), sound, "NaN|not numbers|finite"),
        (tmp_path / "none.png", sound, "none.png"),
        (tmp_path / "broken.png", sound, "broken.png"),
        (portrait, tmp_path / "none.wav", "none.wav"),
        (portrait, tmp_path / "broken.wav", "broken.wav"),
        (portrait, inputs / "portrait.png", "portrait.png"),
    ]
    for image, audio, words in wrong:
        with pytest.raises(InputError, match=words) as error:
            talk(renderer, generator, image, audio, crop="none")
        assert str(error.value).count("\n") == 0
    for waveform, words in ((torch.zeros(1, 0), "empty"), (torch.full((1, 9), float("nan")), "NaN")):
        with pytest.raises(InputError, match=words):
            Audio(waveform, 16000)
    with pytest.raises(InputError, match=r"speech\.wav"):
        reenact(renderer, portrait, inputs / "speech.wav")


def test_generations_do_not_mix(generator, inputs):
    with pytest.raises(InputError, match="The generator is v2 but the source is v1"):
        talk(tiny_renderer("v1"), generator, drawn.portrait(64), drawn.speech(0.1), crop="none")


def test_models_of_other_motions_do_not_mix(generator):
    """The project's own small models and the published ones are both v2."""
    other = untrained_renderer(replace(renderer_config("v2"), motion_size=4))
    with pytest.raises(InputError, match="generator has 8 values per frame but the source has 4"):
        talk(other, generator, drawn.portrait(64), drawn.speech(0.1), crop="none")


@pytest.mark.parametrize(("frames", "given"), [(50, 5), (5, 5), (4, 4), (1, 1), (None, 5)])
def test_a_driving_clip_gives_at_most_what_it_has(frames, given):
    blocks = (Motion(torch.rand(count, 32), 25.0, "v2") for count in (2, 3))
    assert sum(len(motion) for motion in pipeline._at_most(blocks, frames)) == given
