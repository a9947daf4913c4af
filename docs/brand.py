"""Draws icon.png and banner.png for the registry, beside this file: python docs/brand.py."""

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parent
OVER = 4  # drawn larger and reduced, which smooths every edge
INK, DEEP, LIGHT, WARM = (14, 22, 40), (30, 64, 118), (236, 244, 255), (255, 176, 92)


def ground(width: int, height: int) -> Image.Image:
    """From blue in the upper left to almost black in the lower right."""
    ramp = Image.new("L", (64, 64))
    ramp.putdata([round(255 * (x + y) / 126) for y in range(64) for x in range(64)])
    ramp = ramp.resize((width, height), Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", (width, height), INK), Image.new("RGB", (width, height), DEEP), ramp)


def face(picture: Image.Image, x: float, y: float, size: float) -> None:
    """A head in outline around (x, y), size high, with an open mouth."""
    draw = ImageDraw.Draw(picture)

    def box(dx: float, dy: float, w: float, h: float) -> tuple[float, ...]:
        dx, dy, w, h = (size * value for value in (dx, dy, w, h))
        return x + dx - w / 2, y + dy - h / 2, x + dx + w / 2, y + dy + h / 2

    line = round(size * 0.045)
    draw.ellipse(box(0, 0, 0.74, 1), outline=LIGHT, width=line)
    for side in (-0.15, 0.15):
        draw.ellipse(box(side, -0.1, 0.1, 0.1), fill=LIGHT)
    draw.ellipse(box(0, 0.22, 0.26, 0.2), fill=WARM)


def waves(picture: Image.Image, x: float, y: float, size: float, count: int = 3) -> None:
    """Sound that leaves (x, y) to the right."""
    draw = ImageDraw.Draw(picture)
    for number in range(count):
        radius = size * (0.16 + 0.13 * number)
        colour = tuple(round(w + (d - w) * number / count) for w, d in zip(WARM, DEEP, strict=True))
        draw.arc((x - radius, y - radius, x + radius, y + radius), -38, 38, fill=colour, width=round(size * 0.045))


def voice(picture: Image.Image, left: float, right: float, y: float, height: float) -> None:
    """Bars of a waveform."""
    draw = ImageDraw.Draw(picture)
    bars = 44
    step = (right - left) / bars
    for number in range(bars):
        swell = abs(math.sin(number * 0.55) * math.sin(number * 0.21 + 0.4)) * (
            0.4 + 0.6 * math.sin(number / bars * 3.1)
        )
        half = height * (0.04 + 0.46 * swell)
        start = left + number * step
        draw.rounded_rectangle((start, y - half, start + step * 0.5, y + half), step * 0.25, fill=WARM)


def icon(side: int = 400) -> Image.Image:
    full = side * OVER
    picture = ground(full, full)
    face(picture, full * 0.4, full * 0.5, full * 0.66)
    waves(picture, full * 0.62, full * 0.645, full * 0.62)
    corners = Image.new("L", (full, full))
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, full - 1, full - 1), full * 0.2, fill=255)
    picture.putalpha(corners)
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def banner(width: int = 1680, height: int = 720) -> Image.Image:
    size = width * OVER // 2, height * OVER // 2
    picture = ground(*size)
    face(picture, size[0] * 0.2, size[1] * 0.5, size[1] * 0.62)
    waves(picture, size[0] * 0.288, size[1] * 0.636, size[1] * 0.6)
    voice(picture, size[0] * 0.44, size[0] * 0.93, size[1] * 0.72, size[1] * 0.2)
    draw = ImageDraw.Draw(picture)
    draw.text((size[0] * 0.435, size[1] * 0.2), "IMTalker", fill=LIGHT, font=ImageFont.load_default(size[1] * 0.21))
    line = "a portrait and a voice: a video that speaks"
    draw.text(
        (size[0] * 0.44, size[1] * 0.47), line, fill=(170, 192, 222), font=ImageFont.load_default(size[1] * 0.062)
    )
    return picture.resize((width, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    icon().save(FOLDER / "icon.png", optimize=True)
    banner().quantize(200, dither=Image.Dither.FLOYDSTEINBERG).save(FOLDER / "banner.png", optimize=True)
