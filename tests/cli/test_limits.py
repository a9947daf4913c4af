"""Every option's numbers, every output, every terminal: one sentence instead of a traceback."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from imtalker import InputError, Motion, load_renderer, save_weights
from imtalker.cli import batch, numbers, resume
from imtalker.cli.commands import main, parser
from imtalker.cli.jobs import Job
from imtalker.media.atomic import only_run
from imtalker.media.tensors import save_safetensors

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name == "nt", reason="needs links")


def options(command=None, found=None, path=()):
    """Every option of every command that takes a number, as (command words, name, action)."""
    command, found = command or parser(), [] if found is None else found
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                options(below, found, (*path, name))
        elif (action.option_strings and isinstance(action.default, int | float)) or action.type not in (None, Path):
            found.append((path, action.option_strings[-1], action))
    return found


NUMBERS = [each for each in options() if each[2].nargs is None and not each[2].choices and each[1] != "--models"]


def test_the_options_with_numbers_are_found():
    assert {name for _, name, _ in NUMBERS} == {
        *("--batch-size", "--seed", "--cfg", "--nfe", "--fps", "--frames", "--steps", "--minutes", "--lr", "--lr-end"),
        *("--warmup", "--workers", "--devices", "--adversarial", "--lora", "--strength", "--blinks"),
        *("--index", "--gate", "--lower-face", "--head", "--colour-match", "--keep-sound", "--port"),
    }


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e309", "-1e400", "9" * 5000, "1" * 30, "", "x", "1;2"])
def test_no_option_takes_a_number_beyond_sense(value):
    for _, _, action in NUMBERS:
        with pytest.raises(argparse.ArgumentTypeError, match=r"must be a (whole )?number from .* to "):
            action.type(value)


def test_numbers_within_the_range_are_read():
    assert numbers.FPS.read("29.97") == 29.97
    assert numbers.SEED.read(str(2**64 - 1)) == 2**64 - 1
    assert numbers.CFG.read("-1") == -1
    for number, text in ((numbers.NFE, "1"), (numbers.FRAMES, "0"), (numbers.FPS, "0"), (numbers.FPS, "1e-300")):
        with pytest.raises(InputError):
            number.read(text)


@pytest.mark.parametrize(("short", "long"), [("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32")])
def test_precisions_have_comfyuis_names_too(short, long):
    talk = ["talk", "--source", "a", "--audio", "b", "-o", "c.mp4", "--dtype"]
    assert parser().parse_args([*talk, short]).dtype == parser().parse_args([*talk, long]).dtype == long


@pytest.fixture
def folder(inputs, tmp_path):
    for name in ("portrait.png", "speech.wav", "driving.mp4"):
        shutil.copy(inputs / name, tmp_path / name)
    return tmp_path


def last_line(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


@posix
@pytest.mark.parametrize("extra", [[], ["--resume"]])
def test_no_output_is_an_input(folder, models, capsys, extra):
    source, driving = folder / "portrait.png", folder / "driving.mp4"
    os.link(driving, folder / "hard.mp4")
    (folder / "soft.mp4").symlink_to(driving)
    before = driving.read_bytes()
    for name in ("driving.mp4", "hard.mp4", "soft.mp4"):
        output = folder / name
        command = ["reenact", "--source", source, "--driving", driving, "-o", output, "--models", models, *extra]
        assert main(list(map(str, command))) == 1
        assert "also an input" in last_line(capsys)
        command = ["talk", "--source", source, "--audio", driving, "-o", output, "--models", models, *extra]
        assert main(list(map(str, command))) == 1
        assert "also an input" in last_line(capsys)
    assert driving.read_bytes() == before
    start = folder / "start.safetensors"
    save_safetensors(start, {"fmt.x": torch.zeros(1)}, {})
    assert main(["convert", str(start), str(start)]) == 1
    assert "also an input" in last_line(capsys)
    assert main(["train", "renderer", str(folder), "--from", str(start), "-o", str(start), "--steps", "1"]) == 1
    assert "also an input" in last_line(capsys)
    assert main(["prepare", str(folder), str(folder), "--frames-only"]) == 1
    assert "the folder of videos itself" in last_line(capsys)


def test_an_input_in_the_folder_of_segments_is_not_removed(folder, models, capsys):
    output = folder / "o.mp4"
    kept = resume.segments_folder(output)
    kept.mkdir()
    shutil.copy(folder / "speech.wav", kept / "speech.wav")
    command = ["talk", "--source", folder / "portrait.png", "--audio", kept / "speech.wav", "-o", output]
    assert main([*map(str, command), "--models", str(models)]) == 1
    assert "copy it elsewhere first" in last_line(capsys)
    assert (kept / "speech.wav").is_file()


@posix
def test_rows_write_no_file_that_another_reads(folder):
    os.link(folder / "driving.mp4", folder / "hard.mp4")
    (folder / "pipe.wav").touch()
    os.unlink(folder / "pipe.wav")
    os.mkfifo(folder / "pipe.wav")
    lines = [
        "portrait.png,,driving.mp4,fine.mp4",
        "portrait.png,speech.wav,,hard.mp4",
        "portrait.png,pipe.wav,,a.mp4",
        "portrait.png,speech.wav,,jobs.mp4",
        f"{'x' * 300}.png,speech.wav,,b.mp4",
    ]
    table = folder / "jobs.mp4"
    table.write_text("\n".join(["source,audio,driving,output", *lines]))
    rows = batch.read_jobs(table)
    assert [row.status for row in rows] == ["", "failed", "failed", "failed", "failed"]
    for row, words in zip(rows[1:], ("also an input", "is a pipe", "also an input", "name too long")):
        assert words in row.message.lower()


def test_a_second_run_of_one_output_or_table_is_told(folder, models, capsys):
    output = folder / "o.mp4"
    command = ["talk", "--source", folder / "portrait.png", "--audio", folder / "speech.wav", "-o", output]
    (folder / "jobs.csv").write_text("source,audio,output\nportrait.png,speech.wav,o.mp4\n")
    with only_run(output):
        for extra in ([], ["--resume"]):
            assert main([*map(str, command), "--models", str(models), *extra]) == 1
            assert "Another run is writing" in last_line(capsys)
    with only_run(folder / "jobs.csv.report.csv"):
        assert main(["batch", str(folder / "jobs.csv"), "--models", str(models)]) == 1
    assert "Another run is writing" in last_line(capsys)


@posix
def test_tables_and_outputs_that_are_no_files(tmp_path, models, capsys):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        assert main(["batch", str(path), "--models", str(models)]) == 1
        assert main(["info", str(path)]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert [line.isprintable() for line in lines] == [True, True], "one sentence each"


@posix
def test_names_of_any_bytes_are_printed_to_a_terminal_without_unicode(tmp_path):
    path = tmp_path / os.fsdecode(b"\xc7\xfd\n\xe2\x98\xba.safetensors")
    Motion(torch.rand(3, 32)).save(path)
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "imtalker", "info", os.fsencode(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert rb"\xc7\xfd\n" in done.stdout
    assert done.stdout.isascii()


@posix
def test_a_full_terminal_is_one_sentence(models):
    command = [sys.executable, "-m", "imtalker", "info", str(models / "renderer.safetensors")]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("imtalker: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(models, tmp_path, number):
    renderer = load_renderer(models / "renderer.safetensors")
    name, tensor = next((name, each) for name, each in renderer.state_dict().items() if each.ndim == 4)
    tensor[0, 0, 0, 0] = number
    save_weights(renderer, tmp_path / "r.safetensors")
    with pytest.raises(InputError, match=rf"r\.safetensors holds NaN or infinite numbers in .*\.{name.split('.')[-1]}"):
        load_renderer(tmp_path / "r.safetensors")


def test_a_job_names_its_inputs():
    job = Job(source=Path("a"), output=Path("b"), audio=Path("c"))
    assert job.inputs() == {"source": Path("a"), "audio": Path("c")}
