"""A stopped render resumes after its last whole segment and gives the very same file."""

import av
import pytest
import torch
from meaning import follows, mouth_in, pictures

from imtalker import pipeline
from imtalker.cli import resume
from imtalker.cli.commands import main
from imtalker.media.audio import read_audio
from imtalker.media.video import VideoReader
from imtalker.weights.checkpoints import AVATAR


def arguments(command, inputs, models, output, *extra):
    sound = {"talk": ["--audio", inputs / "speech.wav"], "reenact": ["--driving", inputs / "driving.mp4"]}[command]
    common = ["--source", inputs / "portrait.png", "--models", models, "--crop", "none", "--device", "cpu"]
    return [str(word) for word in (command, *common, *sound, "-o", output, "--resume", *extra)]


def frames(path):
    with VideoReader(path) as reader:
        return torch.stack(list(reader))


def packets(path, kind):
    with av.open(str(path)) as container:
        return [(p.pts, p.dts, bytes(p)) for p in container.demux(**{kind: 0}) if p.dts is not None]


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(pipeline, "SEGMENT_FRAMES", 8)
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 8)
    monkeypatch.setattr(pipeline, "READ_AHEAD", 4)  # so that a resumed reenactment skips driving frames


class Stopped(Exception):
    pass


def stop_after(monkeypatch, count):
    """Makes the render fail after `count` frames of this run; returns the sizes of its blocks."""
    render, made = pipeline._render, []

    def failing(*args):
        for block in render(*args):
            made.append(len(block))
            if sum(made) > count:
                raise Stopped
            yield block

    monkeypatch.setattr(pipeline, "_render", failing)
    return made


@pytest.mark.parametrize(
    ("command", "count", "extra"),
    [
        ("talk", 49, ["--fps", "25.5", "--frames", "49", "--nfe", "3"]),  # the last segment is one frame
        ("talk", 48, ["--frames", "48", "--nfe", "3"]),  # or whole
        ("reenact", 21, []),
        ("reenact", 53, ["--fps", "75", "--batch-size", "3"]),
    ],
)
def test_resumed_equals_uninterrupted(inputs, models, tmp_path, monkeypatch, short_segments, command, count, extra):
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    assert main(arguments(command, inputs, models, whole, *extra)) == 0
    cut.write_bytes(b"an older video")
    with monkeypatch.context() as patch:
        stop_after(patch, 18)
        with pytest.raises(Stopped):
            main(arguments(command, inputs, models, cut, *extra))
    assert cut.read_bytes() == b"an older video"
    with monkeypatch.context() as patch:
        made = stop_after(patch, 1000)
        assert main(arguments(command, inputs, models, cut, *extra)) == 0
    assert sum(made) == count - 16, "two segments were whole and are not rendered again"
    assert packets(cut, "video") == packets(whole, "video")
    assert packets(cut, "audio") == packets(whole, "audio")
    assert len(frames(cut)) == count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.mp4", "whole.mp4"]


def test_lips_stay_in_sync_where_the_render_was_stopped(inputs, tmp_path, monkeypatch, short_segments):
    words = arguments("talk", inputs, "avatar", tmp_path / "o.mp4", "--cfg", "1", "--fps", "24", "--frames", "72")
    words[words.index(str(inputs / "speech.wav"))] = str(AVATAR / "speech.wav")
    with monkeypatch.context() as patch:
        stop_after(patch, 36)
        with pytest.raises(Stopped):
            main(words)
    made = stop_after(monkeypatch, 1000)
    assert main(words) == 0
    assert sum(made) == 40
    with_own, lag = follows(mouth_in(pictures(tmp_path / "o.mp4")), read_audio(tmp_path / "o.mp4"), 24)
    assert with_own > 0.5
    assert abs(lag) <= 1


def test_a_joined_file_equals_a_plain_one(inputs, models, tmp_path, short_segments):
    joined, plain = tmp_path / "joined.mp4", tmp_path / "plain.mp4"
    words = arguments("talk", inputs, models, joined, "--frames", "27", "--nfe", "3", "--fps", "29.97")
    assert main(words) == 0
    words[words.index(str(joined))] = str(plain)
    words.remove("--resume")
    assert main(words) == 0
    a, b = frames(joined), frames(plain)
    assert a.shape == b.shape
    # other key frames, so the same frames are compressed differently
    assert (a.float() - b.float()).abs().mean() < 4
    assert packets(joined, "audio") == packets(plain, "audio")
    for path in (joined, plain):
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            found = (video.average_rate, video.frames, video.start_time, audio.duration * audio.time_base)
            tags = container.metadata["comment"], video.codec_context.colorspace
            shown = [packet.pts * packet.time_base for packet in container.demux(video=0) if packet.dts is not None]
        assert sorted(shown) == [index / found[0] for index in range(27)]
        if path == joined:
            kept = found, tags
    assert (found, tags) == kept


def test_other_settings_start_over_and_say_so(inputs, models, tmp_path, monkeypatch, short_segments, caplog):
    output = tmp_path / "o.mp4"
    with monkeypatch.context() as patch:
        stop_after(patch, 18)
        with pytest.raises(Stopped):
            main(arguments("talk", inputs, models, output, "--frames", "24", "--nfe", "3"))
    made = stop_after(monkeypatch, 1000)
    assert main(arguments("talk", inputs, models, output, "--frames", "24", "--nfe", "3", "--seed", "1")) == 0
    assert "starting over" in caplog.text
    assert sum(made) == 24


def test_a_damaged_segment_is_rendered_again(inputs, models, tmp_path, monkeypatch, short_segments):
    output = tmp_path / "o.mp4"
    words = arguments("talk", inputs, models, output, "--frames", "24", "--nfe", "3")
    with monkeypatch.context() as patch:
        stop_after(patch, 18)
        with pytest.raises(Stopped):
            main(words)
    segment = resume.segments_folder(output) / "000001.mp4"
    segment.write_bytes(segment.read_bytes()[:100])
    made = stop_after(monkeypatch, 1000)
    assert main(words) == 0
    assert sum(made) == 16
    assert len(frames(output)) == 24
