"""A table of jobs: checked first, rendered row by row, resumed, and the same in processes and on Ray."""

import csv
import sys

import pytest
from meaning import backwards, sentence

from imtalker import InputError
from imtalker.cli import batch
from imtalker.cli.commands import main
from imtalker.cli.jobs import Models
from imtalker.drawn import example as drawn
from imtalker.media.video import VideoReader

NAMES = ["source", "audio", "driving", "output", "seed", "nfe", "frames", "crop"]


def table(folder, rows, names=NAMES):
    path = folder / "jobs.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


LONG = 50  # frames, the whole speech


def talk(inputs, output, seed=0, frames=2):
    return [inputs / "portrait.png", inputs / "speech.wav", "", output, seed, 2, frames, "none"]


def models_in(folder):
    return Models(folder, "cpu")


def statuses(rows):
    return [row.status for row in rows]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


def test_rows_are_rendered_and_a_failed_one_stops_no_other(inputs, models, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    jobs = table(
        tmp_path,
        [
            talk(inputs, "a.mp4"),
            [tmp_path / "broken.png", inputs / "speech.wav", "", "b.mp4", "", "", "", "none"],
            [inputs / "portrait.png", "", inputs / "driving.mp4", "c.mp4", "", "", 3, "none"],
        ],
    )
    words = ["batch", str(jobs), "--models", str(models), "--device", "cpu"]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "row 2, b.mp4: failed" in printed.out
    assert "broken.png" in printed.out
    assert printed.err.strip().endswith("1 of 3 rows failed: fix them and rerun; finished rows are skipped.")
    for name, count in (("a.mp4", 2), ("c.mp4", 3)):
        with VideoReader(tmp_path / name) as reader:
            assert len(list(reader)) == count
    with open(f"{jobs}.report.csv", newline="") as file:
        assert [(row["number"], row["status"]) for row in csv.DictReader(file)] == [
            ("1", "done"), ("2", "failed"), ("3", "done")]  # fmt: skip
    # once fixed, the same command renders only what is missing
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in ("a.mp4", "c.mp4")}
    (tmp_path / "broken.png").write_bytes((inputs / "portrait.png").read_bytes())
    (tmp_path / "c.mp4").unlink()
    assert main(words) == 0
    assert (tmp_path / "b.mp4").exists()
    assert (tmp_path / "c.mp4").exists()
    assert (tmp_path / "a.mp4").stat().st_mtime_ns == times["a.mp4"]


def test_each_row_is_what_the_command_makes_of_its_inputs_alone(inputs, models, tmp_path):
    """Byte for byte: no row speaks another's sound, or moves as another's driving video."""
    for name, sound in (("one", sentence(1.0, pause=0)), ("other", backwards(sentence(1.0, pause=0)))):
        drawn.write_sound(tmp_path / f"{name}.wav", sound)
    portrait, video = inputs / "portrait.png", inputs / "driving.mp4"
    rows = [[portrait, f"{name}.wav", "", f"{name}.mp4", "", 3, "", "none"] for name in ("one", "other")]
    rows.append([portrait, "", video, "third.mp4", "", "", "", "none"])
    assert statuses(batch.run(table(tmp_path, rows), models_in(models))) == ["done"] * 3
    made = contents(tmp_path)
    common = ["--source", portrait, "--models", models, "--device", "cpu", "--crop", "none"]
    alone = tmp_path / "alone.mp4"
    for name in ("one", "other", "third"):
        speech = ["talk", "--audio", tmp_path / f"{name}.wav", "--nfe", 3]
        words = ["reenact", "--driving", video] if name == "third" else speech
        assert main([str(word) for word in (*words, *common, "-o", alone)]) == 0
        assert alone.read_bytes() == made[f"{name}.mp4"]
    assert made["one.mp4"] != made["other.mp4"]


def test_a_row_with_other_settings_is_rendered_again(inputs, models, tmp_path):
    batch.run(table(tmp_path, [talk(inputs, "a.mp4"), talk(inputs, "b.mp4")]), models_in(models))
    before = contents(tmp_path)
    rows = batch.run(table(tmp_path, [talk(inputs, "a.mp4"), talk(inputs, "b.mp4", frames=4)]), models_in(models))
    assert [row.message for row in rows] == ["before", ""]
    assert contents(tmp_path)["a.mp4"] == before["a.mp4"]
    assert contents(tmp_path)["b.mp4"] != before["b.mp4"]


