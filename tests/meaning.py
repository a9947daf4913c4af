"""Measures what the avatar's motion and frames mean: how well, and how late, the mouth follows the audio."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from imtalker.avatar.readback import by_lag, read
from imtalker.drawn import example as drawn
from imtalker.drawn.head import MOTION, MOTION_SIZE
from imtalker.drawn.people import Appearance, random_appearances
from imtalker.drawn.portraits import draw
from imtalker.media.audio import Audio, read_audio
from imtalker.media.video import VideoReader
from imtalker.models.generator import Generator
from imtalker.models.renderer import Renderer, Source
from imtalker.weights.checkpoints import AVATAR

PERSON = random_appearances(1, drawn.SOMEBODY)  # of drawn.portrait()
LAGS = range(-6, 7)
SIDE, YAWS = 48, torch.linspace(-0.8, 0.8, 33)
TALK = {"cfg": 1.0, "crop": "none"}  # the settings that the avatar was measured with


@dataclass(frozen=True)
class Avatar:
    renderer: Renderer
    generator: Generator
    source: Source  # of drawn.portrait()

    def say(self, sound: Audio, **settings) -> Tensor:
        """Motion (T,16) at 25 frames a second for the audio."""
        features = self.generator.encode_audio(sound.waveform, sound.sample_rate)
        return self.generator.sample(features, self.source, **{"cfg": 1.0} | settings).latents


def value(motion: Tensor, name: str) -> Tensor:
    """One named value of a motion (T,16)."""
    return motion[:, MOTION.index(name)]


def sentence(seconds: float = 4.0, pause: float = 1.0) -> Audio:
    """The start of the avatar's sentence, which is four seconds long, and silence after it."""
    speech = read_audio(AVATAR / "speech.wav")
    waveform = speech.waveform[:, : round(seconds * speech.sample_rate)]
    silence = waveform.new_zeros(1, round(pause * speech.sample_rate))
    return Audio(torch.cat([waveform, silence], dim=1), speech.sample_rate)


def backwards(sound: Audio) -> Audio:
    """Different speech of the same length and loudness."""
    return Audio(sound.waveform.flip(-1), sound.sample_rate)


def loudness(sound: Audio, fps: float = 25) -> Tensor:
    """RMS of the audio during each frame, (T,)."""
    edges = [round(frame * sound.sample_rate / fps) for frame in range(round(sound.seconds * fps) + 1)]
    return torch.stack([sound.waveform[:, a:b].square().mean().sqrt() for a, b in zip(edges, edges[1:])])


def follows(mouth: Tensor, sound: Audio, fps: float = 25) -> tuple[float, int]:
    """Correlation of the mouth's opening (T,) with loudness, -1..1, and the lag in frames at which it is largest."""
    loud = loudness(sound, fps)
    count = min(len(mouth), len(loud))
    found = by_lag(mouth[:count], loud[:count], LAGS)
    return found[0], max(found, key=found.get)


def pictures(path: Path) -> Tensor:
    """The frames of a video, (T,3,H,W), 0..1."""
    with VideoReader(path) as reader:
        return torch.stack(list(reader)).permute(0, 3, 1, 2).float() / 255


def mouth_in(frames: Tensor, head: Tensor | None = None, appearance: Appearance = PERSON) -> Tensor:
    """How open the mouth is in frames (T,3,H,W): (T,). head: motions (T,16) of the head; None: facing the camera."""
    head = torch.zeros(len(frames), MOTION_SIZE) if head is None else head
    return read(frames, appearance.repeat_interleave(len(frames)), head)["mouth_open"]


def yaw_in(frames: Tensor, head: Tensor | None = None, appearance: Appearance = PERSON) -> Tensor:
    """The yaw whose drawing is closest to each frame of (T,3,H,W): (T,). head: as in `mouth_in`."""
    head = torch.zeros(len(frames), MOTION_SIZE) if head is None else head
    small, errors = F.interpolate(frames, size=(SIDE, SIDE), mode="area"), []
    for yaw in YAWS:
        turned = head.clone()
        turned[:, MOTION.index("yaw")] = yaw
        errors.append((draw(appearance.repeat_interleave(len(frames)), turned, SIDE) - small).square().mean((1, 2, 3)))
    return YAWS[torch.stack(errors).argmin(0)]
