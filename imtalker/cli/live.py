"""The command live: a page with a face that answers while you speak. It imports what it needs only when it runs."""

import argparse
from pathlib import Path

from ..errors import InputError, printable
from ..weights.checkpoints import AVATAR
from . import numbers
from .jobs import Models

PORT = numbers.Number(int, 0, 65535)
AVATAR_CFG = 1.0  # what the avatar was measured with


def add_command(commands: argparse._SubParsersAction, parents: list[argparse.ArgumentParser]) -> None:
    """Adds the command to the command line. parents: the options of every command that runs models."""
    command = commands.add_parser("live", parents=parents, help="a page with a face that answers while you speak")
    command.add_argument("--source", type=Path, metavar="PICTURE", help="the portrait (a drawn one)")
    command.add_argument("--crop", choices=("auto", "none"), default="auto", help="auto finds the face (%(default)s)")
    command.add_argument("--rig", type=Path, metavar="FILE", help="for sliders of the expression (the avatar has one)")
    command.add_argument(
        "--seed", type=numbers.SEED.option(), default=0, help="another seed moves otherwise (%(default)s)"
    )
    command.add_argument("--cfg", type=numbers.CFG.option(), help="how strongly the speech drives the motion")
    command.add_argument(
        "--nfe", type=numbers.NFE.option(), default=10, metavar="N", help="points in time; N-1 steps (%(default)s)"
    )
    command.add_argument("--port", type=PORT.option(), default=8190, help="0 takes any that is free (%(default)s)")
    command.add_argument("--host", default="127.0.0.1", help="another address needs a --token (%(default)s)")
    command.add_argument("--token", help="what a page must know, 12 characters or more")
    command.set_defaults(run=_live)


def _live(options: argparse.Namespace) -> None:
    import asyncio

    try:
        from ..live.guest import Face
        from ..live.server import Door, serve
    except ImportError as error:
        raise InputError(f"Live needs the package {error.name}: run `pip install aiortc aiohttp`.") from error
    from ..drawn import example
    from ..live.voices import find_voice
    from ..motion.rig import Rig
    from ..pipeline import encode_portrait
    from ..rigging import check_rig, shipped_rig

    Door(options.host, options.token)  # before anything is loaded
    models = Models(options.models, options.device, options.dtype, options.untrained, options.batch_size)
    renderer, generator = models.renderer, models.generator
    picture, crop = (options.source, options.crop) if options.source else (example.portrait(), "none")
    source = encode_portrait(renderer, picture, crop, [options.models])
    if options.rig:
        rig = Rig.load(options.rig)
        check_rig(rig, generator)
    else:
        rig = shipped_rig(generator)
    cfg = AVATAR_CFG if options.cfg is None and options.models == AVATAR else options.cfg
    face = Face(
        renderer, generator, source, rig, find_voice(), cfg, options.nfe, options.seed % 2**63, (options.models,),
        tuple(models.tags.items()),
    )  # fmt: skip

    def say(address: str) -> None:
        print(printable(f"The face answers at {address} until you press Ctrl-C."), flush=True)

    asyncio.run(serve(face, options.host, options.port, options.token, say))
