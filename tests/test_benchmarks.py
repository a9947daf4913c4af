"""Every benchmark runs, at a tiny size, and its numbers agree with each other."""

import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import (
    audio,
    budget,
    bundle,
    cards,
    dub,
    end_to_end,
    finetune,
    gpu,
    gpu_checks,
    joins,
    memory,
    reenact,
    render,
    sample,
    stages,
)
from benchmarks.fake_device import Operation
from benchmarks.kernel_work import KERNEL_WORK
from imtalker.errors import InputError
from imtalker.models import backend

FAST = ["--device", "cpu", "--rounds", "2", "--small"]
BATCHES = ["--frames", "3", "--batch-size", "1", "2"]


@pytest.mark.parametrize(
    ("benchmark", "arguments", "frames"),
    [
        (render, BATCHES, 3),
        (reenact, BATCHES, 3),
        (sample, ["--seconds", "1"], 25),
        (end_to_end, ["--seconds", "0.2", "--profile"], 5),
    ],
    ids=["render", "reenact", "sample", "end_to_end"],
)
def test_rows_are_saved_and_consistent(benchmark, arguments, frames, tmp_path):
    file = tmp_path / "numbers.json"
    printed = benchmark.main([*arguments, *FAST, "--json", str(file)])
    saved = json.loads(file.read_text())
    assert saved["rows"] == json.loads(json.dumps(printed["rows"]))
    for row in saved["rows"]:
        assert len(row["seconds"]) == 2
        assert row["frames_per_second"] == pytest.approx(frames / statistics.median(row["seconds"]))
        assert row["ms_per_frame"] == pytest.approx(1000 / row["frames_per_second"])
    if "stages" in saved:
        seconds = saved["stages"]
        driving = {name for name in stages.STAGES if "driving" in name}
        assert set(stages.STAGES) - driving < set(seconds)
        assert sum(seconds.values()) == pytest.approx(2 * seconds["total"])
        assert min(seconds.values()) >= 0, "a nested stage counted twice would leave less than nothing for the rest"


@pytest.mark.parametrize("benchmark", [render, reenact])
def test_frames_agree_whatever_the_batch_size(benchmark):
    first, second = benchmark.main([*BATCHES, *FAST])["rows"]
    assert (first["max_difference"], first["psnr"]) == (0, math.inf), "the first side is compared with itself"
    assert 0 <= second["max_difference"] < 1e-4
    assert second["psnr"] > 80


def test_memory_by_length():
    rows = memory.main(["--minutes", "0.02", "--device", "cpu"])["rows"]
    assert rows[0]["frames"] == 30
    assert rows[0]["host_bytes"] >= rows[0]["models_bytes"]


def test_audio_in_blocks_equals_the_whole():
    rows = audio.main(["--small", "--compared", "0.02", "--minutes", "--device", "cpu"])["rows"]
    assert [row["what"] for row in rows] == ["whole", "blocks"]
    assert rows[1]["max_difference"] < 2e-5


def test_dub_by_stage_and_from_file_to_file(inputs):
    rows = dub.main(["--stages", *FAST, *BATCHES])["rows"]
    assert {row["side"] for row in rows} >= {"dub: encode", "dub: render", "reenact: encode"}
    assert all(row["ms_per_frame"] > 0 for row in rows)
    files = ["--video", str(inputs / "driving.mp4"), "--sound", str(inputs / "speech.wav")]
    (row,) = dub.main([*files, "--seconds", "0.4", *FAST])["rows"]
    assert (row["frames"], row["shown"], row["fps"], row["size"]) == (10, 10, "30", "80x60")
    assert row["sound_seconds"] == pytest.approx(1 / 3, abs=0.05)


def test_joins_of_both_generations():
    rows = joins.main(["--small", "--seconds", "8", "--seeds", "1", "--device", "cpu"])["rows"]
    assert [row["generation"] for row in rows] == ["v1"] * 6 + ["v2"] * 6
    assert all(row["ratio"] == pytest.approx(row["at_joins"] / row["inside"]) for row in rows)


def test_joins_of_the_avatar():
    rows = joins.main(["--avatar", "--seconds", "8", "--seeds", "1", "--device", "cpu"])["rows"]
    assert [(row["sound"], row["joins"]) for row in rows] == [
        (sound, way) for sound in ("speech", "silence") for way in joins.WAYS
    ]
    smooth, published, same = rows[3:]
    assert same["repeats"] > published["repeats"] + 0.2, "in silence nothing but the noise differs between windows"
    assert smooth["yaw"] < 1.2 < published["yaw"]


