"""The command line as users see it: real processes, exit codes, messages, files."""

import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import pytest
import torch
from meaning import pictures, yaw_in

from imtalker import Control
from imtalker.cli import commands as cli
from imtalker.cli.commands import main
from imtalker.cli.jobs import Job, read_control
from imtalker.media.video import VideoReader
from imtalker.motion.keyframes import to_control

ROOT = Path(__file__).parents[2]


def imtalker(*arguments, **options):
    command = [sys.executable, "-m", "imtalker", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, **options)


def talk_arguments(inputs, models, output):
    return [
        "talk", "--source", inputs / "portrait.png", "--audio", inputs / "speech.wav", "--models", models,
        "--crop", "none", "--device", "cpu", "-o", output,
    ]  # fmt: skip


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_talk(inputs, models, tmp_path):
    done = imtalker(*talk_arguments(inputs, models, tmp_path / "o.mp4"), "--frames", 9, "--nfe", 3)
    assert done.returncode == 0, done.stderr
    assert "9 frames" in done.stdout
    with VideoReader(tmp_path / "o.mp4") as reader:
        assert (reader.frames, reader.width, reader.height, reader.has_audio) == (9, 64, 64, True)
    assert "Traceback" not in done.stderr


def test_reenact(inputs, models, tmp_path):
    arguments = ["--source", inputs / "portrait.png", "--driving", inputs / "driving.mp4", "--models", models]
    assert run("reenact", *arguments, "--crop", "none", "--device", "cpu", "-o", tmp_path / "o.mp4") == 0
    with VideoReader(tmp_path / "o.mp4") as reader:
        assert (reader.frames, reader.fps, reader.has_audio) == (21, 30, True)


def test_the_video_says_that_it_is_synthetic(inputs, models, tmp_path):
    import av

    assert run(*talk_arguments(inputs, models, tmp_path / "o.mp4"), "--frames", 2, "--nfe", 2) == 0
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert "Synthetic" in container.metadata["comment"]


@pytest.mark.parametrize("option", ["--control", "--pose"])
def test_heads_turn_as_the_control_says(inputs, tmp_path, option):
    """In the pictures of the file: to the picture's right, and after 0.5 s to its left."""
    turn = '{"version": 1, "channels": {"yaw": [[0, 25], [0.4, 25], [0.6, -25]]}}'
    file = tmp_path / {"--control": "k.json", "--pose": "p.pt"}[option]
    if option == "--control":
        file.write_text(turn)
    else:
        torch.save({"pose_params": to_control(turn).pose}, file)
    words = talk_arguments(inputs, "avatar", tmp_path / "o.mp4")
    assert run(*words, "--cfg", 1, "--frames", 26, option, file) == 0
    frames = pictures(tmp_path / "o.mp4")
    assert yaw_in(frames[4:10:2]).mean() > 0.1
    assert yaw_in(frames[20:26:2]).mean() < -0.1


