"""The commands rig learn and rig show."""

import argparse
import logging
from pathlib import Path

from ..errors import InputError, printable
from ..media.files import check_output
from ..motion.rig import Rig
from ..weights.checkpoints import AVATAR, load_expressions, load_l2cs, load_smirk
from .jobs import Models, find_device

log = logging.getLogger("imtalker")


def add_commands(commands: argparse._SubParsersAction, common: argparse.ArgumentParser, engine: list) -> None:
    """Adds both to the command line. engine: the parents of commands that run models."""
    actions = commands.add_parser("rig", help="named channels of a motion space").add_subparsers(
        required=True, metavar="ACTION"
    )
    learn = actions.add_parser("learn", parents=engine, help="from the models alone, or from a video -> rig")
    learn.add_argument(
        "--driving", type=Path, metavar="VIDEO", help="one person, 8 s or more, who moves all of the face"
    )
    learn.add_argument(
        "--smirk", type=Path, metavar="FILE", help="reads head, jaw, eyelids and expression in the video"
    )
    learn.add_argument("--l2cs", type=Path, metavar="FILE", help="reads the gaze in the video")
    learn.add_argument("--crop", choices=("auto", "none"), default="auto", help="auto finds the face (%(default)s)")
    learn.add_argument("-o", "--output", type=Path, required=True, metavar="RIG.safetensors")
    learn.set_defaults(run=_learn)
    show = actions.add_parser("show", parents=[common], help="what a rig knows")
    show.add_argument("file", type=Path, metavar="RIG.safetensors", help="or avatar, for the included one")
    show.set_defaults(run=_show)


def _learn(options: argparse.Namespace) -> None:
    inputs = [path for path in (options.driving, options.smirk, options.l2cs) if path is not None]
    output = check_output(options.output, ".safetensors", inputs=inputs)
    if options.driving is None and inputs:
        raise InputError("--smirk and --l2cs read a video: give --driving as well, or neither.")
    if options.driving is not None and len(inputs) == 1:
        raise InputError("A rig is learned from readings of the video: give --smirk or --l2cs, or leave --driving out.")
    models = Models(options.models, options.device, options.dtype, options.untrained, options.batch_size)
    rig = _from_models(models) if options.driving is None else _from_video(models, options)
    rig.save(output)
    print(f"{printable(str(output))}: {len(rig.usable())} of {len(rig.channels)} channels")
    for line in rig.describe().splitlines():
        print(printable(line))


def _from_models(models: Models) -> Rig:
    from tqdm import tqdm

    from ..rigging import ask, shipped_rig

    rig = shipped_rig(models.generator)
    if rig is not None:
        return rig
    with tqdm(total=100, unit="%") as bar:
        return ask(models.generator, lambda share: bar.update(round(100 * share) - bar.n))


def _from_video(models: Models, options: argparse.Namespace) -> Rig:
    from ..readings import learn_from_video

    device = find_device(options.device)
    networks = {
        "smirk": options.smirk and load_smirk(options.smirk, device),
        "expressions": options.smirk and load_expressions(options.smirk, device),
        "l2cs": options.l2cs and load_l2cs(options.l2cs, device),
    }
    settings = {"crop": options.crop, "model_dirs": [options.models]}
    return learn_from_video(models.renderer, options.driving, **networks, **settings)


def _show(options: argparse.Namespace) -> None:
    rig = Rig.load(AVATAR / "rig.safetensors" if str(options.file) == AVATAR.name else options.file)
    print(
        f"{rig.generation}, {rig.rest.shape[1]} values per frame, {len(rig.usable())} of {len(rig.channels)} channels"
    )
    print(f"weights: {printable(rig.weights) or 'unknown'}")
    for line in rig.describe().splitlines():
        print(printable(line))
