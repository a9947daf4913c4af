"""Many videos from a table, one job per row, on all devices of this machine or on a Ray cluster.

The table is CSV with the columns source, audio or driving, output, and any of SETTINGS; or video and audio, to dub the
video, and any of DUB_SETTINGS too. Paths are relative to it. The
report beside it, JOBS.csv.report.csv, lists the outcome of each row. A later run skips the rows listed as done, as long
as their settings, inputs, weights and output are unchanged.
"""

import csv
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import get_args

import torch

from ..dubbing.dub import Ending
from ..dubbing.plan import Shots, Tracking
from ..errors import InputError
from ..media.atomic import only_run, whole_file
from ..media.files import regular_file, unusable
from ..models.backend import is_out_of_memory
from ..motion.inertia import check_joins
from ..motion.retarget import reference
from . import numbers
from .jobs import DUBBING, FACES, Job, Models, check_output_of
from .resume import weights_state

log = logging.getLogger("imtalker")

FILES = ("source", "audio", "driving", "video", "output", "control", "pose", "gaze", "mask", "expression", "rig")
NUMBERS = {
    "seed": numbers.SEED,
    "cfg": numbers.CFG,
    "nfe": numbers.NFE,
    "fps": numbers.FPS,
    "frames": numbers.FRAMES,
    "strength": numbers.STRENGTH,
    "blinks": numbers.BLINKS,
    "index": numbers.INDEX,
    "gate": numbers.DECIBELS,
    **dict.fromkeys(("lower_face", "head", "colour_match", "keep_sound"), numbers.SHARE),
}
CHOICES = {"crop": ("auto", "none"), "face": FACES, "tracking": get_args(Tracking), "shots": get_args(Shots),
           "ending": get_args(Ending)}  # fmt: skip
SETTINGS = ("seed", "cfg", "nfe", "joins", "fps", "crop", "frames", "relative", "strength", "blinks", "mark")
DUB_SETTINGS = ("face", *DUBBING[1:])
MAX_ROWS = 100_000
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Row:
    """One row of the table, with its outcome once there is one; `message` says what went wrong."""

    number: int  # 1 for the first row below the header
    output: str
    job: Job | None = None
    status: str = ""
    frames: int = 0
    seconds: float = 0.0
    message: str = ""
    key: str = ""  # changes with anything the video depends on


REPORT = ("number", "output", "status", "frames", "seconds", "message", "key")


def read_jobs(path: Path) -> list[Row]:
    """Reads and checks all rows of a table; rows that cannot run are `failed` and say why.

    Raises InputError for a file that is not CSV, missing or unknown columns, and an empty table.
    """
    try:
        regular_file(path)
        # utf-8-sig: Excel writes a byte order mark
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, strict=True)
            _check_columns(path, table.fieldnames or [])
            rows = []
            for values in table:
                rows.append(_row(len(rows) + 1, values, path.resolve().parent))
                if len(rows) > MAX_ROWS:
                    raise InputError(f"{path} has more than {MAX_ROWS} rows: split it into several tables.")
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{path} cannot be read as CSV in UTF-8 ({problem}): save it in that format.") from problem
    if not rows:
        raise InputError(f"{path} holds no jobs: add one per line, below the header.")
    return _refuse_clashes(rows, path)


def _check_columns(path: Path, names: list[str]) -> None:
    known = (*FILES, *SETTINGS, *DUB_SETTINGS)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{path} has an unknown column {unknown[0][:40]!r}: use {', '.join(known)}.")
    if len(set(names)) < len(names):
        raise InputError(f"{path} has the same column twice ({', '.join(names)}): remove one.")
    given = set(names)
    dubs, others = {"video", "audio"} <= given, "source" in given and {"audio", "driving"} & given
    if "output" not in given or not (dubs or others):
        raise InputError(
            f"{path} needs the columns output, and source with audio or driving, or video with audio, but has "
            f"{', '.join(names)}."
        )


def _row(number: int, values: dict, folder: Path) -> Row:
    output = values.get("output") or ""
    if None in values or None in values.values():
        return Row(number, output, status=FAILED, message="The row has more or fewer cells than the header.")
    given = {name: text.strip() for name, text in values.items() if text.strip()}
    try:
        return Row(number, output, _job(given, folder))
    except InputError as error:
        return Row(number, output, status=FAILED, message=str(error))


