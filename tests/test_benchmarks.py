"""Every benchmark runs, at a tiny size, and what it saves are positive numbers."""

import json

import pytest

from benchmarks import audio, end_to_end, joins, memory, reenact, render, sample
from imtalker.errors import InputError

FAST = ["--device", "cpu", "--rounds", "1"]
COMMANDS = {
    render: ["--small", "--frames", "2"],
    reenact: ["--small", "--frames", "2"],
    sample: ["--small", "--seconds", "1"],
    end_to_end: ["--small", "--seconds", "0.2"],
}


@pytest.mark.parametrize("benchmark", COMMANDS, ids=lambda module: module.__name__)
def test_numbers_are_saved(benchmark, tmp_path):
    file = tmp_path / "numbers.json"
    benchmark.main([*COMMANDS[benchmark], *FAST, "--json", str(file)])
    rows = json.loads(file.read_text())["rows"]
    assert rows
    for row in rows:
        assert row["frames_per_second"] > 0
        assert all(seconds > 0 for seconds in row["seconds"])


def test_memory_by_length(tmp_path):
    rows = memory.main(["--minutes", "0.02", "--device", "cpu"])["rows"]
    assert rows[0]["frames"] == 30
    assert rows[0]["host_bytes"] >= rows[0]["models_bytes"]


def test_speech_in_blocks_against_the_whole():
    rows = audio.main(["--small", "--compared", "0.02", "--minutes", "--device", "cpu"])["rows"]
    assert [row["what"] for row in rows] == ["whole", "blocks"]
    assert rows[1]["max_difference"] < 2e-5


def test_joins_of_both_generations():
    rows = joins.main(["--small", "--seconds", "8", "--seeds", "1", "--device", "cpu"])["rows"]
    assert [row["generation"] for row in rows] == ["v1"] * 4 + ["v2"] * 4
    assert all(row["inside"] > 0 for row in rows)


def test_a_wrong_reference_is_refused(tmp_path):
    with pytest.raises(InputError, match="no checkout of the published code"):
        render.main(["--reference", str(tmp_path), *FAST])
