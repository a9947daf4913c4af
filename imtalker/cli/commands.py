"""The command line: talk, reenact, dub, batch, sign, download, convert, info.

live is in live.py, rig in rigs.py; prepare and train are in training.py.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import get_args

from torch import Tensor

from .. import __doc__ as package_doc
from ..dubbing.dub import Ending
from ..dubbing.plan import Shots, Tracking
from ..errors import InputError, printable
from ..media.atomic import only_run
from ..media.files import unusable
from ..media.provenance import CERTIFICATE, KEY, find_signer
from ..models.backend import is_out_of_memory
from ..motion.inertia import Joins
from ..motion.retarget import reference
from ..pipeline import Clip
from ..version import __version__
from ..weights import download
from ..weights.checkpoints import convert, inspect, models_folder
from . import batch, live, numbers, resume, rigs, training
from .jobs import DTYPES, DUBBING, FACES, SHORT_DTYPES, Job, Models, check_output_of

log = logging.getLogger("imtalker")

DEFAULT_MODELS = download.CACHE
SECONDS_BETWEEN_LINES = 5
ADDED = ("expression", "blinks", "rig")
LOOKING = {"face": "Looking for the face: {} frames", "rig": "Asking the generator for its rig: {} %"}
DONE, FAILED = 0, 1  # argparse exits with 2 for wrong usage

_stopped = threading.Event()  # by a signal


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0 done, 1 failed, with one sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO if options.verbose else logging.WARNING)
    _stopped.clear()
    signal.signal(signal.SIGTERM, _stop)  # cleans up like Ctrl-C
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background it may be ignored
        signal.signal(signal.SIGINT, _stop)
    try:
        options.run(options)
        sys.stdout.flush()  # or a full disk behind it would be noticed too late
    except InputError as error:
        message = str(error)
    except KeyboardInterrupt:
        kept = getattr(options, "resume", False)
        message = "Stopped; run the same command to resume." if kept else "Stopped; no partial file is left."
    except BrokenPipeError:  # as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if is_out_of_memory(error):  # Windows reports it as an error of a file, too
            message = "Out of memory: give a smaller --batch-size or --device cpu."
        elif isinstance(error, OSError):
            message = str(unusable(error.filename or "A file or the terminal", "used", error))
        else:
            raise
    else:
        return DONE
    print(f"imtalker: {message}", file=sys.stderr)
    return FAILED


def _stop(number: int, frame: FrameType | None) -> None:
    """Python drops an exception raised inside a callback or a finaliser: the next block of frames asks again."""
    _stopped.set()
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        super().error(printable(message))


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="python -m imtalker", description=package_doc)
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    common = _common()
    engine = [common, _models_options(), _engine_options()]
    video = [*engine, _video_options()]
    portrait = [*video, _portrait_options()]
    _add_talk(commands, [*portrait, _sampling_options()])
    _add_reenact(commands, portrait)
    _add_dub(commands, [*video, _sampling_options()])
    _add_batch(commands, engine)
    live.add_command(commands, engine)
    _add_sign(commands, [common])
    _add_download(commands, [common])
    _add_convert(commands, [common])
    _add_info(commands, [common])
    rigs.add_commands(commands, common, engine)
    training.add_commands(commands, common, DEFAULT_MODELS)
    return top


def _common() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--verbose", action="store_true", help="log more details")
    return options


def _models_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--models",
        type=models_folder,
        default=DEFAULT_MODELS,
        metavar="DIR",
        help="folder of weights, or avatar for the included ones, for drawn heads only (%(default)s)",
    )
    return options


def _engine_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    options.add_argument("--dtype", type=_dtype, choices=DTYPES, default="float32", help="precision (%(default)s)")
    options.add_argument(
        "--batch-size", type=numbers.BATCH_SIZE.option(), metavar="N", help="frames rendered at a time"
    )
    options.add_argument("--untrained", choices=("v1", "v2"), help="made-up weights, to test an installation: no face")
    return options


def _video_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.mp4", help="the video to write")
    options.add_argument("--resume", action="store_true", help="pick up where a stopped run of this command left off")
    options.add_argument("--crop", choices=("auto", "none"), default="auto", help="auto finds the face (%(default)s)")
    options.add_argument("--frames", type=numbers.FRAMES.option(), metavar="N", help="only the first N frames")
    options.add_argument("--mark", default="", metavar="TEXT", help="small text in a corner, such as AI-generated")
    return options


def _portrait_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--source", type=Path, required=True, metavar="PICTURE", help="the portrait")
    options.add_argument("--fps", type=numbers.FPS.option(), help="frames per second (25, or the driving video's own)")
    options.add_argument(
        "--expression", type=Path, metavar="FILE", help="keyframes in .json of blinks, brows, smile and other channels"
    )
    options.add_argument(
        "--blinks", type=numbers.BLINKS.option(), default=0.0, metavar="N", help="added blinks a minute (%(default)g)"
    )
    options.add_argument("--rig", type=Path, metavar="FILE", help="for both, from rig learn (the weights' own)")
    return options


def _sampling_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--audio", type=Path, required=True, help="speech: an audio file, or a video with sound")
    options.add_argument(
        "--seed", type=numbers.SEED.option(), default=0, help="another seed gives another delivery (%(default)s)"
    )
    options.add_argument(
        "--cfg", type=numbers.CFG.option(), help="how strongly the speech drives the motion (v1 3.0, v2 2.0)"
    )
    options.add_argument(
        "--nfe", type=numbers.NFE.option(), default=10, metavar="N", help="points in time; N-1 steps (%(default)s)"
    )
    return options


def _add_talk(commands: argparse._SubParsersAction, parents: list) -> None:
    command = commands.add_parser("talk", parents=parents, help="portrait + speech -> video with sound")
    command.add_argument(
        "--joins",
        choices=get_args(Joins),
        default="smooth",
        help="smooth: no jump from window to window, and the clip starts in the portrait's pose (%(default)s)",
    )
    command.add_argument("--control", type=Path, metavar="FILE", help="from Control.save, or keyframes in .json")
    command.add_argument("--allow-more", action="store_true", help="allow keyframes beyond the model's likely range")
    command.add_argument("--pose", type=Path, metavar="FILE", help="SMIRK .pt with pose_params and cam, 25 fps")
    command.add_argument("--gaze", type=Path, metavar="FILE", help="L2CS-Net .npy, radians, 25 fps")
    command.set_defaults(run=_talk)


def _add_reenact(commands: argparse._SubParsersAction, parents: list) -> None:
    command = commands.add_parser("reenact", parents=parents, help="portrait + driving video -> video")
    command.add_argument("--driving", type=Path, required=True, metavar="VIDEO", help="gives the motion and the sound")
    command.add_argument(
        "--relative",
        nargs="?",
        const="first",
        type=reference,
        metavar="REFERENCE",
        help="keep the portrait's own pose and add only how the driver changes: from its first frame, its mean, its "
        "neutral (most ordinary) frame, or a frame number (first)",
    )
    command.add_argument(
        "--strength", type=numbers.STRENGTH.option(), default=1.0, help="of relative motion (%(default)g)"
    )
    command.set_defaults(run=_reenact)


def _add_dub(commands: argparse._SubParsersAction, parents: list) -> None:
    command = commands.add_parser("dub", parents=parents, help="video + speech -> the video says it")
    command.add_argument("--video", type=Path, required=True, help="gives the picture; read twice")
    command.add_argument("--face", dest="which", choices=FACES, default="largest", help="which face (%(default)s)")
    command.add_argument("--index", type=numbers.INDEX.option(), default=0, help="which in that order (%(default)s)")
    command.add_argument(
        "--tracking",
        choices=get_args(Tracking),
        default="smooth",
        help="the square follows the head smoothly, or stays steady for a whole shot (%(default)s)",
    )
    command.add_argument(
        "--shots",
        choices=get_args(Shots),
        default="same view",
        help="dub shots with the same view as the first, or choose a face anew in every shot (%(default)s)",
    )
    command.add_argument(
        "--ending",
        choices=get_args(Ending),
        default="cut",
        help="cut: the shorter of video and speech decides the length; hold, ping-pong: the longer one (%(default)s)",
    )
    for name, default, help_ in (
        ("--lower-face", 0.5, "how much is replaced: 0 the lips, 1 all below the eyes (%(default)g)"),
        ("--head", 1.0, "how much of the head's own movement the new lower face keeps, 0 to 1 (%(default)g)"),
        ("--colour-match", 0.0, "match the colours along the soft edge, 0 to 1 (%(default)g)"),
        ("--keep-sound", 0.0, "volume of the video's own sound under the speech, 0 to 1 (%(default)g)"),
    ):
        command.add_argument(name, type=numbers.SHARE.option(), default=default, metavar="SHARE", help=help_)
    command.add_argument(
        "--strength", type=numbers.DUB_STRENGTH.option(), default=1.0, help="of the mouth, 0 to 2 (%(default)g)"
    )
    command.add_argument(
        "--gate",
        type=numbers.DECIBELS.option(),
        default=-50.0,
        metavar="DB",
        help="the mouth rests where the speech is quieter, in dB of full scale; -120: never (%(default)g)",
    )
    command.add_argument("--mask", type=Path, metavar="PICTURE", help="what may change, in white, over the whole frame")
    command.add_argument("--rig", type=Path, metavar="FILE", help="a rig of these weights (the one kept beside them)")
    command.set_defaults(run=_dub)


def _add_batch(commands: argparse._SubParsersAction, parents: list) -> None:
    command = commands.add_parser("batch", parents=parents, help="many videos, from a table")
    command.add_argument("table", type=Path, metavar="JOBS.csv", help="source, audio, driving, video, output, settings")
    command.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster: auto, host:port, or local")
    command.set_defaults(run=_batch)


def _add_sign(commands: argparse._SubParsersAction, parents: list) -> None:
    command = commands.add_parser("sign", parents=parents, help="sign a video as AI-generated (C2PA)")
    command.add_argument("video", type=Path, metavar="VIDEO.mp4")
    command.add_argument("-o", "--output", type=Path, metavar="OUT.mp4", help="the signed video (in place)")
    command.add_argument("--certificate", type=Path, metavar="PEM", help=f"certificate chain (${CERTIFICATE})")
    command.add_argument("--key", type=Path, metavar="PEM", help=f"its private key (${KEY})")
    command.set_defaults(run=_sign)


def _add_download(commands: argparse._SubParsersAction, parents: list) -> None:
    command = commands.add_parser("download", parents=parents, help="download the published weights")
    command.add_argument("--to", type=Path, default=DEFAULT_MODELS, metavar="DIR", help="folder (%(default)s)")
    command.set_defaults(run=_download)


def _add_convert(commands: argparse._SubParsersAction, parents: list) -> None:
    command = commands.add_parser("convert", parents=parents, help="any accepted weight file -> .safetensors")
    command.add_argument("file", type=Path, metavar="IN.ckpt")
    command.add_argument("to", type=Path, metavar="OUT.safetensors")
    command.add_argument("--wav2vec", choices=("keep", "split"), default="keep", help="split: into its own file")
    command.add_argument("--dtype", type=_dtype, choices=DTYPES, help="precision of the new file (as in the old one)")
    command.set_defaults(run=_convert)


def _add_info(commands: argparse._SubParsersAction, parents: list) -> None:
    command = commands.add_parser("info", parents=parents, help="what a weight file is")
    command.add_argument("file", type=Path)
    command.set_defaults(run=_info)


def _dtype(name: str) -> str:
    return SHORT_DTYPES.get(name, name)


def _talk(options: argparse.Namespace) -> None:
    names = ("source", "audio", "output", "seed", "cfg", "nfe", "joins", "fps", "frames", "crop", "control")
    names += ("allow_more", "pose", "gaze", *ADDED, "mark")
    _make(Job(**{name: getattr(options, name) for name in names}), options)


def _reenact(options: argparse.Namespace) -> None:
    names = ("source", "driving", "output", "fps", "frames", "crop", "relative", "strength", *ADDED, "mark")
    _make(Job(**{name: getattr(options, name) for name in names}), options)


def _dub(options: argparse.Namespace) -> None:
    names = ("video", "audio", "output", "seed", "cfg", "nfe", "frames", "crop", "strength", "mark", "mask", "rig")
    dubbing = {name: getattr(options, name) for name in DUBBING}
    _make(Job(source=None, dubbing=dubbing, **{name: getattr(options, name) for name in names}), options)


def _make(job: Job, options: argparse.Namespace) -> None:
    check_output_of(job)
    resume.check_inputs(job)
    models = _models(options)

    def make(first: int | None = None) -> Clip:
        with _Looking() as looking:
            clip = models.clip(job, first, looking)
        return replace(clip, rendered=_progress(clip.rendered, clip.count))

    started = time.monotonic()
    with only_run(job.output):
        if options.resume:
            count, fps = resume.save(job.output, make, resume.fingerprint(job, models), models.tags)
        else:
            clip = make()
            count, fps = clip.save(job.output, models.tags), clip.fps
            resume.discard(job.output)
    seconds = time.monotonic() - started
    _say(f"{job.output}: {count} frames, {float(count / fps):.2f} s of video in {seconds:.1f} s")


def _say(line: str) -> None:
    print(printable(line), flush=True)


def _models(options: argparse.Namespace) -> Models:
    return Models(options.models, options.device, options.dtype, options.untrained, options.batch_size)


def _batch(options: argparse.Namespace) -> None:
    def show(row: batch.Row) -> None:
        outcome = f"{row.frames} frames in {row.seconds:.1f} s" if row.status == batch.DONE else "failed"
        _say(f"row {row.number}, {row.output}: {outcome}{row.message and f' ({row.message})'}")

    rows = batch.run(options.table, _models(options), ray=options.ray, on_row=show)
    failed = sum(row.status == batch.FAILED for row in rows)
    report = f"{options.table}.report.csv"
    _say(f"{len(rows) - failed} of {len(rows)} rows are done; see {report}.")
    if failed:
        raise InputError(f"{failed} of {len(rows)} rows failed: fix them and rerun; finished rows are skipped.")


def _sign(options: argparse.Namespace) -> None:
    signer = find_signer(options.certificate, options.key)
    if signer is None:
        raise InputError(f"Give --certificate and --key, or name their files in {CERTIFICATE} and {KEY}.")
    _say(f"{signer.sign(options.video, options.output)} is signed.")


def _download(options: argparse.Namespace) -> None:
    files = download.plan(options.to)
    for name, size, present in files:
        _say(f"{name}: {'already there' if present else _size(size)}")
    total = sum(size or 0 for _, size, present in files if not present)
    _say(f"To download: {_size(total)}, into {options.to}")
    bar = _Bytes()
    download.download(options.to, bar)
    bar.close()
    _say("All files are there.")


def _convert(options: argparse.Namespace) -> None:
    dtype = DTYPES[options.dtype] if options.dtype else None
    for path in convert(options.file, options.to, options.wav2vec == "split", dtype):
        _say(f"{path}: {_size(path.stat().st_size)}")


def _info(options: argparse.Namespace) -> None:
    report = inspect(options.file)
    weights = report.weights
    _say(f"{options.file} is {weights.describe()}")
    _say(f"parameters: {report.parameters:,} in {len(weights.tensors)} tensors, {', '.join(report.precisions)}")
    if weights.config is not None:
        _say(f"fit: {report.problems or 'complete, nothing unexpected'}")


def _progress(blocks: Iterator[Tensor], count: int | None) -> Iterator[Tensor]:
    """Shows progress: on a terminal a bar with rate and time left, elsewhere a line every few seconds."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    started = printed = time.monotonic()
    done = 0
    with tqdm(total=count, unit="frame", disable=not terminal) as bar:
        for block in blocks:
            if _stopped.is_set():
                raise KeyboardInterrupt
            yield block
            done += len(block)
            bar.update(len(block))
            now = time.monotonic()
            if not terminal and now - printed > SECONDS_BETWEEN_LINES:
                printed, rate = now, done / (now - started)
                left = f" of {count}, {(count - done) / rate:.0f} s left" if count else ""
                print(f"{done} frames{left}, {rate:.1f} frames/s", file=sys.stderr, flush=True)


