"""Every benchmark runs, at a tiny size, and what it saves are positive numbers."""

import json
import time

import pytest
import torch

from benchmarks import audio, end_to_end, finetune, gpu, gpu_checks, joins, memory, reenact, render, sample, stages
from imtalker import pipeline
from imtalker.errors import InputError

FAST = ["--device", "cpu", "--rounds", "1"]
COMMANDS = {
    render: ["--small", "--frames", "2"],
    reenact: ["--small", "--frames", "2"],
    sample: ["--small", "--seconds", "1"],
    end_to_end: ["--small", "--seconds", "0.2", "--profile"],
}


@pytest.mark.parametrize("benchmark", COMMANDS, ids=lambda module: module.__name__)
def test_numbers_are_saved(benchmark, tmp_path):
    file = tmp_path / "numbers.json"
    benchmark.main([*COMMANDS[benchmark], *FAST, "--json", str(file)])
    saved = json.loads(file.read_text())
    rows = saved["rows"]
    assert rows
    if "stages" in saved:
        parts = saved["stages"]
        driving = {name for name in stages.STAGES if "driving" in name}
        assert set(stages.STAGES) - driving < set(parts)
        assert 0 <= parts["other"] < parts["total"] / 2
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


def test_joins_of_the_avatar():
    rows = joins.main(["--avatar", "--seconds", "8", "--seeds", "1", "--device", "cpu"])["rows"]
    assert [(row["sound"], row["noise"]) for row in rows] == [
        (sound, noise) for sound in ("speech", "silence") for noise in ("fresh", "the same")
    ]
    assert all(row["head_ratio"] > 0 for row in rows)


def test_a_fine_tune_begins_with_the_avatar():
    before, after = finetune.main(["--minutes", "0.02", "--seconds", "1.6", "--lr", "1e-5"])
    assert before > 15
    assert after == pytest.approx(before, abs=0.5)


def test_a_wrong_reference_is_refused(tmp_path):
    with pytest.raises(InputError, match="no checkout of the published code"):
        render.main(["--reference", str(tmp_path), *FAST])


def test_stages_count_alone_and_leave_nothing_behind():
    kept = pipeline.backend.to_cpu

    def work():
        def blocks():
            for _ in range(3):
                time.sleep(0.05)
                yield torch.zeros(1)

        for _ in pipeline.backend.to_cpu(blocks()):
            time.sleep(0.02)  # the reader's own time

    found = stages.seconds_by_stage(work, lambda: None)
    assert set(found) == {"frames: copies to the CPU", "other", "total"}
    assert found["frames: copies to the CPU"] >= 0.15
    assert found["other"] >= 0.06
    assert pipeline.backend.to_cpu is kept


def test_all_gpu_targets_without_a_gpu(monkeypatch, tmp_path, capsys):
    """What needs CUDA is not run, what fails loses nothing else, and without the published code there is no ratio."""
    broken = gpu.Part(["no_such_benchmark"], {"anything": gpu.at_least(1, "ratio")})
    slow = gpu.Part(
        ["render", "--small", "--frames", "1", "--rounds", "1"], {"fast": gpu.at_most(1e-9, "ms_per_frame")}
    )
    parts = {"broken": broken, "slow": slow} | {name: gpu.PARTS[name] for name in ("triton", "golden", "render")}
    monkeypatch.setattr(gpu, "PARTS", parts)
    file = tmp_path / "targets.json"
    gpu.main(["--device", "cpu", "--small", "--json", str(file)])
    saved = json.loads(file.read_text())
    states = {row["part"]: (row["state"], row["why"]) for row in saved["targets"]}
    assert states["broken"][0] == "ERROR"
    assert "no_such_benchmark" in states["broken"][1]
    assert states["slow"] == ("FAIL", "")
    assert states["triton"] == states["golden"] == ("not run", "no CUDA device")
    assert states["render"] == ("not run", "needs --reference")
    assert saved["parts"]["render"]["rows"]
    assert "FAIL     slow" in capsys.readouterr().out


def test_a_gpu_check_without_a_gpu_is_refused():
    with pytest.raises(InputError, match="needs a CUDA device"):
        gpu_checks.main(["graph", "--device", "cpu"])
