"""The command dub, and rows of a table with a video."""

import av
import pytest
import torch
from test_batch import table

from imtalker import Rig
from imtalker.cli import batch, resume
from imtalker.cli.commands import main
from imtalker.cli.jobs import Models
from imtalker.dubbing import redraw as redrawing
from imtalker.dubbing.redraw import Redrawing
from imtalker.media.video import VideoReader
from imtalker.motion.rig import Channel


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """A rig of the tiny weights: the first latent is the mouth, the second the head."""
    path = tmp_path_factory.mktemp("rig") / "rig.safetensors"
    channels = (Channel("mouth", "mouth", -1, 1, 1, "names"), Channel("yaw", "head", -1, 1, 1, "names"))
    Rig(channels, torch.eye(8)[:, :2], torch.eye(8)[:2], torch.zeros(1, 8)).save(path)
    return path


def words(inputs, models, rig, output, *extra):
    """driving.mp4 (21 frames of 80 x 60, 30 a second) says speech.wav (2 s)."""
    files = ["--video", inputs / "driving.mp4", "--audio", inputs / "speech.wav", "--rig", rig, "-o", output]
    return [str(word) for word in ("dub", *files, "--models", models, "--crop", "none", "--device", "cpu", *extra)]


def frames(path):
    with VideoReader(path) as reader:
        assert reader.fps == 30
        return torch.stack(list(reader))


def packets(path, kind):
    with av.open(str(path)) as container:
        return [(p.pts, p.dts, bytes(p)) for p in container.demux(**{kind: 0}) if p.dts is not None]


def test_a_stopped_dub_resumes_and_gives_the_same_file(inputs, models, rig, tmp_path, monkeypatch):
    monkeypatch.setattr(redrawing, "SEGMENT_FRAMES", 8)
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 8)
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    extra = ("--resume", "--ending", "ping-pong", "--frames", "28", "--nfe", "3", "--head", "0.5", "--mark", "AI")
    assert main(words(inputs, models, rig, whole, *extra)) == 0
    redraw, made = Redrawing._redraw, []

    def counted(self, *arguments):
        made.append(1)
        if len(made) == 19:
            raise RuntimeError("stopped")
        return redraw(self, *arguments)

    monkeypatch.setattr(Redrawing, "_redraw", counted)
    with pytest.raises(RuntimeError, match="stopped"):
        main(words(inputs, models, rig, cut, *extra))
    made[:] = [0] * 100
    assert main(words(inputs, models, rig, cut, *extra)) == 0
    assert len(made) == 100 + 28 - 16
    assert packets(cut, "video") == packets(whole, "video")
    assert packets(cut, "audio") == packets(whole, "audio")
    assert len(frames(cut)) == 28
    with av.open(str(cut)) as container:
        assert "Synthetic" in container.metadata["comment"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.mp4", "whole.mp4"]


def test_one_sentence_for_a_dub_that_cannot_be(inputs, models, rig, tmp_path, capsys):
    for extra, said in (
        (["--mask", "none.png"], "none.png"),
        (["--rig", inputs / "speech.wav"], "speech.wav"),
        (["--video", inputs / "speech.wav"], "no video"),
        (["-o", inputs / "driving.mp4"], "driving.mp4"),
    ):
        assert main(words(inputs, models, rig, tmp_path / "o.mp4", *map(str, extra))) == 1
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("imtalker: ")
        assert said in message
    with pytest.raises(SystemExit):
        main(words(inputs, models, rig, tmp_path / "o.mp4", "--strength", "3"))


def test_rows_with_a_video_are_dubbed(inputs, models, rig, tmp_path):
    names = ["source", "audio", "driving", "video", "output", "frames", "crop", "ending", "rig", "lower_face", "face"]
    speech, video, portrait = inputs / "speech.wav", inputs / "driving.mp4", inputs / "portrait.png"
    jobs = table(
        tmp_path,
        [
            ["", speech, "", video, "a.mp4", 3, "none", "hold", rig, "0.8", ""],
            [portrait, "", video, "", "b.mp4", 2, "none", "", "", "", ""],
            ["", "", "", video, "c.mp4", 3, "none", "", rig, "", ""],
            [portrait, speech, "", video, "d.mp4", 3, "none", "", rig, "", ""],
            ["", speech, "", video, "e.mp4", 3, "none", "loop", rig, "", ""],
            ["", speech, "", video, "f.mp4", 3, "none", "", rig, "2", ""],
            ["", speech, "", video, "g.mp4", 3, "none", "", rig, "", "mine"],
        ],
        names,
    )
    rows = batch.run(jobs, Models(models, "cpu"))
    assert [row.status for row in rows] == ["done", "done", *["failed"] * 5]
    assert len(frames(tmp_path / "a.mp4")) == 3
    for row, said in zip(rows[2:], ("audio is empty", "leave source and driving empty", "ending must be cut",
                                    "lower_face must be", "face must be largest")):  # fmt: skip
        assert said in row.message
