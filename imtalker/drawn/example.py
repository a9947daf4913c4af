"""A drawn portrait and a synthesised voice, to try the project without anybody's photo or recording.

`python -m imtalker.drawn FOLDER` writes them as portrait.png and speech.wav.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..media.audio import Audio
from .head import MOTION_SIZE
from .people import random_appearances
from .portraits import draw

FORMANTS = {"a": (800, 1200, 2500), "e": (530, 1850, 2500), "i": (280, 2250, 2900), "o": (500, 880, 2550)}
RATE = 22050
SOMEBODY = 103  # seed of the default person


def portrait(size: int = 512, seed: int = SOMEBODY) -> torch.Tensor:
    """Draws a cartoon head and shoulders facing the camera: (1,size,size,3), RGB in 0..1. Each seed is one person."""
    return draw(random_appearances(1, seed), torch.zeros(1, MOTION_SIZE), size).permute(0, 2, 3, 1).contiguous()


def speech(seconds: float = 2.0) -> Audio:
    """Synthesises vowels in a falling melody with pauses between them: mono at 22,050 Hz, peak 0.5."""
    from scipy.signal import lfilter  # takes half a second to import, which a portrait does not need

    rng = np.random.default_rng(0)
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


def write_sound(path: str | Path, sound: Audio) -> None:
    """Writes the first channel to a 16-bit .wav file."""
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.sample_rate)
        file.writeframes((sound.waveform[0] * 32767).round().short().numpy().tobytes())


def main(folder: str | Path) -> None:
    """Writes portrait.png and speech.wav into an existing folder."""
    pixels = (portrait()[0] * 255).round().byte().numpy()
    Image.fromarray(pixels).save(Path(folder) / "portrait.png")
    write_sound(Path(folder) / "speech.wav", speech())
