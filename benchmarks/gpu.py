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
    seconds: float = 0  # estimated, on a fast card, with the reference


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


def where(check: Check, **values) -> Check:
    """A check of the rows that have these values."""
    return lambda rows: check([row for row in rows if all(row.get(key) == value for key, value in values.items())])


BOTH = ["--dtype", "float16", "float32"]
HALF = ["--dtype", "float16"]
TINY = ["--frames", "2", "--rounds", "1"]
# PSNR that honest half precision reaches on golden frames, less about 3 dB; a softmax scaled by 0.9 gives 54.8 in v2
LOWEST_PSNR = {("v2", "float16"): 60, ("v1", "float16"): 55, ("v2", "bfloat16"): 50, ("v1", "bfloat16"): 43}
# of the attention that finds matches: rounding alone gives 2e-4 in float16, a softmax scaled by 0.9 gives 3e-3
ATTENTION_ERROR = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 2.5e-3}
RIGHT_MATCHES = 0.9995  # float32 leaves ties open
# the most important first, in case the time runs out
PARTS = {
    "golden": Part(
        ["gpu_checks", "golden", "--dtype", "float16", "bfloat16"],
        {
            "float32: golden numbers to 2e-5": at_most(2e-5, "max_difference", dtype="float32"),
            **{
                f"{generation} {dtype}: PSNR >= {lowest} dB on every frame": where(
                    at_least(lowest, "lowest_psnr"), generation=generation, dtype=dtype
                )
                for (generation, dtype), lowest in LOWEST_PSNR.items()
            },
            **{
                f"{dtype}: attention to {ATTENTION_ERROR[dtype]:g} of the truth": at_most(
                    ATTENTION_ERROR[dtype], "attention_error", dtype=dtype
                )
                for dtype in ("float16", "bfloat16")
            },
            "matches: the true ones for 99.95 %": at_least(RIGHT_MATCHES, "right_matches"),
        },
        full_size=True,
        cuda=True,
        seconds=70,
    ),
    "render": Part(
        ["render", *BOTH, "--frames", "64"],
        {
            "render, float16: >= 10 x": at_least(10, "ratio", "ours float16"),
            "render, the published precision: >= 4 x": at_least(4, "ratio", "ours float32"),
        },
        small=["render", *TINY],
        seconds=60,
    ),
    "memory": Part(
        ["memory", *HALF, "--full-size", "--minutes", "0.1667", "4"],
        {
            "device memory of 10 s and 4 min equal to 5 %": flat("device_bytes"),
            "host memory of 10 s and 4 min equal to 5 %": flat("host_bytes"),
            "host memory above the models: <= 2 GB": above_models,
        },
        small=["memory", "--minutes", "0.01", "0.02"],
        seconds=80,
    ),
    "triton": Part(
        ["gpu_checks", "triton"],
        {
            **{
                f"{dtype}: kernel to {error:g} of the truth": at_most(error, "attention_error", dtype=dtype)
                for dtype, error in ATTENTION_ERROR.items()
            },
            "matches: the true ones for 99.95 %": at_least(RIGHT_MATCHES, "right_matches"),
            "ties go to the first key": at_most(0, "not_first"),
        },
        cuda=True,
        seconds=20,
    ),
    "graph": Part(
        ["gpu_checks", "graph"],
        {
            "steps are recorded": at_least(1, "recorded"),
            "steps are recorded again after the weights have moved": at_least(1, "recorded_again"),
            "replayed motion = plain to 1e-3": at_most(1e-3, "max_difference"),
        },
        cuda=True,
        seconds=30,
    ),
    "halving": Part(
        ["gpu_checks", "halving"],
        {
            "a batch that does not fit is halved": at_most(4, "largest_batch"),
            "later batches are whole again": at_least(8, "afterwards"),
            "the frames are those of smaller batches to 5e-2": at_most(5e-2, "max_difference"),
        },
        cuda=True,
        full_size=True,
        seconds=15,
    ),
    "offload": Part(
        ["gpu_checks", "offload"],
        {
            "frames are the same after weights have left and come back": at_most(0, "max_difference"),
            "moved weights free memory": at_least(1, "freed_bytes"),
        },
        cuda=True,
        seconds=15,
    ),
    "reenact": Part(
        ["reenact", *HALF, "--frames", "64"],
        {"video-driven, float16: >= 8 x": at_least(8, "ratio", "ours float16")},
        small=["reenact", *TINY],
        seconds=40,
    ),
    "end_to_end": Part(
        ["end_to_end", *HALF, "--rounds", "2", "--profile"],
        {
            "10 s of speech to an mp4: >= 8 x": at_least(8, "ratio", "ours float16"),
            "first frame: <= 0.5 s": at_most(0.5, "first_frame_seconds"),
        },
        small=["end_to_end", "--seconds", "0.2", "--rounds", "1"],
        seconds=65,
    ),
    "session": Part(
        ["session", "--dtype", "float16", "--chunk", "0.4", "--seconds", "6"],
        {
            "live, chunks of 0.4 s: first frame after <= 200 ms": at_most(200, "first_frame_ms"),
            "live: >= 2 x real time": at_least(2, "real_time"),
        },
        small=["session", "--chunk", "0.4", "--seconds", "2"],
        seconds=25,
    ),
    "sample": Part(
        ["sample", *BOTH],
        {"motion for 10 s: >= 3 x": at_least(3, "ratio", "ours float32")},
        small=["sample", "--seconds", "1", "--rounds", "1"],
        seconds=30,
    ),
    "plain": Part(
        ["gpu_checks", "plain"],
        {"without Triton: the same frames to 40 dB": at_least(40, "psnr")},
        cuda=True,
        seconds=15,
    ),
    "peak": Part(
        # without the published code in memory
        ["render", *HALF, "--batch-size", "8", "--frames", "64", "--rounds", "1"],
        {"render, float16, batch 8: <= 2.5 GB on the device": at_most(2.5e9, "peak_bytes")},
        cuda=True,
        full_size=True,
        seconds=15,
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
    print(f"about {sum(PARTS[name].seconds for name in options.only):.0f} s on a fast card", flush=True)
    ends = time.monotonic() + options.limit
    for name in options.only:
        part, started = PARTS[name], time.monotonic()
        why = (
            "no CUDA device" if part.cuda and not cuda
            else "full size only" if part.full_size and options.small
            else "out of time" if ends - started < 5
            else None
        )  # fmt: skip
        found, rows, tail = ({}, [], "") if why else run(name, part, options, ends - started)
        error = None if found or why else tail.strip().splitlines()[-1:] or ["no output"]
        seconds = time.monotonic() - started
        result["parts"][name] = {
            "seconds": seconds,
            "not_run": why,
            "error": error,
            "output": tail,
            "rows": rows,
            **found,
        }
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


def run(name: str, part: Part, options: argparse.Namespace, limit: float) -> tuple[dict, list[dict], str]:
    """What the part's command saved, {} if it failed; the rows it had by then; and the end of its output."""
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
            whole = done.returncode == 0
        except subprocess.TimeoutExpired:
            whole, output = False, f"took longer than the remaining {limit:.0f} s"
        saved = json.loads(file.read_text()) if file.is_file() else {}
    return saved if whole else {}, saved.get("rows", []), output[-6000:]


if __name__ == "__main__":
    outcome = main()
    sys.exit(any(row["state"] in ("FAIL", "ERROR") for row in outcome["targets"]))
