"""Many videos from a table: each row is a job, on every device of this machine or on those of a Ray cluster.

The table is CSV with the columns source, audio or driving, output, and any of SETTINGS; paths are relative to it.
Beside JOBS.csv, JOBS.csv.report.csv says what became of each row. A later run skips the rows that are done in it, as
long as their settings, inputs, weights and output are the same.
"""

import csv
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from ..errors import InputError
from ..media.atomic import whole_file
from ..media.files import VIDEO_SUFFIXES, check_output
from .jobs import Job, Models
from .resume import weights_state

log = logging.getLogger("imtalker")

FILES = ("source", "audio", "driving", "output", "control", "pose", "gaze")
SETTINGS = {"seed": int, "cfg": float, "nfe": int, "fps": float, "crop": str, "frames": int, "mark": str}
MAX_ROWS = 100_000
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Row:
    """One row of the table, or what became of it: `message` says what is wrong with it."""

    number: int  # 1 for the first below the names
    output: str
    job: Job | None = None
    status: str = ""
    frames: int = 0
    seconds: float = 0.0
    message: str = ""
    key: str = ""  # changes with anything that the video follows from


REPORT = ("number", "output", "status", "frames", "seconds", "message", "key")


def read_jobs(path: Path) -> list[Row]:
    """The rows of a table, all checked; those that cannot run are `failed` and say why.

    InputError: not a CSV file, columns missing or unknown, no rows.
    """
    try:
        # Excel writes a byte order mark
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, strict=True)
            _check_columns(path, table.fieldnames or [])
            rows = []
            for values in table:
                rows.append(_row(len(rows) + 1, values, path.resolve().parent))
                if len(rows) > MAX_ROWS:
                    raise InputError(f"{path} has more than {MAX_ROWS} rows: split it.")
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{path} cannot be read as a table (CSV in UTF-8): {problem}.") from problem
    if not rows:
        raise InputError(f"{path} holds no jobs: write one a line, below the names of the columns.")
    return _refuse_clashes(rows)


def _check_columns(path: Path, names: list[str]) -> None:
    known = (*FILES, *SETTINGS)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{path} has a column {unknown[0][:40]!r}, which is not known; known are {', '.join(known)}.")
    if len(set(names)) < len(names):
        raise InputError(f"{path} has a column twice: {', '.join(names)}.")
    if not {"source", "output"} <= set(names) or not {"audio", "driving"} & set(names):
        raise InputError(f"{path} needs the columns source, output, and audio or driving; it has {', '.join(names)}.")


def _row(number: int, values: dict, folder: Path) -> Row:
    output = values.get("output") or ""
    if None in values or None in values.values():
        return Row(number, output, status=FAILED, message="The row has more or fewer cells than there are columns.")
    given = {name: text.strip() for name, text in values.items() if text.strip()}
    try:
        return Row(number, output, _job(given, folder))
    except InputError as error:
        return Row(number, output, status=FAILED, message=str(error))


def _job(given: dict[str, str], folder: Path) -> Job:
    for name in ("source", "output"):
        if name not in given:
            raise InputError(f"The cell {name} is empty.")
    if ("audio" in given) == ("driving" in given):
        raise InputError("Either audio or driving must be given, and not both.")
    fields = {name: folder / text for name, text in given.items() if name in FILES}
    for name, kind in SETTINGS.items():
        if name in given:
            try:
                fields[name] = kind(given[name])
            except ValueError as error:
                raise InputError(f"{name} must be a number, not {given[name][:40]!r}.") from error
    job = Job(**fields)
    if job.crop not in ("auto", "none"):
        raise InputError(f"crop must be auto or none, not {job.crop[:40]!r}.")
    for name in ("fps", "frames"):
        if (value := getattr(job, name)) is not None and not value > 0:
            raise InputError(f"{name} must be above 0, not {value}.")
    for name, path in job.inputs().items():
        if not path.is_file():
            raise InputError(f"There is no file {path} ({name}).")
    check_output(job.output, *VIDEO_SUFFIXES)
    return job


