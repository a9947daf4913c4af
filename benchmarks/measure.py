"""What the benchmarks share: command line, alternating timings, memory, agreement and output."""

import argparse
import functools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.drawn import example as drawn
from imtalker.errors import InputError
from imtalker.train.losses import psnr

from .stages import seconds_by_stage

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
GFLOP_PER_FRAME = 124  # motion decode, transfer and synthesis of one full-size frame (spec: performance)


def parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--reference", type=Path, metavar="PATH", help="checkout of the published code to compare with")
    parser.add_argument("--generation", choices=("v1", "v2"), default="v2", help="of the models (%(default)s)")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    parser.add_argument("--batch-size", nargs="+", type=int, help="frames per batch (the engine's own choice)")
    parser.add_argument("--frames", type=int, help="frames per round (4 on a CPU, 100 elsewhere)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds after a warm-up (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table to a file")
    parser.add_argument("--profile", action="store_true", help="show time by stage, module and operation")
    parser.add_argument("--small", action="store_true", help="tiny models, to try the command")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    options = parser.parse_args(arguments)
    options.device = torch.device(options.device)
    options.frames = options.frames or (4 if options.device.type == "cpu" else 100)
    if options.small and options.reference:
        raise InputError("The published code has no small size: leave out --small or --reference.")
    return options


def run(main: Callable[[list[str] | None], dict]) -> None:
    """Runs a benchmark as a command; a user mistake ends it with one sentence."""
    try:
        main(None)
    except InputError as error:
        sys.exit(str(error))


def synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def alternate(sides: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, dict]:
    """Seconds of every round of each side, and its peak memory; every other round runs in reverse order."""
    found = {name: {"seconds": [], "peak_bytes": None} for name in sides}
    for run in sides.values():
        run()  # warm-up
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            reset_peak(device)
            synchronise(device)
            started = time.perf_counter()
            sides[name]()
            synchronise(device)
            found[name]["seconds"].append(time.perf_counter() - started)
            found[name]["peak_bytes"] = max(found[name]["peak_bytes"] or 0, peak_bytes(device))
    return found


def machine_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # Linux: resets the peak of resident memory
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Peak device memory on CUDA, including all models of the process; resident memory elsewhere; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peaks(device: torch.device) -> dict[str, int]:
    """The columns host_bytes and, on CUDA, device_bytes: the peaks of this process so far."""
    row = {"host_bytes": peak_bytes(torch.device("cpu"))}
    return row | ({"device_bytes": peak_bytes(device)} if device.type == "cuda" else {})


def by_length(command: list[str], options: argparse.Namespace, minutes: list[float]) -> list[dict]:
    """A row for each length: the last line that `command` prints for --sound FILE, each in its own process."""
    command = [sys.executable, "-m", *command, "--device", str(options.device), "--generation", options.generation]
    table = []
    with tempfile.TemporaryDirectory() as folder:
        for length in minutes:
            sound = Path(folder) / "sound.wav"
            write_sound(sound, length)
            done = subprocess.run([*command, "--sound", str(sound)], check=True, stdout=subprocess.PIPE, text=True)
            table.append({"minutes": length} | json.loads(done.stdout.splitlines()[-1]))
    return table


def write_sound(path: Path, minutes: float) -> None:
    """Writes 10 s of speech, repeated, to a WAV file without holding it whole in memory."""
    voice = drawn.speech(10)
    pcm = (voice.waveform[0] * 32767).short().numpy()
    left = round(60 * minutes * voice.sample_rate)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, voice.sample_rate, left, "NONE", ""))
        while left:
            part = pcm[:left]
            file.writeframes(part.tobytes())
            left -= len(part)


def rows(found: dict[str, dict], frames: int, baseline: str | None) -> list[dict]:
    """A row of medians for each side; the ratio is the median over rounds of baseline seconds / own seconds."""
    table = []
    for name, side in found.items():
        seconds = statistics.median(side["seconds"])
        row = {
            "side": name,
            "frames_per_second": frames / seconds,
            "ms_per_frame": 1000 * seconds / frames,
            "peak_bytes": side["peak_bytes"],
            "seconds": side["seconds"],
        }
        if baseline:
            pairs = zip(found[baseline]["seconds"], side["seconds"])
            row["ratio"] = statistics.median(theirs / ours for theirs, ours in pairs)
        table.append(row)
    return table