class _Looking:
    """Progress of the first pass over a video, and of a rig that is asked for."""

    def __init__(self):
        self.printed, self.terminal, self.width = time.monotonic(), sys.stderr.isatty(), 0

    def __enter__(self) -> "_Looking":
        return self

    def __call__(self, what: str, done: int) -> None:
        if _stopped.is_set():
            raise KeyboardInterrupt
        now = time.monotonic()
        if now - self.printed > (0.2 if self.terminal else SECONDS_BETWEEN_LINES):
            line = LOOKING[what].format(done)
            self.printed, self.width = now, len(line)
            start, end = ("\r", "") if self.terminal else ("", "\n")
            print(f"{start}{line}", end=end, file=sys.stderr, flush=True)

    def __exit__(self, *exception: object) -> None:
        if self.terminal and self.width:
            print("\r" + " " * self.width, end="\r", file=sys.stderr, flush=True)


class _Bytes:
    """Progress of a download, one bar per file."""

    def __init__(self):
        self.bar, self.name = None, None

    def __call__(self, name: str, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if name != self.name:
            self.close()
            self.bar, self.name = tqdm(total=total, desc=name, unit="B", unit_scale=True, mininterval=1), name
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _size(count: int | None) -> str:
    if count is None:
        return "size unknown"
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