def _refuse_clashes(rows: list[Row]) -> list[Row]:
    """Outputs that several rows would write, or that are the input of a row, are written by none."""
    places = [row.job and _place(row.job.output) for row in rows]
    written = Counter(filter(None, places))
    read = {_place(path) for row in rows if row.job for path in row.job.inputs().values()}
    checked = []
    for row, place in zip(rows, places):
        if place and (written[place] > 1 or place in read):
            why = "read as an input" if place in read else "the output of another row as well"
            row = replace(row, job=None, status=FAILED, message=f"{row.output} is {why}: choose another name.")
        checked.append(row)
    return checked


def _place(path: Path) -> str:
    # as on a disk that does not tell capitals apart
    return os.path.realpath(path).casefold()


def run(
    path: Path,
    models: Models,
    devices: list[str] | None = None,
    ray: str | None = None,
    told: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Makes every video of the table that is not done yet and returns all its rows, each with its outcome.

    devices: one process each; None for every CUDA device where `models` leave it open, else the one they name.
    ray: the address of a cluster ("auto", "host:port", or "local" for one of this machine alone) to use instead.
    told(row) is called as each is finished. InputError as for `read_jobs`, or without Ray where it is wanted.
    """
    weights = weights_state(models)
    rows = [row if row.job is None else replace(row, key=_key(row.job, models, weights)) for row in read_jobs(path)]
    report = path.with_name(f"{path.name}.report.csv")
    before = _done_before(report)
    outcomes = {}
    for row in rows:
        if row.job is None:
            outcomes[row.number] = row
        elif row.key in before and row.job.output.is_file():
            outcomes[row.number] = replace(before[row.key], number=row.number, output=row.output, message="before")
    for outcome in outcomes.values():
        told(outcome)
    # what a killed run has finished is kept: lines are added as they come, and put in order at the end
    _write_report(report, [outcomes[number] for number in sorted(outcomes)])
    waiting = [row for row in rows if row.number not in outcomes]
    if ray is not None:
        finished = _on_ray(waiting, models, ray)
    else:
        devices = devices or _devices(models)
        finished = _in_processes(waiting, models, devices) if len(devices) > 1 else _here(waiting, models)
    for row in finished:
        outcomes[row.number] = row
        with open(report, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(_line(row))
        told(row)
    ordered = [outcomes[number] for number in sorted(outcomes)]
    _write_report(report, ordered)
    return ordered


def _key(job: Job, models: Models, weights: dict) -> str:
    """Of the settings, the weights, and size and time of each input."""
    states = {name: path.stat() for name, path in job.inputs().items()}
    inputs = {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}
    made_from = {**asdict(job), "inputs": inputs, "weights": weights, "dtype": models.dtype}
    return hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _done_before(report: Path) -> dict[str, Row]:
    """The rows that an earlier run has finished, by key. A line cut short by a kill is of no row."""
    if not report.is_file():
        return {}
    done = {}
    with open(report, newline="", encoding="utf-8", errors="replace") as file:
        try:
            for cells in csv.reader(file):
                if len(cells) == len(REPORT) and cells[2] == DONE:
                    frames, seconds, key = int(cells[3]), float(cells[4]), cells[6]
                    done[key] = Row(0, cells[1], status=DONE, frames=frames, seconds=seconds, key=key)
        except (csv.Error, ValueError):
            log.warning("%s is damaged: the rows after its line %d are made again.", report, len(done) + 1)
    return done


def _write_report(report: Path, rows: Iterable[Row]) -> None:
    with whole_file(report) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([REPORT, *map(_line, rows)])


def _line(row: Row) -> list:
    return [f"{row.seconds:.1f}" if name == "seconds" else getattr(row, name) for name in REPORT]


def _devices(models: Models) -> list[str]:
    if models.device == "auto" and torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [models.device]


def _make(row: Row, models: Models) -> Row:
    """One row's video; whatever goes wrong is that row's outcome."""
    started = time.monotonic()
    try:
        frames = models.clip(row.job).save(row.job.output, models.tags)
    except InputError as error:
        return replace(row, job=None, status=FAILED, message=" ".join(str(error).split()))
    except torch.OutOfMemoryError:
        message = "The device is out of memory; give a smaller --batch-size."
        return replace(row, job=None, status=FAILED, message=message)
    except Exception as error:
        log.exception("Row %d", row.number)
        return replace(row, job=None, status=FAILED, message=f"{type(error).__name__}: {error}")
    return replace(row, job=None, status=DONE, frames=frames, seconds=time.monotonic() - started)


def _here(rows: Iterable[Row], models: Models) -> Iterator[Row]:
    for row in rows:
        yield _make(row, models)


def _in_processes(rows: list[Row], models: Models, devices: list[str]) -> Iterator[Row]:
    """A process for each device; one that dies costs the row it was at, and is replaced."""
    context = multiprocessing.get_context("spawn")  # CUDA cannot be used after a fork
    waiting = iter(rows)
    busy: dict[Connection, tuple] = {}

    def give(connection: Connection | None, process, device: str) -> None:
        """The next row to a process, started where there is none; ends it where there is no row left."""
        row = next(waiting, None)
        if row is None:
            if connection:
                with suppress(ConnectionError):  # it has died with nothing to do
                    connection.send(None)
                process.join()
            return
        if connection is None:
            connection, other = context.Pipe()
            process = context.Process(target=_work, args=(other, replace(models, device=device)), daemon=True)
            process.start()
            other.close()  # or the end of the process would not be seen
        busy[connection] = process, device, row
        with suppress(ConnectionError):  # it has died since its last row: read as the end of this one
            connection.send(row)

    try:
        for device in devices:
            give(None, None, device)
        while busy:
            for connection in wait(list(busy)):
                process, device, row = busy.pop(connection)
                try:
                    outcome = connection.recv()
                except (EOFError, ConnectionError):
                    process.join()
                    message = f"The process on {device} died (exit code {process.exitcode})."
                    outcome, connection = replace(row, job=None, status=FAILED, message=message), None
                yield outcome
                give(connection, process, device)
    finally:
        for process, *_ in busy.values():
            process.terminate()  # as Ctrl-C, see _work
        for process, *_ in busy.values():
            process.join()


def _work(connection: Connection, models: Models) -> None:
    """What a process does: rows in, outcomes out, until there is none."""
    # Ctrl-C reaches every process of a terminal, and is the parent's to answer; what it sends ends the row cleanly.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while (row := connection.recv()) is not None:
            connection.send(_make(row, models))
    except (KeyboardInterrupt, EOFError, ConnectionError):
        pass


@lru_cache(maxsize=1)
def _kept(models: Models) -> Models:
    """The equal of `models` that came first, and has loaded them: Ray keeps its processes from task to task."""
    return models


def _make_with_kept(row: Row, models: Models) -> Row:
    return _make(row, _kept(models))


def _on_ray(rows: list[Row], models: Models, address: str) -> Iterator[Row]:
    """Each row a task. The cluster's machines must have this package, and see the same files under the same paths."""
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed: run `pip install ray`, or leave --ray out.") from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"No Ray cluster answers at {address}: {error}") from error
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        # max_calls: by default Ray ends a process after each task on a GPU, and the models with it
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=0, max_retries=0)(_make_with_kept)
        running = {task.remote(row, models): row for row in rows}
        while running:
            [finished], _ = ray.wait(list(running), num_returns=1)
            row = running.pop(finished)
            try:
                yield ray.get(finished)
            except ray.exceptions.RayError as error:
                message = f"A Ray worker died: {str(error).splitlines()[0]}"
                yield replace(row, job=None, status=FAILED, message=message)
    finally:
        ray.shutdown()