def test_the_editors_keyframes_are_a_control(inputs, models, tmp_path):
    (tmp_path / "k.json").write_text('{"version": 1, "channels": {"yaw": [[0, -50], [1, 20]], "vertical": [[0, 5]]}}')
    Control(gaze=torch.ones(3, 2), gaze_strength=0.5).save(tmp_path / "c.safetensors")
    torch.save({"pose_params": torch.ones(50, 3)}, tmp_path / "p.pt")

    def control(*extra):
        options = cli.parser().parse_args([*map(str, talk_arguments(inputs, models, "o.mp4") + list(extra))])
        return read_control(Job("p.png", "o.mp4", control=options.control, pose=options.pose,
                                allow_more=options.allow_more))  # fmt: skip

    text = (tmp_path / "k.json").read_text()
    for extra, more in (([], False), (["--allow-more"], True)):
        found = control("--control", tmp_path / "k.json", *extra)
        assert torch.equal(found.pose, to_control(text, allow_more=more).pose)
        assert torch.equal(found.gaze, to_control(text).gaze)
    # --pose overrides that part of --control; the other parts keep their strength
    found = control("--control", tmp_path / "c.safetensors", "--pose", tmp_path / "p.pt")
    assert torch.equal(found.pose, torch.ones(50, 3))
    assert found.strengths() == {"pose": 1, "cam": 1, "gaze": 0.5}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--source": "none.png"}, "none.png"),
        ({"--audio": "none.wav"}, "none.wav"),
        ({"--models": "nowhere"}, "python -m imtalker download"),
        ({"-o": "nowhere/o.mp4"}, "no folder nowhere"),
        ({"-o": "o.avi"}, "must end in .mp4"),
        ({"--device": "abacus"}, "abacus cannot be used"),
        ({"--pose": "none.pt"}, "none.pt"),
        ({"--control": "none.safetensors"}, "none.safetensors"),
        ({"--control": "none.json"}, "none.json"),
    ],
)
def test_one_sentence_for_a_mistake(inputs, models, tmp_path, changes, words, capsys):
    arguments = talk_arguments(inputs, models, tmp_path / "o.mp4")
    for option, value in changes.items():
        if option in arguments:
            arguments[arguments.index(option) + 1] = value
        else:
            arguments += [option, value]
    assert run(*arguments) == 1
    message = capsys.readouterr().err.strip()
    assert message.startswith("imtalker: ")
    assert words in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["talk"], ["talk", "--frames", "0"], ["talk", "--fps", "-1"], ["talk", "--nfe", "1"]]
)
def test_wrong_usage_is_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_stopping_leaves_no_half_video_and_keeps_the_old_one(inputs, models, tmp_path, tmp_path_factory):
    """By Ctrl-C and by SIGTERM, in two processes at a time."""
    speech = tmp_path_factory.mktemp("long") / "speech.wav"
    with wave.open(str(inputs / "speech.wav")) as short, wave.open(str(speech), "wb") as long:
        long.setparams(short.getparams())
        long.writeframes(15 * short.readframes(short.getnframes()))
    running = {}
    for stop in (signal.SIGINT, signal.SIGTERM):
        output = tmp_path / stop.name / "o.mp4"
        output.parent.mkdir()
        output.write_bytes(b"an older video")
        arguments = [*talk_arguments(inputs, models, output), "--audio", speech, "--batch-size", "1", "--fps", "1000"]
        command = [sys.executable, "-m", "imtalker", *map(str, arguments)]
        running[stop] = output, subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for stop, (output, process) in running.items():
        for _ in range(600):
            if list(output.parent.glob(".o.partial*")):
                break
            time.sleep(0.1)
        assert list(output.parent.glob(".o.partial*")), "the temporary file is being written"
        process.send_signal(stop)
    for output, process in running.values():
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors.strip().endswith("Stopped; no partial file is left.")
        assert "Traceback" not in errors
        assert [path.name for path in output.parent.iterdir()] == ["o.mp4"]
        assert output.read_bytes() == b"an older video"


def test_info_and_convert(models, tmp_path, capsys):
    assert run("info", models / "generator.safetensors") == 0
    report = capsys.readouterr().out
    assert "a motion generator (v2)" in report
    assert "complete, nothing unexpected" in report
    assert run("convert", models / "generator.safetensors", tmp_path / "g.safetensors", "--wav2vec", "split",
               "--dtype", "float16") == 0  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"g.safetensors", "g.wav2vec2.safetensors"}
    capsys.readouterr()
    assert run("info", tmp_path / "g.safetensors") == 0
    report = capsys.readouterr().out
    assert "float16" in report
    assert "missing: audio_encoder" in report
    assert run("info", models / "none.ckpt") == 1


def test_download_without_a_network(tmp_path):
    done = imtalker("download", "--to", tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1
    assert "renderer.ckpt" in done.stdout, "it first lists what it will download"
    assert str(tmp_path / "generator.ckpt") in done.stderr, "and where to put a file downloaded by hand"
    assert "Traceback" not in done.stderr


def full(number):
    """An OSError as Windows raises it: "The paging file is too small for this operation to complete"."""
    error = OSError(22, "in the language of the system", "renderer.safetensors")
    error.winerror = number
    return error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB, other allocations: 1.05 GB)."),
        torch.OutOfMemoryError("CUDA out of memory."),
        OSError(12, "Cannot allocate memory"),
        full(1455),
    ],
    ids=str,
)
def test_full_memory_is_one_sentence(error, monkeypatch, capsys, inputs, models, tmp_path):
    def talk(*arguments, **settings):
        raise error

    monkeypatch.setattr("imtalker.cli.jobs.talk", talk)
    assert run(*talk_arguments(inputs, models, tmp_path / "out.mp4")) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("imtalker: Out of memory: give a smaller --batch-size")