def agreement(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """Largest difference and PSNR in dB, over all values (in 0..1) together."""
    ours, theirs = ours.double().flatten()[None], theirs.double().flatten()[None]
    return {"max_difference": (ours - theirs).abs().max().item(), "psnr": psnr(ours, theirs)}


@torch.inference_mode()
def arithmetic_limit(device: torch.device, dtype: torch.dtype, small: bool) -> dict[str, float]:
    """GFLOP/s of a large matrix product and of a large convolution on this device."""
    n = 256 if small else 2048 if device.type == "cpu" else 8192
    a = torch.randn(n, n, device=device, dtype=dtype)
    side, channels = (16, 32) if small else (64, 256) if device.type == "cpu" else (128, 512)
    x = torch.randn(4, channels, side, side, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    w = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    work = {
        "matmul": (lambda: a @ a, 2 * n**3),
        "convolution": (lambda: F.conv2d(x, w, padding=1), 2 * 9 * 4 * side**2 * channels**2),
    }
    found = {}
    for name, (compute, flop) in work.items():
        compute()
        best = []
        for _ in range(5):
            synchronise(device)
            started = time.perf_counter()
            compute()
            synchronise(device)
            best.append(time.perf_counter() - started)
        found[f"{name}_gflops"] = flop / min(best) / 1e9
    return found


@contextmanager
def stages(model: nn.Module, device: torch.device, depth: int, found: dict[str, float]):
    """Adds to `found` the synchronised seconds inside each module down to `depth`, children included."""
    handles, started = [], {}

    def enter(name):
        def hook(*_):
            synchronise(device)
            started[name] = time.perf_counter()

        return hook

    def leave(name):
        def hook(*_):
            synchronise(device)
            found[name] = found.get(name, 0) + time.perf_counter() - started[name]

        return hook

    for name, module in model.named_modules():
        if name and name.count(".") < depth:
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def profile(model: nn.Module, work: Callable[[], object], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Prints and returns the seconds of `work` by stage and by module of `model`; prints the slowest operations."""
    by_stage = seconds_by_stage(work, functools.partial(synchronise, options.device))
    print("\nby stage, without overlap:")
    for name, seconds in by_stage.items():
        print(f"  {name:38} {1000 * seconds:10.2f} ms {seconds / by_stage['total']:6.1%}")
    found: dict[str, float] = {}
    synchronise(options.device)
    started = time.perf_counter()
    with stages(model, options.device, 3, found):
        work()
    synchronise(options.device)
    total = time.perf_counter() - started
    print(f"\nby module, children included, {total:.3f} s in total:")
    for name, seconds in sorted(found.items()):
        print(f"  {name:32} {1000 * seconds:10.2f} ms {seconds / total:6.1%}")
    activities = [torch.profiler.ProfilerActivity.CPU]
    if options.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as record:
        work()
    order = "self_device_time_total" if options.device.type == "cuda" else "self_cpu_time_total"
    print(record.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=50))
    return {"stages": by_stage, "modules": found}


def report(options: argparse.Namespace, what: str, table: list[dict], **more) -> dict:
    """Prints the table, writes --json, and returns what it wrote."""
    machine = machine_name(options.device)
    print(f"{what}, {options.generation}, {machine}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    columns = [key for key in dict.fromkeys(key for row in table for key in row) if key != "seconds"]
    lines = [columns] + [[_cell(row.get(column)) for column in columns] for row in table]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths)))
    for key, value in more.items():
        print(f"{key}: {value}")
    settings = {key: value if isinstance(value, int | list) else str(value) for key, value in vars(options).items()}
    result = {"what": what, "machine": machine, "torch": torch.__version__, "options": settings, "rows": table, **more}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return result


def save_rows(options: argparse.Namespace, table: list[dict]) -> None:
    """Writes what there is of a table to --json, so that a run that is stopped keeps it."""
    if options.json:
        options.json.write_text(json.dumps({"rows": table}, indent=1))


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
