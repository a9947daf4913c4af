"""Renders that are killed, interrupted or out of disk space: an older video stays, the next run cleans up."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from imtalker import InputError, Motion, pipeline
from imtalker.cli import resume
from imtalker.cli.commands import main
from imtalker.media.video import VideoReader
from imtalker.media.video_writer import write_video

ROOT = Path(__file__).parent.parent
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def arguments(inputs, models, output, *extra):
    common = ["--source", inputs / "portrait.png", "--audio", inputs / "speech.wav", "--models", models]
    return [str(argument) for argument in ("talk", *common, "--crop", "none", "--device", "cpu", "-o", output, *extra)]


def stop_at(command, seconds, how):
    """Runs a command and signals it `seconds` after its first temporary file appears; (exit status, stderr)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "imtalker", *command], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    folder = Path(command[command.index("-o") + 1]).parent
    while process.poll() is None and not any(
        re.match(r"\..*(partial|segments)", path.name) for path in folder.iterdir()
    ):
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def check_stopped_and_run_again(inputs, models, folder, seconds, how, *extra):
    """Checks that the signal leaves the older video or the whole new one, and another run nothing but the new one."""
    output = folder / "o.mp4"
    output.write_bytes(b"an older video")
    command = arguments(inputs, models, output, "--nfe", "2", "--fps", "60", *extra)
    status, errors = stop_at(command, seconds, how)
    assert "Traceback" not in errors
    if status == 0:
        assert count(output) == 120
    else:
        assert output.read_bytes() == b"an older video" or count(output) == 120
    assert main(command) == 0
    assert count(output) == 120
    assert [path.name for path in folder.iterdir()] == ["o.mp4"]


def count(path):
    with VideoReader(path) as reader:
        return len(list(reader))


@posix
def test_a_killed_render_leaves_an_older_video_or_the_new_one(inputs, models, tmp_path):
    check_stopped_and_run_again(inputs, models, tmp_path, 0.1, signal.SIGKILL)


@posix
def test_only_temporary_files_of_dead_processes_are_deleted(tmp_path):
    mine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    alive = tmp_path / f".o.partial-{mine.pid}.mp4"
    others = [tmp_path / f".p.partial-{dead.stdout.strip()}.mp4", tmp_path / ".o.partial-x.mp4", tmp_path / "o.mp4"]
    gone = tmp_path / f".o.partial-{dead.stdout.strip()}.mp4"
    for path in (alive, gone, *others):
        path.write_bytes(b"")
    write_video(tmp_path / "o.mp4", torch.rand(2, 16, 16, 3), 25)
    mine.kill()
    mine.wait()
    assert sorted(tmp_path.iterdir()) == sorted([alive, *others])


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for 24 kB, less than the video needs, and a function that makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        return shutil.which("mount") and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
        ).returncode  # fmt: skip

    if not mount("size=24k"):
        pytest.skip("this machine does not allow mounting a small disk")
    yield folder, lambda: mount("remount,size=1m")
    # fails if a file is still open, whose space would never be freed
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("extra", [[], ["--resume"]])
def test_a_full_disk_leaves_the_older_video_and_the_next_run_succeeds(
    inputs, models, small_disk, capsys, monkeypatch, extra
):
    monkeypatch.setattr(pipeline, "SEGMENT_FRAMES", 16)
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 16)
    folder, make_room = small_disk
    output = folder / "o.mp4"
    output.write_bytes(b"an older video")
    command = arguments(inputs, models, output, "--nfe", "2", "--fps", "60", *extra)
    assert main(command) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("imtalker: The disk is full")
    assert output.read_bytes() == b"an older video"
    assert not list(folder.rglob("*partial*"))
    assert make_room()
    assert main(command) == 0
    assert count(output) == 120
    assert [path.name for path in folder.iterdir()] == ["o.mp4"]


def test_a_full_disk_leaves_the_older_motion(small_disk):
    folder, _ = small_disk
    Motion(torch.zeros(9, 32)).save(folder / "m.safetensors")
    with pytest.raises(InputError, match=r"m\.safetensors"):
        Motion(torch.zeros(9000, 32)).save(folder / "m.safetensors")
    assert len(Motion.load(folder / "m.safetensors")) == 9
    assert len(list(folder.iterdir())) == 1


def test_an_interrupt_while_writing_leaves_the_older_video(tmp_path):
    (tmp_path / "a.mp4").write_text("old")

    def frames():
        yield torch.rand(9, 16, 16, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", frames(), 25)
    assert (tmp_path / "a.mp4").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
