"""A drawn portrait and a synthesised voice, for trying things without anybody's picture or speech.

python -m imtalker.drawn FOLDER writes portrait.png and speech.wav.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from scipy.signal import lfilter

from .audio import Audio

SKIN, SHADE, HAIR, SHIRT = (236, 190, 160), (206, 150, 122), (84, 52, 38), (58, 96, 140)
FORMANTS = {"a": (800, 1200, 2500), "e": (530, 1850, 2500), "i": (280, 2250, 2900), "o": (500, 880, 2550)}
RATE = 22050


def portrait(size: int = 512) -> torch.Tensor:
    """A cartoon head and shoulders, facing the camera: (1,size,size,3), RGB in 0..1."""
    side = 4 * size  # drawn larger and reduced, which smooths every edge
    picture = Image.new("RGB", (side, side), (196, 214, 222))
    draw = ImageDraw.Draw(picture)

    def box(x: float, y: float, w: float, h: float) -> tuple[float, ...]:
        return tuple(side * v for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))

    draw.ellipse(box(0.5, 0.44, 0.56, 0.66), fill=HAIR)
    draw.ellipse(box(0.5, 1.08, 0.86, 0.54), fill=SHIRT)
    draw.rounded_rectangle(box(0.5, 0.8, 0.17, 0.24), side * 0.06, fill=SHADE)
    draw.ellipse(box(0.27, 0.52, 0.07, 0.12), fill=SHADE)
    draw.ellipse(box(0.73, 0.52, 0.07, 0.12), fill=SHADE)
    draw.ellipse(box(0.5, 0.51, 0.46, 0.6), fill=SKIN)
    draw.pieslice(box(0.5, 0.34, 0.5, 0.34), 180, 360, fill=HAIR)
    for x in (0.4, 0.6):
        draw.ellipse(box(x, 0.49, 0.1, 0.056), fill=(250, 250, 248))
        draw.ellipse(box(x, 0.49, 0.052, 0.054), fill=(70, 110, 90))
        draw.ellipse(box(x, 0.49, 0.026, 0.028), fill=(20, 20, 22))
        draw.ellipse(box(x - 0.01, 0.48, 0.01, 0.01), fill=(255, 255, 255))
        draw.arc(box(x, 0.5, 0.12, 0.1), 205, 335, fill=HAIR, width=side // 170)
        draw.arc(box(x, 0.47, 0.15, 0.1), 215, 325, fill=HAIR, width=side // 70)
    draw.arc(box(0.5, 0.575, 0.07, 0.06), 20, 160, fill=SHADE, width=side // 110)
    draw.ellipse(box(0.5, 0.69, 0.17, 0.052), fill=(190, 84, 84))
    draw.arc(box(0.5, 0.672, 0.17, 0.045), 15, 165, fill=(130, 48, 52), width=side // 150)
    # soft light from the left, so that the head is not flat
    light = Image.new("L", (side, side), 0)
    ImageDraw.Draw(light).ellipse(box(0.66, 0.56, 0.4, 0.62), fill=70)
    light = light.filter(ImageFilter.GaussianBlur(side / 14))
    picture = Image.composite(Image.new("RGB", (side, side), (60, 40, 60)), picture, light)
    pixels = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS), dtype=np.float32)
    return torch.from_numpy(pixels / 255)[None]


def speech(seconds: float = 2.0, seed: int = 0) -> Audio:
    """Vowels in a falling melody with pauses between them: mono at 22,050 Hz, peak 0.5."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    time = np.arange(count) / RATE
    pitch = 120 * (1 + 0.1 * np.sin(2 * np.pi * 0.9 * time) - 0.06 * time)
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0)
    source = lfilter([1], [1, -0.96], pulses) + 0.01 * rng.standard_normal(count)
    voice = np.zeros(count)
    start = 0
    while start < count:
        length = int(rng.uniform(0.14, 0.26) * RATE)
        part = slice(start, min(start + length, count))
        sound = source[part]
        for formant in FORMANTS[rng.choice(list(FORMANTS))]:
            radius, angle = np.exp(-np.pi * 90 / RATE), 2 * np.pi * formant / RATE
            sound = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], sound)
        voice[part] = sound * np.hanning(len(sound)) / (np.abs(sound).max() + 1e-9)
        start += length + int(rng.choice([0, 0.03, 0.12]) * RATE)
    return Audio(torch.from_numpy(0.5 * voice / np.abs(voice).max()).float()[None], RATE)


def main(folder: str) -> None:
    """Writes portrait.png and speech.wav (16 bit) into an existing folder."""
    import wave

    pixels = (portrait()[0] * 255).round().byte().numpy()
    Image.fromarray(pixels).save(Path(folder) / "portrait.png")
    sound = speech()
    with wave.open(str(Path(folder) / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.sample_rate)
        file.writeframes((sound.waveform[0] * 32767).round().short().numpy().tobytes())


if __name__ == "__main__":
    main(sys.argv[1])
