"""Checks all GPU targets, part by part, in about 8 minutes: python -m benchmarks.gpu --reference PATH --json FILE

Each part runs in its own process, so a failure in one does not lose the others. Parts that do not fit into --limit or
need CUDA where there is none are "not run". Ratios need --reference (see benchmarks/reference.py). The JSON file holds
everything that the parts measured. Not run on a GPU yet.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .measure import machine_name

Check = Callable[[list[dict]], tuple[float, bool] | None]


@dataclass(frozen=True)
class Part:
    """A command and its targets: functions of its rows that return (value, reached), or None if a column is missing."""

    arguments: list[str]
    targets: dict[str, Check]
    cuda: bool = False  # needs a CUDA device
    full_size: bool = False
    small: list[str] = field(default_factory=list)  # arguments for --small


def at_least(target: float, column: str, side: str = "") -> Check:
    """The smallest value of a column must reach the target."""

    def check(rows: list[dict]) -> tuple | None:
        found = [row[column] for row in rows if column in row and row.get("side", "").startswith(side)]
        return (min(found), min(found) >= target) if found else None

    return check


def at_most(target: float, column: str, side: str = "", **where) -> Check:
    """The largest value of a column must not exceed the target."""

    def check(rows: list[dict]) -> tuple | None:
        rows = [row for row in rows if all(row.get(key) == value for key, value in where.items())]
        found = [row[column] for row in rows if column in row and row.get("side", "").startswith(side)]
        return (max(found), max(found) <= target) if found else None

    return check


def flat(column: str) -> Check:
    """The values of a column must agree to 5 %."""

    def check(rows: list[dict]) -> tuple | None:
        found = [row[column] for row in rows if column in row]
        return (max(found) / min(found), max(found) <= 1.05 * min(found)) if len(found) > 1 else None

    return check


def above_models(rows: list[dict]) -> tuple[float, bool]:
    """Host memory on top of the models must not exceed 2 GB."""
    found = max(row["host_bytes"] - row["models_bytes"] for row in rows)
    return found, found <= 2e9


BOTH = ["--dtype", "float16", "float32"]
HALF = ["--dtype", "float16"]
TINY = ["--frames", "2", "--rounds", "1"]
# the most important first, in case the time runs out
PARTS = {
    "golden": Part(
        ["gpu_checks", "golden", "--dtype", "float16", "bfloat16"],
        {
            "float16: PSNR >= 45 dB on every golden frame": lambda rows: at_least(45, "lowest_psnr")(
                [row for row in rows if row["dtype"] == "float16"]
            ),
            "float32: golden numbers to 2e-5": at_most(2e-5, "max_difference", dtype="float32"),
        },
        full_size=True,
        cuda=True,
    ),
    "triton": Part(
        ["gpu_checks", "triton"],
        {
            "float32: Triton kernel = blocks to 1e-4": at_most(1e-4, "max_difference", dtype="torch.float32"),
            "float16: Triton kernel = blocks to 1e-2": at_most(1e-2, "max_difference", dtype="torch.float16"),
            "matches: the same for 99.9 %": at_least(0.999, "same_match"),
            "ties go to the first key": at_most(0, "not_first"),
        },
        cuda=True,
    ),
    "graph": Part(
        ["gpu_checks", "graph"],
        {
            "steps are recorded": at_least(1, "recorded"),
            "steps are recorded again after the weights have moved": at_least(1, "recorded_again"),
            "replayed motion = plain to 1e-3": at_most(1e-3, "max_difference"),
        },
        cuda=True,
    ),
    "render": Part(
        ["render", *BOTH, "--frames", "64"],
        {
            "render, float16: >= 10 x": at_least(10, "ratio", "ours float16"),
            "render, the published precision: >= 4 x": at_least(4, "ratio", "ours float32"),
        },
        small=["render", *TINY],
    ),
    "sample": Part(
        ["sample", *BOTH],
        {"motion for 10 s: >= 3 x": at_least(3, "ratio", "ours float32")},
        small=["sample", "--seconds", "1", "--rounds", "1"],
    ),
    "end_to_end": Part(
        ["end_to_end", *HALF, "--rounds", "2", "--profile"],
        {
            "10 s of speech to an mp4: >= 8 x": at_least(8, "ratio", "ours float16"),
            "first frame: <= 0.5 s": at_most(0.5, "first_frame_seconds"),
        },
        small=["end_to_end", "--seconds", "0.2", "--rounds", "1"],
    ),
    "reenact": Part(
        ["reenact", *HALF, "--frames", "64"],
        {"video-driven, float16: >= 8 x": at_least(8, "ratio", "ours float16")},
        small=["reenact", *TINY],
    ),
    "peak": Part(
        # without the published code in memory
        ["render", *HALF, "--batch-size", "8", "--frames", "64", "--rounds", "1"],
        {"render, float16, batch 8: <= 2.5 GB on the device": at_most(2.5e9, "peak_bytes")},
        cuda=True,
        full_size=True,
    ),
    "memory": Part(
        ["memory", *HALF, "--full-size", "--minutes", "0.1667", "10"],
        {
            "device memory of 10 s and 10 min equal to 5 %": flat("device_bytes"),
            "host memory of 10 s and 10 min equal to 5 %": flat("host_bytes"),
            "host memory above the models: <= 2 GB": above_models,
        },
        small=["memory", "--minutes", "0.01", "0.02"],
    ),
}
WITH_REFERENCE = ("render", "sample", "end_to_end", "reenact")


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, metavar="PATH", help="checkout of the published code")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--limit", type=float, default=480, metavar="SECONDS", help="time limit of all parts (%(default)g)"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="updated after every part")
    parser.add_argument("--small", action="store_true", help="tiny models, to try the command")
    options = parser.parse_args(arguments)
    cuda = torch.device(options.device).type == "cuda"
    machine = machine_name(torch.device(options.device))
    print(f"{machine}, torch {torch.__version__}, reference: {options.reference or 'none'}", flush=True)
    result = {"machine": machine, "torch": torch.__version__, "small": options.small, "targets": [], "parts": {}}
    ends = time.monotonic() + options.limit
    for name in options.only:
        part, started = PARTS[name], time.monotonic()
        why = (
            "no CUDA device" if part.cuda and not cuda
            else "full size only" if part.full_size and options.small
            else "out of time" if ends - started < 5
            else None
        )  # fmt: skip
        found, tail = ({}, "") if why else run(name, part, options, ends - started)
        error = None if found or why else tail.strip().splitlines()[-1:] or ["no output"]
        seconds = time.monotonic() - started
        result["parts"][name] = {"seconds": seconds, "not_run": why, "error": error, "output": tail, **found}
        for target, check in part.targets.items():
            outcome = check(found["rows"]) if found else None
            state = "not run" if why else "ERROR" if error else "not run" if outcome is None else "pass"
            state = "FAIL" if outcome and not outcome[1] else state
            why_not = why or (error[0] if error else "needs --reference" if outcome is None else "")
            row = {
                "part": name,
                "target": target,
                "state": state,
                "value": outcome[0] if outcome else None,
                "why": why_not,
            }
            result["targets"].append(row)
            value = f"{float(outcome[0]):.4g}" if outcome else why_not
            print(f"{state:8} {name:11} {target:55} {value}  ({seconds:.0f} s)", flush=True)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1))
    return result


def run(name: str, part: Part, options: argparse.Namespace, limit: float) -> tuple[dict, str]:
    """What the part's command saved, {} if it failed, and the end of its output."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        arguments = part.small if options.small and part.small else part.arguments
        command = [sys.executable, "-m", f"benchmarks.{arguments[0]}", *arguments[1:], "--json", str(file)]
        command += ["--device", options.device]
        # the memory benchmark is small by default
        command += ["--small"] if options.small and name != "memory" else []
        if options.reference and name in WITH_REFERENCE:
            command += ["--reference", str(options.reference)]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit)
            output = done.stdout
        except subprocess.TimeoutExpired:
            return {}, f"took longer than the remaining {limit:.0f} s"
        saved = file.read_text() if file.is_file() and done.returncode == 0 else "{}"
    return json.loads(saved), output[-6000:]


if __name__ == "__main__":
    outcome = main()
    sys.exit(any(row["state"] in ("FAIL", "ERROR") for row in outcome["targets"]))
