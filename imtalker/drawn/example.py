"""Drawn people, a synthesised voice and a driving video, to try the project without anybody's photo or recording.

`python -m imtalker.drawn FOLDER` writes them as portrait.png, two_people.png, speech.wav and driving.mp4.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..media.audio import Audio
from ..media.video_writer import write_video
from .head import MOTION, MOTION_SIZE
from .people import random_appearances
from .portraits import draw

FORMANTS = {"a": (800, 1200, 2500), "e": (530, 1850, 2500), "i": (280, 2250, 2900), "o": (500, 880, 2550)}
RATE = 22050
SOMEBODY = 103  # seed of the default person
DRIVER = 2  # seed of the person in the driving video
FPS = 25


def portrait(size: int = 512, seed: int = SOMEBODY) -> torch.Tensor:
    """Draws a cartoon head and shoulders facing the camera: (1,size,size,3), RGB in 0..1. Each seed is one person."""
    return draw(random_appearances(1, seed), torch.zeros(1, MOTION_SIZE), size).permute(0, 2, 3, 1).contiguous()


def two_people(size: int = 512, seed: int = SOMEBODY) -> torch.Tensor:
    """Draws two people side by side, the left one that of `portrait`: (1,size,2*size,3), RGB in 0..1."""
    left, right = random_appearances(1, seed), random_appearances(1, seed ^ 1)
    pair = (left, replace(right, background=left.background))
    faces = [draw(one, torch.zeros(1, MOTION_SIZE), size) for one in pair]
    return torch.cat(faces, dim=3).permute(0, 2, 3, 1).contiguous()


def driving_motion(sound: Audio) -> torch.Tensor:
    """(T,16) at 25 fps, as long as the sound: a head that starts at rest, looks around, nods, tilts, blinks and smiles,
    its mouth as open as the sound is loud."""
    count = round(sound.waveform.shape[-1] / sound.sample_rate * FPS)
    time = torch.arange(count) / FPS
    rest = 1 - torch.exp(-3 * time)
    loudness = torch.nn.functional.adaptive_avg_pool1d(sound.waveform[:1].float().square()[None], count)[0, 0].sqrt()
    blinks = sum(torch.exp(-(((time - at) / 0.07) ** 2)) for at in (0.7, 2.1, 3.3))
    values = {
        "yaw": 0.42 * torch.sin(2 * torch.pi * time / 3.2),
        "pitch": 0.35 * torch.sin(2 * torch.pi * time / 1.9) * rest,
        "roll": 0.30 * torch.sin(2 * torch.pi * time / 2.6),
        "x": 0.15 * torch.sin(2 * torch.pi * time / 3.2),
        "gaze_x": 0.5 * torch.sin(2 * torch.pi * time / 1.6),
        "brows": 0.8 * torch.exp(-(((time - 1.5) / 0.4) ** 2)),
        "blink": blinks,
        "mouth_open": 0.8 * loudness / loudness.max().clamp_min(1e-6),
        "smile": 0.7 * torch.sigmoid(6 * (time - 2.8)) * rest,
    }
    still = torch.zeros(count)
    motion = torch.stack([values.get(name, still) for name in MOTION], dim=1)
    return torch.nn.functional.pad(motion, (0, MOTION_SIZE - len(MOTION)))


def driving_frames(sound: Audio, size: int = 256, seed: int = DRIVER) -> Iterator[torch.Tensor]:
    """Draws somebody who moves as `driving_motion` says: blocks of frames (n,size,size,3), RGB in 0..1, at 25 fps."""
    somebody = random_appearances(1, seed)
    for rows in driving_motion(sound).split(8):
        yield draw(somebody.repeat_interleave(len(rows)), rows, size).permute(0, 2, 3, 1)


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
    """Writes portrait.png, two_people.png, speech.wav and driving.mp4 into an existing folder."""
    for name, picture in (("portrait", portrait()), ("two_people", two_people())):
        Image.fromarray((picture[0] * 255).round().byte().numpy()).save(Path(folder) / f"{name}.png")
    write_sound(Path(folder) / "speech.wav", voice := speech())
    write_video(Path(folder) / "driving.mp4", driving_frames(voice), FPS, voice)
