"""The commands prepare and train. They import what they need only when they run."""

import argparse
import contextlib
import logging
from pathlib import Path

from ..errors import InputError, printable
from ..media.atomic import only_run
from ..media.files import check_output, is_same_file
from . import numbers

log = logging.getLogger("imtalker")

HELD_OUT = 0.1  # share at the end of each clip, to measure the renderer on
MEASURED = 8  # held-out frames
EMA = 0.9999  # decay of the generator's averaged weights


def add_commands(commands: argparse._SubParsersAction, common: argparse.ArgumentParser, models: Path) -> None:
    """Adds both commands to the command line."""
    command = commands.add_parser("prepare", parents=[common], help="a folder of videos -> training data")
    command.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of videos, or of one folder per person")
    command.add_argument("data", type=Path, metavar="DATA", help="folder to create or complete")
    command.add_argument("--models", type=Path, default=models, metavar="DIR", help="folder of weights (%(default)s)")
    command.add_argument("--frames-only", action="store_true", help="to train a renderer from scratch: runs no models")
    command.add_argument("--smirk", type=Path, metavar="FILE", help="to track head poses, for the generator")
    command.add_argument("--l2cs", type=Path, metavar="FILE", help="to track gaze, for the generator")
    command.add_argument("--crop", choices=("auto", "none"), default="auto", help="auto finds the face (%(default)s)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    command.set_defaults(run=_prepare)

    command = commands.add_parser("train", help="train or fine-tune a model on prepared data")
    stages = command.add_subparsers(required=True, metavar="MODEL")
    shared = _shared()
    stage = stages.add_parser("renderer", parents=[common, shared], help="portrait and motion -> frames")
    stage.add_argument("--vgg", type=Path, metavar="FILE", help="torchvision's vgg19, for the perceptual loss")
    stage.add_argument(
        "--adversarial", type=numbers.WEIGHT.option(), metavar="W", help="weight of the discriminator (new 0.1, else 0)"
    )
    stage.set_defaults(run=_renderer)
    stage = stages.add_parser("generator", parents=[common, shared], help="speech -> motion")
    stage.add_argument(
        "--lora", type=numbers.COUNT.option(), metavar="RANK", help="train low-rank adapters of this rank (8, say)"
    )
    stage.add_argument("--wav2vec", type=Path, metavar="PATH", help="audio encoder, if the file has none")
    stage.set_defaults(run=_generator)


def _shared() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("data", type=Path, metavar="DATA", help="folder made by prepare")
    shared.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.safetensors")
    start = shared.add_mutually_exclusive_group(required=True)
    start.add_argument("--from", dest="start", type=Path, metavar="FILE", help="fine-tune these weights")
    start.add_argument("--new", choices=("v1", "v2"), help="start from random weights of the published size")
    shared.add_argument(
        "--steps",
        type=numbers.COUNT.option(),
        help="stop after this many steps, or after --minutes, whichever comes first",
    )
    shared.add_argument(
        "--minutes", type=numbers.MINUTES.option(), help="stop after this many minutes, earlier runs included"
    )
    shared.add_argument(
        "--batch-size",
        type=numbers.BATCH_SIZE.option(),
        default=1,
        metavar="N",
        help="samples per step and device (%(default)s)",
    )
    shared.add_argument("--lr", type=numbers.RATE.option(), help="learning rate at the start (new 1e-3, else 1e-4)")
    shared.add_argument(
        "--lr-end", type=numbers.WEIGHT.option(), help="and at the end of its cosine (new 1e-4, else 1e-5)"
    )
    shared.add_argument(
        "--warmup",
        type=numbers.FROM_0.option(),
        default=0,
        metavar="STEPS",
        help="steps over which the rate rises (%(default)s)",
    )
    shared.add_argument("--seed", type=numbers.SEED.option(), default=0, help="seed of all randomness (%(default)s)")
    shared.add_argument(
        "--workers", type=numbers.FROM_0.option(), default=0, metavar="N", help="data loading processes (%(default)s)"
    )
    shared.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    shared.add_argument(
        "--devices", type=numbers.COUNT.option(), default=1, metavar="N", help="one process per device (%(default)s)"
    )
    shared.add_argument("--precision", choices=("32-true", "bf16-mixed", "16-mixed"), default="32-true")
    return shared


def _say(line: str) -> None:
    print(printable(line), flush=True)


def _prepare(options: argparse.Namespace) -> None:
    from ..train.prepare import Preparation, prepare
    from ..weights.checkpoints import load_l2cs, load_smirk
    from .jobs import Models, find_device

    if is_same_file(options.videos, options.data):
        raise InputError(f"{options.data} is the folder of videos itself: choose another folder for the data.")
    device = find_device(options.device)
    models = Models(options.models, options.device, final=False)  # their weights go into the data's fingerprint
    how = {"model_dirs": [options.models], "crop": options.crop}
    if not options.frames_only:
        how["renderer"] = models.renderer
        try:
            how["generator"] = models.generator
        except InputError as error:
            _say(f"Preparing no audio, so the data can only train a renderer: {error}")
        how["smirk"] = load_smirk(options.smirk, device) if options.smirk else None
        how["l2cs"] = load_l2cs(options.l2cs, device) if options.l2cs else None

    def show(name: str, outcome: str) -> None:
        _say(f"{name}: {outcome}")

    options.data.mkdir(parents=True, exist_ok=True)
    with only_run(options.data):
        report = prepare(options.videos, options.data, Preparation(**how), show)
    ready = len(report.made) + len(report.kept)
    _say(f"{ready} clips are ready in {options.data}, {len(report.left_out)} were left out.")
    if not ready:
        raise InputError("No video could be used: the reasons are listed above.")


def _renderer(options: argparse.Namespace) -> None:
    fabric = _start(options)

    from ..models.config import PUBLISHED
    from ..train.data import FramePairs, find_clips
    from ..train.initialise import new_renderer
    from ..train.losses import load_perceptual
    from ..train.prepare import fingerprint
    from ..train.renderer import LossWeights, RendererTask, reenactment_psnr
    from ..weights.checkpoints import load_renderer

    new = options.new and PUBLISHED["renderer"][options.new]
    renderer = new_renderer(new, options.seed) if new else load_renderer(options.start)
    clips = find_clips(options.data)
    if not new and clips[0].metadata["renderer"] != fingerprint(renderer.motion_encoder):
        raise InputError(
            f"The motion in {options.data} comes from another renderer than {options.start}: prepare it again."
        )
    pairs = FramePairs(clips, renderer.config, HELD_OUT)
    first = fabric.global_rank == 0
    if first and not pairs.several_people:
        log.info("The data shows only one person: training without identity loss, which needs two.")
    adversary = options.adversarial if options.adversarial is not None else (0.1 if new else 0.0)
    weights = LossWeights(masked=float(pairs.with_masks), identity=0.1 * pairs.several_people, adversarial=adversary)
    renderer.to(fabric.device)
    vgg = load_perceptual(options.vgg)
    task = RendererTask(renderer, _rates(options)[0], not new, vgg, weights, options.seed)
    facts = {"adversarial weight": adversary, "perceptual loss": vgg is not None}
    held_out = pairs.unseen(MEASURED) if first else []

    def measure(when: str) -> None:
        if held_out:
            psnr = reenactment_psnr(renderer, held_out)
            log.info("%s: PSNR %.2f dB on %d held-out frames.", when, psnr, len(held_out))

    training = _training(options, fabric, task, pairs, clips, facts)
    measure(f"At step {training.step}")
    _run(training, options, lambda: renderer)
    measure(f"At step {training.step}")


def _generator(options: argparse.Namespace) -> None:
    fabric = _start(options)

    from ..models.config import PUBLISHED
    from ..motion.match import Side, check_match
    from ..train.data import MotionWindows, find_clips
    from ..train.generator import GeneratorTask
    from ..train.initialise import new_generator
    from ..train.prepare import fingerprint
    from ..weights.checkpoints import load_generator

    if options.new and options.lora:
        raise InputError("--lora adapts trained weights: give them with --from instead of --new.")
    new = options.new and PUBLISHED["generator"][options.new]
    if new:
        generator = new_generator(new, options.seed, options.wav2vec)
    else:
        generator = load_generator(options.start, options.wav2vec)
    clips = find_clips(options.data)
    made_with = clips[0].metadata
    check_match(
        Side("the generator", generator.generation),
        Side(f"the motion in {options.data}", made_with["generation"]),
        "prepare the data with a renderer of that generation.",
    )
    if made_with["generator"] != fingerprint(generator.audio_encoder):
        raise InputError(
            f"The audio in {options.data} was encoded by another generator: prepare it again with this one."
        )
    windows = MotionWindows(clips, generator.config)
    generator.to(fabric.device)
    task = GeneratorTask(generator, _rates(options)[0], options.lora, options.seed)
    training = _training(options, fabric, task, windows, clips, {"lora": options.lora or 0}, tuple(task.modules()))
    _run(training, options, task.finish)


def _start(options: argparse.Namespace):
    """Checks the options before minutes of work, and starts Fabric with its processes."""
    from ..train.runtime import make_fabric

    given = (options.start, getattr(options, "vgg", None), getattr(options, "wav2vec", None))
    inputs = [path for path in given if path is not None]
    check_output(options.output, ".safetensors", inputs=inputs)
    check_output(options.output.with_suffix(".training.pt"), inputs=inputs)
    log.setLevel(logging.INFO)
    return make_fabric(options.device, options.devices, options.precision)


def _rates(options: argparse.Namespace) -> tuple[float, float]:
    first, last = (1e-3, 1e-4) if options.new else (1e-4, 1e-5)
    first = options.lr or first
    return first, options.lr_end if options.lr_end is not None else min(last, first)


def _training(options, fabric, task, samples, clips, facts, averaged=()):
    from ..train.data import batches
    from ..train.loop import Settings, Training

    first, last = _rates(options)
    settings = Settings(
        options.steps,
        options.minutes,
        options.warmup,
        last / first,
        1.0,
        EMA if averaged else 0.0,
        averaged,
        options.seed,
    )
    facts |= {
        "weights": options.new or options.start.name,
        "learning rate": f"{first:g} to {last:g}",
        "samples a step": options.batch_size * fabric.world_size,
        "seed": options.seed,
        "data": f"{len(clips)} clips of {sum(map(len, clips))} frames",
    }
    source = batches(samples, options.batch_size, options.seed, options.workers)
    return Training(task, source, options.output.with_suffix(".training.pt"), settings, fabric, facts)


def _run(training, options: argparse.Namespace, finish) -> None:
    from ..weights.checkpoints import save_weights

    first = training.fabric.global_rank == 0
    with only_run(options.output) if first else contextlib.nullcontext():
        outcome = training.run()
        if first:
            with training.averaged():
                save_weights(finish(), options.output)
    if first:
        ended = "done" if outcome.finished else "stopped; run the same command to resume"
        _say(f"{options.output}: step {outcome.step}, {ended}. Only resuming needs {training.file.name}.")
