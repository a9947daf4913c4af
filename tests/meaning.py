"""What the avatar's motion and pictures mean, as numbers: is it the sound that the mouth follows, and when?"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from imtalker.avatar.readback import by_lag, read
from imtalker.drawn import example as drawn
from imtalker.drawn.people import Look, looks
from imtalker.drawn.portraits import MOTION, MOTION_SIZE, draw
from imtalker.media.audio import Audio, read_audio
from imtalker.media.video import VideoReader
from imtalker.models.generator import Generator
from imtalker.models.renderer import Renderer, Source
from imtalker.weights.checkpoints import AVATAR

LOOK = looks(1, drawn.SOMEBODY)  # of drawn.portrait()
LAGS = range(-6, 7)
SIDE, YAWS = 48, torch.linspace(-0.8, 0.8, 33)
TALK = {"cfg": 1.0, "crop": "none"}  # as the avatar was measured


@dataclass(frozen=True)
class Avatar:
    renderer: Renderer
    generator: Generator
    source: Source  # of drawn.portrait()

    def say(self, sound: Audio, **settings) -> Tensor:
        """Motion (T,16) at 25 frames a second."""
        heard = self.generator.encode_audio(sound.waveform, sound.sample_rate)
        return self.generator.sample(heard, self.source, **{"cfg": 1.0} | settings).latents


def value(motion: Tensor, name: str) -> Tensor:
    """One named value of a motion (T,16)."""
    return motion[:, MOTION.index(name)]


def sentence(seconds: float = 4.0, pause: float = 1.0) -> Audio:
    """The beginning of the avatar's sentence, which is four seconds long, and silence after it."""
    said = read_audio(AVATAR / "speech.wav")
    waveform = said.waveform[:, : round(seconds * said.sample_rate)]
    silence = waveform.new_zeros(1, round(pause * said.sample_rate))
    return Audio(torch.cat([waveform, silence], dim=1), said.sample_rate)


def backwards(sound: Audio) -> Audio:
    """Other speech, as long and as loud."""
    return Audio(sound.waveform.flip(-1), sound.sample_rate)


def loudness(sound: Audio, fps: float = 25) -> Tensor:
    """Root of the mean square while each frame is shown, (T,)."""
    edges = [round(frame * sound.sample_rate / fps) for frame in range(round(sound.seconds * fps) + 1)]
    return torch.stack([sound.waveform[:, a:b].square().mean().sqrt() for a, b in zip(edges, edges[1:])])


def follows(mouth: Tensor, sound: Audio, fps: float = 25) -> tuple[float, int]:
    """How well the mouth's opening (T,) goes with loudness, -1..1, and how many frames late it would go best."""
    loud = loudness(sound, fps)
    count = min(len(mouth), len(loud))
    found = by_lag(mouth[:count], loud[:count], LAGS)
    return found[0], max(found, key=found.get)


def pictures(path: Path) -> Tensor:
    """The frames of a video, (T,3,H,W), 0..1."""
    with VideoReader(path) as reader:
        return torch.stack(list(reader)).permute(0, 3, 1, 2).float() / 255


def mouth_in(frames: Tensor, head: Tensor | None = None, look: Look = LOOK) -> Tensor:
    """How open the mouth is in frames (T,3,H,W), (T,). head: motions (T,16) of the head, straight ahead if None."""
    head = torch.zeros(len(frames), MOTION_SIZE) if head is None else head
    return read(frames, look.repeat_interleave(len(frames)), head)["mouth_open"]


def yaw_in(frames: Tensor, head: Tensor | None = None, look: Look = LOOK) -> Tensor:
    """How far the head is turned in frames (T,3,H,W), (T,): the yaw whose drawing comes nearest. head: as above."""
    head = torch.zeros(len(frames), MOTION_SIZE) if head is None else head
    small, errors = F.interpolate(frames, size=(SIDE, SIDE), mode="area"), []
    for yaw in YAWS:
        turned = head.clone()
        turned[:, MOTION.index("yaw")] = yaw
        errors.append((draw(look.repeat_interleave(len(frames)), turned, SIDE) - small).square().mean((1, 2, 3)))
    return YAWS[torch.stack(errors).argmin(0)]
