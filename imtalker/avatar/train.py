"""Trains the project's small avatar, renderer and generator, on drawn heads and synthetic speech.

    python -m imtalker.avatar OUT --minutes 30 --device cuda --people 48 --drivers 2

Writes OUT/renderer.safetensors and OUT/generator.safetensors; the same command resumes a stopped run. Each stage has a
gate that stops a run that does not learn. `python -m benchmarks.avatar OUT` then measures the result.
"""

import argparse
import logging
from pathlib import Path

from ..drawn.portraits import compile_drawing
from ..errors import InputError
from ..train.runtime import make_fabric
from . import generator, speech
from .renderer import SHARES, RendererRecipe

log = logging.getLogger("imtalker")

GENERATOR_SHARE = 0.4  # of the minutes; half of it goes to the audio encoder


def train(recipe: RendererRecipe, minutes: float, parts: tuple[str, ...]) -> bool:
    """Trains the parts, "renderer" and "generator" or one of them; False if training was stopped before its end."""
    if "generator" in parts and not speech.available():
        raise InputError("The generator learns from synthetic speech: install espeak-ng, or use --only renderer.")
    if "renderer" in parts and recipe.run() is None:
        return False
    if "generator" not in parts or recipe.fabric.global_rank > 0:
        return True
    gate = generator.GATE if recipe.gated else -1.0
    return generator.train(recipe.folder, minutes, gate=gate) is not None


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m imtalker.avatar", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for checkpoints and results")
    parser.add_argument("--minutes", type=float, required=True, help="training time of all stages together")
    parser.add_argument("--device", default="auto", help="device of the renderer: auto, cpu or cuda (%(default)s)")
    parser.add_argument("--devices", type=int, default=1, help="number of GPUs, or of processes on a CPU (%(default)s)")
    parser.add_argument("--start", type=Path, help="continue from an avatar's renderer.safetensors")
    parser.add_argument("--precision", default="32-true", help="32-true or bf16-mixed (%(default)s)")
    parser.add_argument(
        "--people", type=int, default=RendererRecipe.people, help="people per batch (%(default)s; 48 on a large GPU)"
    )
    parser.add_argument("--drivers", type=int, default=RendererRecipe.drivers, help="frames per person (%(default)s)")
    parser.add_argument("--only", choices=("renderer", "generator"), help="train only one of the two")
    parser.add_argument(
        "--stages", nargs="+", choices=tuple(SHARES), default=tuple(SHARES), help="renderer stages (all)"
    )
    parser.add_argument("--compile", action="store_true", help="draw faster after a minute; needs a C++ compiler")
    parser.add_argument("--no-gates", action="store_true", help="warn instead of stopping at a gate, for a trial run")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parts = (options.only,) if options.only else ("renderer", "generator")
    shares = {"renderer": 1 - GENERATOR_SHARE, "generator": GENERATOR_SHARE}
    if options.only:
        shares = {options.only: 1.0}
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        if options.compile:
            compile_drawing()
        recipe = RendererRecipe(
            options.out,
            options.minutes * shares.get("renderer", 0),
            make_fabric(options.device, options.devices, options.precision),
            options.people,
            options.drivers,
            gated=not options.no_gates,
            start=options.start,
            stages=tuple(options.stages),
        )
        finished = train(recipe, options.minutes * shares.get("generator", 0), parts)
    except InputError as error:
        log.error("%s", error)
        return 1
    log.info("Finished: %s", options.out) if finished else log.info("Stopped; run the same command to resume.")
    return 0 if finished else 1