@pytest.mark.parametrize(
    ("names", "row", "words"),
    [
        (["source", "output"], ["p.png", "o.mp4"], "needs the columns"),
        (["source", "audio", "output", "mood"], ["p", "a", "o.mp4", "good"], "unknown column 'mood'"),
        (["source", "audio", "output", "audio"], ["p", "a", "o.mp4", "a"], "same column twice"),
        (["source", "audio", "output"], None, "holds no jobs"),
        (["source", "audio", "output"], ["x" * 200_000, "a", "o.mp4"], "cannot be read as CSV"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, names, row, words):
    with pytest.raises(InputError, match=words):
        batch.read_jobs(table(tmp_path, [row] if row else [], names))


def test_every_row_is_checked_before_any_runs(inputs, tmp_path):
    portrait, speech = inputs / "portrait.png", inputs / "speech.wav"
    (tmp_path / "own.mp4").write_bytes(b"")
    wrong = {
        "There is no file": ["none.png", speech, "", "a.mp4", "", "", "", ""],
        "cell source is empty": ["", speech, "", "b.mp4", "", "", "", ""],
        "not both": [portrait, speech, speech, "c.mp4", "", "", "", ""],
        "seed must be a whole number from": [portrait, speech, "", "d.mp4", "x", "", "", ""],
        "frames must be a whole number from 1 to": [portrait, speech, "", "e.mp4", "", "", "0", ""],
        "crop must be": [portrait, speech, "", "f.mp4", "", "", "", "maybe"],
        "must end in .mp4": [portrait, speech, "", "g.avi", "", "", "", ""],
        "folder": [portrait, speech, "", "none/h.mp4", "", "", "", ""],
        "more or fewer cells": [portrait, speech, "", "i.mp4"],
        "also the output of another": [portrait, speech, "", "twice.mp4", "", "", "", ""],
        "output of another row: choose": [portrait, speech, "", "x/../TWICE.mp4", "", "", "", ""],
        "also an input": [portrait, "", "own.mp4", "own.mp4", "", "", "", ""],
    }
    (tmp_path / "x").mkdir()
    rows = batch.read_jobs(table(tmp_path, [*wrong.values(), talk(inputs, "good.mp4")]))
    for row, words in zip(rows, wrong):
        assert row.status == "failed"
        assert words in row.message
    assert rows[-1].job.output == tmp_path / "good.mp4"


def test_processes_give_the_same_files_and_one_that_dies_costs_its_row(inputs, models, tmp_path):
    # the second row takes much longer than the first
    rows = [talk(inputs, f"{seed}.mp4", seed, frames) for seed, frames in enumerate((2, LONG, 2))]
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    assert statuses(batch.run(table(one, rows), models_in(models))) == ["done"] * 3
    killed = []

    def kill_one(row):
        if not killed:
            killed.append(max(batch.multiprocessing.active_children(), key=lambda process: process.pid))
            killed[0].kill()

    outcomes = batch.run(table(two, rows), models_in(models), devices=["cpu", "cpu"], on_row=kill_one)
    died = [row.message for row in outcomes if row.status == "failed"]
    assert len(died) == 1
    assert "died" in died[0]
    assert statuses(batch.run(table(two, rows), models_in(models))) == ["done"] * 3
    assert contents(two) == contents(one)
    assert not list(two.glob(".*")), "a row rendered again removes what the killed process left"


def test_ray_gives_the_same_files(inputs, models, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install ray)")
    rows = [talk(inputs, f"{seed}.mp4", seed) for seed in range(4)]
    rows.append([inputs / "speech.wav", inputs / "speech.wav", "", "bad.mp4", "", "", "", "none"])
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    batch.run(table(here, rows), models_in(models))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    outcomes = batch.run(table(there, rows), models_in(models), ray="local")
    assert statuses(outcomes) == ["done"] * 4 + ["failed"]
    assert contents(there) == contents(here)


def test_without_ray_one_sentence_says_what_to_install(inputs, models, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="pip install ray"):
        batch.run(table(tmp_path, [talk(inputs, "a.mp4")]), models_in(models), ray="auto")