def _job(given: dict[str, str], folder: Path) -> Job:
    for name in ("output", "audio" if "video" in given else "source"):
        if name not in given:
            raise InputError(f"The cell {name} is empty: fill it in.")
    if "video" in given and {"source", "driving"} & given.keys():
        raise InputError("A row with a video is dubbed: leave source and driving empty.")
    if "video" not in given and ("audio" in given) == ("driving" in given):
        raise InputError("Fill in either audio or driving, not both.")
    fields = {"source": None} | {name: folder / text for name, text in given.items() if name in FILES}
    for name in (*SETTINGS, *DUB_SETTINGS):
        if name in given and name not in NUMBERS:
            fields[name] = given[name]
        elif name in given:
            try:
                fields[name] = NUMBERS[name].read(given[name])
            except InputError as error:
                raise InputError(f"{name} {error}") from error
    if "relative" in fields:
        try:
            fields["relative"] = reference(fields["relative"])
        except ValueError as error:
            raise InputError(
                f"relative must be first, mean, neutral or a frame number, not {given['relative'][:40]!r}."
            ) from error
    for name, allowed in CHOICES.items():
        if name in fields and fields[name] not in allowed:
            raise InputError(f"{name} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {fields[name][:40]!r}.")
    dubbing = {"which" if name == "face" else name: fields.pop(name) for name in DUB_SETTINGS if name in fields}
    job = Job(**fields, dubbing=dubbing)
    check_joins(job.joins)
    check_output_of(job)
    for path in job.inputs().values():
        regular_file(path)
    return job


def _refuse_clashes(rows: list[Row], table: Path) -> list[Row]:
    """Fails rows whose output is also the output or an input of another row, or the table."""
    outputs = [_same_file(row.job.output) if row.job else set() for row in rows]
    written = Counter(name for names in outputs for name in names)
    inputs = (path for row in rows if row.job for path in row.job.inputs().values())
    read = set().union(*map(_same_file, (table, *inputs)))
    checked = []
    for row, names in zip(rows, outputs):
        if names & read or any(written[name] > 1 for name in names):
            why = "also an input" if names & read else "also the output of another row"
            row = replace(row, job=None, status=FAILED, message=f"{row.output} is {why}: choose another name.")
        checked.append(row)
    return checked


def _same_file(path: Path) -> set:
    """What paths to one file have in common: the name, even on a disk that ignores case, and for links the file."""
    name = unicodedata.normalize("NFC", os.path.realpath(path).casefold())
    try:
        state = os.stat(path)
    except OSError:
        return {name}
    return {name, (state.st_dev, state.st_ino)}