def test_joins_repeats_and_drift_of_known_motion():
    """A sine that steps by 1 from each window of 50 frames to the next, one that repeats, and a slope."""
    time = torch.arange(500.0)[:, None]
    sine = torch.sin(2 * math.pi * time / 50) * torch.ones(1, 3)
    smooth = joins.joins(sine, 50)
    stepping = joins.joins(sine + time // 50, 50)
    assert smooth["at_joins"] == pytest.approx(2 * math.sin(math.pi / 50), rel=0.01)
    assert stepping["at_joins"] == pytest.approx(smooth["at_joins"] + 1, rel=1e-3)
    assert stepping["inside"] == pytest.approx(smooth["inside"], rel=1e-3)
    assert stepping["within"] == 0
    assert joins.repetition(sine, 50) == pytest.approx(1)
    assert abs(joins.repetition(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), 50)) < 0.1
    assert joins.drift(sine) == pytest.approx(0, abs=1e-4)
    assert joins.drift(time / 499, torch.ones(1)) == pytest.approx(450 / 499, rel=1e-3)


def test_a_fine_tune_starts_from_the_avatar():
    before, after = finetune.main(["--minutes", "0.02", "--seconds", "0.8", "--lr", "1e-5"])
    assert before > 15
    assert after == pytest.approx(before, abs=0.5)


def test_a_wrong_reference_is_refused(tmp_path):
    with pytest.raises(InputError, match="no checkout of the published code"):
        render.main(["--reference", str(tmp_path), "--device", "cpu"])


def test_a_stage_counts_its_own_time_alone_and_is_restored(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: clock[0])
    name = "frames: copy to the CPU"
    owner, function = stages.STAGES[name]
    before = getattr(owner, function)

    def take(seconds):
        clock[0] += seconds

    def work():
        def blocks():
            for _ in range(3):
                take(0.05)
                yield torch.zeros(1)

        for _ in getattr(owner, function)(blocks()):
            take(0.02)  # the reader's own time

    found = stages.seconds_by_stage(work, lambda: None)
    assert found == pytest.approx({name: 0.15, "other": 0.06, "total": 0.21})
    assert getattr(owner, function) is before


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


def test_a_part_that_is_stopped_keeps_its_rows(monkeypatch, tmp_path):
    slow = (
        "import pathlib, sys, time; file = pathlib.Path(sys.argv[sys.argv.index('--json') + 1]);"
        'file.write_text(\'{"rows": [{"ratio": 12}]}\'); time.sleep(60)'
    )
    real = gpu.subprocess.run
    monkeypatch.setattr(
        gpu.subprocess, "run", lambda command, **how: real([sys.executable, "-c", slow, *command], **how)
    )
    part = gpu.Part(["render"], {"fast": gpu.at_least(10, "ratio")})
    options = SimpleNamespace(small=True, device="cpu", reference=None)
    found, rows, output = gpu.run("render", part, options, 3)
    assert (found, rows) == ({}, [{"ratio": 12}])
    assert "took longer" in output


def test_all_gpu_targets_fit_into_eight_minutes():
    assert all(part.seconds > 0 for part in gpu.PARTS.values())
    assert sum(part.seconds for part in gpu.PARTS.values()) <= 480
    assert list(gpu.PARTS).index("memory") < 4


def test_rows_of_a_check_are_written_as_they_come(monkeypatch, tmp_path):
    file, seen = tmp_path / "rows.json", []

    def check(options):
        for number in range(3):
            yield {"number": number}
            seen.append(len(json.loads(file.read_text())["rows"]))

    monkeypatch.setitem(gpu_checks.CHECKS, "golden", check)
    gpu_checks.main(["golden", "--device", "cpu", "--json", str(file)])
    assert seen == [1, 2, 3]


def test_without_kernels_plain_pytorch_runs():
    q = torch.zeros(1, 1, 16, 16)
    fake = SimpleNamespace(is_cuda=True, device=torch.device("cuda:0"), dtype=torch.float32)
    with gpu_checks.without_kernels(), torch.inference_mode():
        assert backend.with_kernel("anything", (1,), fake, lambda: "kernel", lambda: "plain") == "plain"
    assert backend.with_kernel("anything", (1,), q, lambda: "kernel", lambda: "plain") == "plain"


