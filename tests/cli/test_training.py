"""The commands prepare and train, from a folder of videos to a file that loads."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_renderer

from imtalker import load_generator, load_renderer, save_weights
from imtalker.cli.commands import main
from imtalker.train.data import find_clips
from imtalker.train.generator import GeneratorTask

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quiet_again():
    """Training raises the log level; later tests expect the old one."""
    log = logging.getLogger("imtalker")
    level = log.level
    yield
    log.setLevel(level)


def run(*arguments):
    return main([str(argument) for argument in arguments])


def train(stage, data, output, models, *more):
    start = models / f"{stage}.safetensors"
    return run("train", stage, data, "-o", output, "--from", start, "--device", "cpu", *more)


def test_prepare_reports_every_video(videos, models, tmp_path, capsys):
    data = tmp_path / "data"
    assert run("prepare", videos, data, "--models", models, "--crop", "none", "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert "anna__one.mp4: 75 frames" in out
    assert "anna__broken.mp4: left out:" in out
    assert "3 clips are ready" in out
    assert find_clips(data)[0].names == {"motion", "audio", "crop"}
    assert run("prepare", tmp_path, data, "--models", models) == 1
    assert "There are no videos" in capsys.readouterr().err


def test_a_renderer_is_fine_tuned_to_a_file_that_loads(data, models, tmp_path, capsys, caplog):
    output = tmp_path / "anna.safetensors"
    assert train("renderer", data, output, models, "--steps", 8, "--lr", 3e-3) == 0
    assert "anna.safetensors: step 8, done" in capsys.readouterr().out
    before, after = (float(part.split(" dB")[0]) for part in caplog.text.split("PSNR ")[1:])
    assert after > before
    assert "no perceptual loss" in caplog.text
    assert not torch.equal(
        load_renderer(output).synthesis.head[1].weight,
        load_renderer(models / "renderer.safetensors").synthesis.head[1].weight,
    )
    assert train("renderer", data, output, models, "--steps", 8, "--lr", 1e-3) == 1
    assert "started with learning rate" in capsys.readouterr().err


def test_data_of_another_renderer_is_refused(data, tmp_path, capsys):
    other = tiny_renderer()
    other.motion_encoder.mlp.last.bias += 0.1
    save_weights(other, tmp_path / "renderer.safetensors")
    assert train("renderer", data, tmp_path / "out.safetensors", tmp_path, "--steps", 1) == 1
    assert "comes from another renderer" in capsys.readouterr().err


def test_a_resumed_training_gives_the_weights_of_an_uninterrupted_one(data, models, tmp_path, capsys, monkeypatch):
    settings = "--steps", 6, "--lora", 2, "--lr", 1e-2
    assert train("generator", data, tmp_path / "whole.safetensors", models, *settings) == 0
    losses, steps = GeneratorTask.losses, iter(range(100))

    def interrupted(self, batch):
        yield from losses(self, batch)
        if next(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(GeneratorTask, "losses", interrupted)
        assert train("generator", data, tmp_path / "parts.safetensors", models, *settings) == 0
    assert "step 3, stopped; run the same command to resume" in capsys.readouterr().out
    assert train("generator", data, tmp_path / "parts.safetensors", models, *settings) == 0
    whole, parts = (load_generator(tmp_path / f"{name}.safetensors").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_two_processes_are_one_with_twice_the_batch(data, models, tmp_path):
    """Compared by velocities: rounding moves weights that no velocity depends on."""
    settings = "--steps", 4, "--lr", 1e-2
    assert train("generator", data, tmp_path / "one.safetensors", models, *settings, "--batch-size", 4) == 0
    command = [sys.executable, "-m", "imtalker", "train", "generator", data, "-o", tmp_path / "two.safetensors"]
    command += ["--from", models / "generator.safetensors", "--device", "cpu", *settings]
    done = subprocess.run(
        [str(part) for part in (*command, "--batch-size", 2, "--devices", 2)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("two.safetensors: step 4, done") == 1
    random = torch.Generator().manual_seed(1)
    inputs = [torch.randn(2, 60, 8, generator=random), torch.rand(2, generator=random)]
    inputs += [torch.randn(2, 8, generator=random), torch.randn(2, 60, 8, generator=random)]
    files = models / "generator.safetensors", tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    start, one, two = (load_generator(file).flow(*inputs) for file in files)
    assert (one - two).norm() < 0.01 * (one - start).norm()


def test_without_fabric_one_sentence_says_what_to_install(data, models, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    assert train("renderer", data, tmp_path / "out.safetensors", models, "--steps", 1) == 1
    assert "pip install lightning-fabric" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "out.ckpt", "--steps", 1), "must end in .safetensors"),
        (("-o", "missing/out.safetensors", "--steps", 1), "There is no folder"),
        (("-o", "out.safetensors"), "how long to train"),
    ],
)
def test_wrong_use_is_answered_in_one_sentence(data, models, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    start = models / "generator.safetensors"
    assert run("train", "generator", data, "--from", start, "--device", "cpu", *arguments) == 1
    assert message in capsys.readouterr().err


def test_the_package_and_its_command_line_do_without_fabric():
    code = "import sys; from imtalker.cli.commands import parser; parser(); sys.exit('lightning_fabric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == 0
