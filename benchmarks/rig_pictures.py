"""Draws docs/rig.jpg and docs/rig_models.jpg, what each channel of a rig does to the avatar.

    python -m benchmarks.rig_pictures [FOLDER]

Run it after a change of the avatar's weights or of its rig. The first picture is of the avatar's own rig; the second of
the one that its generator was asked for.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from imtalker import Motion, Rig, load_generator, load_renderer
from imtalker.drawn import example as drawn
from imtalker.motion.rig import Channel
from imtalker.rigging import SHIPPED, ask
from imtalker.weights.checkpoints import AVATAR, find_weights

PERSON = 3  # brows that show, and no glasses, which this renderer blurs
SIDE, GAP, CAPTION = 150, 8, 34
COLUMNS = 4  # channels in a row, each with its lowest and highest value


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rig_pictures", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parents[1] / "docs")
    folder = parser.parse_args(arguments).folder
    renderer = load_renderer(find_weights(AVATAR, "renderer"))
    source = renderer.encode_source(drawn.portrait(renderer.config.input_size, PERSON))
    own, asked = Rig.load(SHIPPED), ask(load_generator(find_weights(AVATAR, "generator")))
    for name, rig in (("rig", own), ("rig_models", asked)):
        channels = [rig.channels[number] for number in rig.usable()]
        sheet(renderer, source, rig, channels).save(folder / f"{name}.jpg", quality=88, optimize=True)


def sheet(renderer, source, rig: Rig, channels: list[Channel]) -> Image.Image:
    """Two faces for each channel, with its name and the values."""
    rows = -(-len(channels) // COLUMNS)
    cell = 2 * SIDE + 2 * GAP, SIDE + CAPTION + GAP
    page = Image.new("RGB", (COLUMNS * cell[0] + GAP, rows * cell[1] + GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for number, channel in enumerate(channels):
        left, top = GAP + number % COLUMNS * cell[0], GAP + number // COLUMNS * cell[1]
        pen.text((left, top), channel.name, "black", font)
        for side, value in enumerate((channel.low, channel.high)):
            at = left + side * (SIDE + 2)
            pen.text((at, top + 15), f"{value:.2g}", "dimgray", font)
            page.paste(face(renderer, source, rig, channel.name, value), (at, top + CAPTION - 2))
    return page


def face(renderer, source, rig: Rig, channel: str, value: float) -> Image.Image:
    """The portrait with a channel moved to a value, from the rig's rest."""
    still = Motion(rig.rest, generation=rig.generation)
    frame = renderer.render(source, rig.add(still, {channel: torch.tensor([value])}))[0]
    return picture(frame)


def picture(frame: Tensor) -> Image.Image:
    pixels = frame.mul(255).round().byte().numpy()
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
