"""make fuzz: kills, interrupts and terminates renders at random moments, with and without --resume."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_batch import models_in, statuses, table, talk
from test_faults import ROOT, check_stopped_and_run_again
from test_resume import arguments, frames

from imtalker.cli import batch, resume
from imtalker.cli.commands import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
MOMENTS = [round(random.Random(4).uniform(0, 2), 2) for _ in range(10)]  # seconds after the first temporary file


@pytest.mark.parametrize("extra", [[], ["--resume"]])
@pytest.mark.parametrize("seconds", MOMENTS)
def test_a_killed_render_leaves_an_older_video_or_the_new_one(inputs, models, tmp_path, seconds, extra):
    check_stopped_and_run_again(inputs, models, tmp_path, seconds, signal.SIGKILL, *extra)


@pytest.mark.parametrize("extra", [[], ["--resume"]])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", MOMENTS[:3])
def test_an_interrupted_render_leaves_an_older_video_or_the_new_one(inputs, models, tmp_path, seconds, how, extra):
    check_stopped_and_run_again(inputs, models, tmp_path, seconds, how, *extra)


def test_a_killed_render_resumes_to_the_same_frames(inputs, models, tmp_path):
    whole, killed = tmp_path / "whole.mp4", tmp_path / "killed.mp4"
    extra = ["--fps", "100", "--frames", "150", "--nfe", "2"]
    assert main(arguments("talk", inputs, models, whole, *extra)) == 0
    command = [sys.executable, "-m", "imtalker", *arguments("talk", inputs, models, killed, *extra)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    first = resume.segments_folder(killed) / "000000.mp4"
    while not first.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not killed.exists()
    assert main(arguments("talk", inputs, models, killed, *extra)) == 0
    assert torch.equal(frames(killed), frames(whole))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.mp4", "whole.mp4"]


def test_a_killed_batch_continues_after_its_finished_rows(inputs, models, tmp_path):
    jobs = table(tmp_path, [talk(inputs, f"{seed}.mp4", seed, 10) for seed in range(12)])
    command = [sys.executable, "-m", "imtalker", "batch", str(jobs), "--models", str(models), "--device", "cpu"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (tmp_path / "1.mp4").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    rows = batch.run(jobs, models_in(models))
    assert statuses(rows) == ["done"] * 12
    assert rows[0].message == "before"
    assert rows[11].message == ""
    assert len(list(tmp_path.iterdir())) == 14, "twelve videos, the table and its report"