def test_the_bundle_holds_what_the_benchmarks_import(tmp_path, capsys):
    reference = tmp_path / "checkout"
    for name in ("renderer/models.py", "renderer/picture.png", "generator/FM.py", "generator/options/base_options.py"):
        (reference / name).parent.mkdir(parents=True, exist_ok=True)
        (reference / name).write_text("")
    folder = bundle.main([str(tmp_path / "bundle"), "--no-wheels", "--reference", str(reference)])
    assert sorted(p.name for p in (folder / "reference").rglob("*") if p.is_file()) == [
        "FM.py",
        "base_options.py",
        "models.py",
    ]
    assert "in total" in capsys.readouterr().out
    assert (folder / "RUN").read_text() == "python -m benchmarks.gpu --reference reference --json gpu.json\n"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--small", "--device", "cpu", "--only", "graph", "session"],
        cwd=folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert "not run  graph" in done.stdout
    assert "session" in done.stdout
    assert "ERROR" not in done.stdout
    with pytest.raises(InputError, match="no bundle"):
        bundle.main([str(reference), "--no-wheels"])


def test_a_gpu_check_without_a_gpu_is_refused():
    with pytest.raises(InputError, match="needs a CUDA device"):
        gpu_checks.main(["graph", "--device", "cpu"])


@pytest.fixture(scope="module")
def estimated(tmp_path_factory):
    file = tmp_path_factory.mktemp("budget") / "budget.json"
    printed = budget.main(
        ["--small", "--dtype", "float16", "--batch-size", "2", "--cards", *cards.CARDS, "--json", str(file)]
    )
    assert json.loads(file.read_text()) == json.loads(json.dumps(printed))
    assert {row["side"] for row in printed["live"]} == {"ours float16 batch 2"}
    for card, seconds in printed["live"][0]["seconds"].items():
        assert seconds > 0
        assert 0.28 + 1.5 * seconds <= printed["live"][0]["latency"][card] <= 0.36 + 1.5 * seconds
    return {part["what"]: part for part in printed["parts"]}


def test_the_budget_covers_the_whole_way(estimated):
    assert list(estimated) == ["render", "to a file", "motion encoder", "source", "motion", "audio"]
    assert {row["stage"] for row in estimated["render"]["stages"]} >= {budget.CONVOLUTIONS, "transfer", "head, output"}
    for part in estimated.values():
        *stages, total = part["stages"]
        for number in ("launches", "bytes", "flops"):
            assert sum(row[number] for row in stages) == pytest.approx(total[number])
        assert total["launches"] == sum(not operation["replayed"] for operation in part["operations"])
        assert total["us"]["H200"] <= total["us"]["RTX 3060"]
    planes = 64**2 * 3 / 2  # a byte of brightness for each pixel, two of colour for four
    assert estimated["to a file"]["copied_bytes"] - estimated["render"]["copied_bytes"] == 2 * planes
    assert estimated["render"]["waits"] == 0, "rendering never waits for the device"
    replayed = sum(operation["replayed"] for operation in estimated["motion"]["operations"])
    assert replayed > 10 * estimated["motion"]["stages"][-1]["launches"], "steps are replayed"


def test_every_triton_kernel_declares_its_work():
    texts = [path.read_text() for path in (Path(gpu.__file__).parents[1] / "imtalker").rglob("*.py")]
    kernels = [text for text in texts if "@triton.jit" in text]
    launched = {name for text in kernels for name in re.findall(r"^ +(_\w+)\[.+?\]\(", text, re.MULTILINE)}
    assert {"_attend", "_match"} <= launched <= KERNEL_WORK.keys()


def test_a_kernel_takes_the_longest_of_bytes_arithmetic_and_launch():
    card = cards.Card("round", bandwidth=1e12, half=1e14, tf32=5e13, single=2e13, processors=100, clock=1e9, source="")

    def time(kind="elementwise", dtype=torch.float16, **numbers):
        described = [((1,), dtype, torch.device("cuda:0"))]
        row = Operation("", "", "", described, described, numbers.pop("read", 0), 0, kind=kind, **numbers)
        return cards.seconds(row, card)

    assert time() == cards.SHORTEST
    assert time(replayed=True) == cards.SHORTEST_REPLAYED
    assert time(read=8e9) == pytest.approx(0.01)
    assert time("convolution", flops=5e13) == pytest.approx(1)
    assert time("convolution", torch.float32, flops=5e13) == pytest.approx(2), "TF32"
    assert time("matmul", torch.float32, flops=5e13) == pytest.approx(5), "not TF32"
    logits = cards.LOGITS_PER_CYCLE * 100 * 1e9
    assert time("attention", flops=1, details={"logits": logits}) == pytest.approx(1 / cards.ATTENTION_SHARE)