def run(
    path: Path,
    models: Models,
    devices: list[str] | None = None,
    ray: str | None = None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Renders every video of the table that is not done yet and returns all rows with their outcomes.

    devices: one process per device; None for the device that `models` name, or every CUDA device if that is "auto".
    ray: use a Ray cluster at this address instead ("auto", "host:port", or "local" for this machine alone).
    on_row: called with each finished row.
    Raises InputError as `read_jobs` does, and if Ray is requested but not installed.
    """
    rows = read_jobs(path)  # first, so that a wrong table is not answered with a download
    weights = weights_state(models)
    report = path.with_name(f"{path.name}.report.csv")
    with only_run(report):
        return _run([_with_key(row, models, weights) for row in rows], report, models, devices, ray, on_row)


def _run(
    rows: list[Row],
    report: Path,
    models: Models,
    devices: list[str] | None,
    ray: str | None,
    on_row: Callable[[Row], None],
) -> list[Row]:
    before = _done_before(report)
    outcomes = {}
    for row in rows:
        if row.job is None:
            outcomes[row.number] = row
        elif row.key in before and os.path.isfile(row.job.output):
            outcomes[row.number] = replace(before[row.key], number=row.number, output=row.output, message="before")
    for outcome in outcomes.values():
        on_row(outcome)
    # lines are appended as rows finish, so that a killed run loses none, and sorted at the end
    _write_report(report, [outcomes[number] for number in sorted(outcomes)])
    waiting = [row for row in rows if row.number not in outcomes]
    if ray is not None:
        finished = _on_ray(waiting, models, ray)
    else:
        devices = devices or _devices(models)
        finished = _in_processes(waiting, models, devices) if len(devices) > 1 else _here(waiting, models)
    for row in finished:
        outcomes[row.number] = row
        _append(report, row)
        on_row(row)
    ordered = [outcomes[number] for number in sorted(outcomes)]
    _write_report(report, ordered)
    return ordered


def _with_key(row: Row, models: Models, weights: dict) -> Row:
    try:
        return row if row.job is None else replace(row, key=_key(row.job, models, weights))
    except OSError as error:  # an input was removed meanwhile
        return replace(row, job=None, status=FAILED, message=str(unusable(error.filename, "read", error)))


def _key(job: Job, models: Models, weights: dict) -> str:
    """A hash of the settings, the weights, and the size and time of each input."""
    states = {name: path.stat() for name, path in job.inputs().items()}
    inputs = {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}
    made_from = {**asdict(job), "inputs": inputs, "weights": weights, "dtype": models.dtype}
    return hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _done_before(report: Path) -> dict[str, Row]:
    """Rows that an earlier run finished, by key. A line cut short by a kill is ignored."""
    if not os.path.isfile(report):
        return {}
    done = {}
    regular_file(report)
    with open(report, newline="", encoding="utf-8", errors="replace") as file:
        try:
            for cells in csv.reader(file):
                if len(cells) == len(REPORT) and cells[2] == DONE:
                    frames, seconds, key = int(cells[3]), float(cells[4]), cells[6]
                    done[key] = Row(0, cells[1], status=DONE, frames=frames, seconds=seconds, key=key)
        except (csv.Error, ValueError):
            log.warning("%s is damaged: rows after its line %d will be rendered again.", report, len(done) + 1)
    return done


def _append(report: Path, row: Row) -> None:
    try:
        with open(report, "a", newline="", encoding="utf-8", errors="backslashreplace") as file:
            csv.writer(file).writerow(_line(row))
    except OSError as error:
        raise unusable(report, "written", error) from error


def _write_report(report: Path, rows: Iterable[Row]) -> None:
    with whole_file(report) as temporary, _new_text(temporary) as file:
        csv.writer(file).writerows([REPORT, *map(_line, rows)])


def _new_text(path: Path):
    return open(path, "w", newline="", encoding="utf-8", errors="backslashreplace")


def _line(row: Row) -> list:
    return [f"{row.seconds:.1f}" if name == "seconds" else getattr(row, name) for name in REPORT]


def _devices(models: Models) -> list[str]:
    if models.device == "auto" and torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [models.device]


def _make(row: Row, models: Models) -> Row:
    """Renders one row's video; an error becomes the row's outcome."""
    started = time.monotonic()
    try:
        with only_run(row.job.output):
            frames = models.clip(row.job).save(row.job.output, models.tags)
    except InputError as error:
        return replace(row, job=None, status=FAILED, message=" ".join(str(error).split()))
    except Exception as error:
        if is_out_of_memory(error):
            message = "Out of memory: give a smaller --batch-size."
        elif isinstance(error, OSError) and error.errno:
            message = str(unusable(error.filename or row.output, "used", error))
        else:
            log.exception("Row %d", row.number)
            message = f"{type(error).__name__}: {error}"
        return replace(row, job=None, status=FAILED, message=message)
    return replace(row, job=None, status=DONE, frames=frames, seconds=time.monotonic() - started)


def _here(rows: Iterable[Row], models: Models) -> Iterator[Row]:
    for row in rows:
        yield _make(row, models)


def _in_processes(rows: list[Row], models: Models, devices: list[str]) -> Iterator[Row]:
    """One process per device; one that dies fails the row it was rendering, and is replaced."""
    waiting = iter(rows)
    busy: list[_Worker] = []
    try:
        for worker in (_Worker(models, device) for device in devices):
            if worker.start(next(waiting, None)):
                busy.append(worker)
        while busy:
            ready = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in ready]:
                yield worker.outcome()
                if not worker.start(next(waiting, None)):
                    busy.remove(worker)
    finally:
        for worker in busy:
            worker.process.terminate()  # handled like Ctrl-C, see _work
        for worker in busy:
            worker.process.join()


class _Worker:
    """A process that renders rows on one device, started with its first row."""

    def __init__(self, models: Models, device: str):
        self.models, self.device = replace(models, device=device), device
        self.connection: Connection | None = None
        self.process = None

    def start(self, row: Row | None) -> bool:
        """Sends the process a row, launching it if necessary; None ends it. Returns whether it has work."""
        if self.connection is None and row is not None:
            self._launch()
        self.row = row
        if self.connection is not None:
            with suppress(ConnectionError):  # it died since its last row; `outcome` finds out
                self.connection.send(row)
            if row is None:
                self.process.join()
        return row is not None

    def outcome(self) -> Row:
        """The finished row, or a failed one if the process died."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            self.connection = None
            message = f"The process on {self.device} died (exit code {self.process.exitcode})."
            return replace(self.row, job=None, status=FAILED, message=message)

    def _launch(self) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA cannot be used after a fork
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, self.models), daemon=True)
        self.process.start()
        other.close()  # or the end of the process would go unnoticed


def _work(connection: Connection, models: Models) -> None:
    """The body of a process: receives rows and sends their outcomes, until it receives None."""
    # Ctrl-C reaches every process of a terminal, but the parent handles it; its SIGTERM then ends the row cleanly.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while (row := connection.recv()) is not None:
            connection.send(_make(row, models))
    except (KeyboardInterrupt, EOFError, ConnectionError):
        pass


@lru_cache(maxsize=1)
def _kept(models: Models) -> Models:
    """The first `models` equal to these, already loaded: Ray reuses its processes for many tasks."""
    return models


def _make_with_kept(row: Row, models: Models) -> Row:
    return _make(row, _kept(models))


def _on_ray(rows: list[Row], models: Models, address: str) -> Iterator[Row]:
    """One task per row. The cluster's machines need this package and the same files under the same paths."""
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed: run `pip install ray`, or leave --ray out.") from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"No Ray cluster answers at {address} ({error}): check the address.") from error
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        # max_calls=0: by default Ray ends a process, and with it the loaded models, after each task on a GPU
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
