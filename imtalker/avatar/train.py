"""The project's own small avatar, renderer and generator, trained on drawn heads and made-up speech.

    python -m imtalker.avatar OUT --minutes 30 --device cuda --people 48 --drivers 2

One command for all of it, which goes on where it was stopped, to OUT/{renderer,generator}.safetensors;
`python -m benchmarks.avatar OUT` then says what they are worth. Every stage has a gate, and a run that is dead stops.
"""

import argparse
import logging
from pathlib import Path

from ..drawn.portraits import compile_drawing
from ..errors import InputError
from ..train.runtime import make_fabric
from . import generator as avatar_generator
from . import speech
from .renderer import SHARES, RendererRecipe

log = logging.getLogger("imtalker")

GENERATOR = 0.4  # share of the minutes; half of these the generator learns to hear


def train(recipe: RendererRecipe, minutes: float, parts: tuple[str, ...]) -> bool:
    """Both models, or one; False where training was stopped before its end."""
    if "generator" in parts and not speech.available():
        raise InputError("The generator learns from espeak-ng's speech: install espeak-ng, or give --only renderer.")
    if "renderer" in parts and recipe.run() is None:
        return False
    if "generator" not in parts or recipe.fabric.global_rank > 0:
        return True
    gate = avatar_generator.GATE if recipe.gated else -1.0
    return avatar_generator.train(recipe.folder, minutes, gate=gate) is not None


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m imtalker.avatar", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of checkpoints and of the results")
    parser.add_argument("--minutes", type=float, required=True, help="of training, all stages together")
    parser.add_argument("--device", default="auto", help="for the renderer: auto, cpu, cuda (%(default)s)")
    parser.add_argument("--devices", type=int, default=1, help="of these, or processes on a CPU (%(default)s)")
    parser.add_argument("--start", type=Path, help="a renderer.safetensors of an avatar, to go on from")
    parser.add_argument("--precision", default="32-true", help="32-true or bf16-mixed (%(default)s)")
    parser.add_argument(
        "--people", type=int, default=RendererRecipe.people, help="in a batch (%(default)s; a large GPU: 48)"
    )
    parser.add_argument("--drivers", type=int, default=RendererRecipe.drivers, help="frames of each (%(default)s)")
    parser.add_argument("--only", choices=("renderer", "generator"), help="one of the two")
    parser.add_argument("--stages", nargs="+", choices=tuple(SHARES), default=tuple(SHARES), help="of the renderer")
    parser.add_argument("--compile", action="store_true", help="draw faster; takes a C++ compiler, and a minute first")
    parser.add_argument("--no-gates", action="store_true", help="go on whatever the gates say: for a rehearsal")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parts = (options.only,) if options.only else ("renderer", "generator")
    shared = {"renderer": 1 - GENERATOR, "generator": GENERATOR} if len(parts) == 2 else dict.fromkeys(parts, 1.0)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        if options.compile:
            compile_drawing()
        recipe = RendererRecipe(
            options.out,
            options.minutes * shared.get("renderer", 0),
            make_fabric(options.device, options.devices, options.precision),
            options.people,
            options.drivers,
            gated=not options.no_gates,
            start=options.start,
            stages=tuple(options.stages),
        )
        finished = train(recipe, options.minutes * shared.get("generator", 0), parts)
    except InputError as error:
        log.error("%s", error)
        return 1
    log.info("Finished: %s", options.out) if finished else log.info("Stopped; the same command goes on.")
    return 0 if finished else 1
