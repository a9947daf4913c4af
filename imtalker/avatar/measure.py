"""Measures the avatar's generator: how well the mouth follows the speech, and head and eyes the controls.

    python -m imtalker.avatar.measure generator.safetensors

The clips are held out from training: other voices, other sentences, and one language that training never uses.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..drawn.head import MOTION, MOTION_SIZE
from ..media.audio import FPS, SAMPLE_RATE
from ..models.generator import Generator
from ..models.renderer import Source
from ..motion.control import Control
from ..weights.checkpoints import load_generator
from .generator_tasks import CONTROLLED
from .readback import by_lag, correlation
from .speech_clips import SpeechClip, make_speech_clip
from .visemes import CHANNEL, MOUTH, SOUNDS, VOWEL

LAGS = range(-6, 7)  # frames
QUIET = 5  # a frame counts as silent if this many frames before and after it are silent


def bare_source(motion: Tensor | None = None) -> Source:
    """A source with nothing but its motion (1,16), which is all that sampling needs; neutral by default."""
    nothing = torch.zeros(1, 0)
    return Source((), nothing, torch.zeros(1, MOTION_SIZE) if motion is None else motion, None, "v2")


def sampled(
    generator: Generator, clip: SpeechClip, cfg: float, control: Control | None = None, seed: int = 0
) -> Tensor:
    """Samples motion (T,16) for the clip's speech from a neutral source."""
    speech = generator.encode_audio(clip.waveform[None], SAMPLE_RATE)
    return generator.sample(speech, bare_source(), control, cfg, seed=seed).latents


def measure_mouth(generator: Generator, clips: list[SpeechClip], cfg: float) -> dict[str, float]:
    """Correlations over all frames of all clips, and mean openings of the mouth (mouth_open).

    "lag" is the delay in frames at which the mouth fits best, negative if it is early.
    """
    motions = [sampled(generator, clip, cfg, seed=number) for number, clip in enumerate(clips)]
    open_ = CHANNEL["mouth_open"]
    opened = torch.stack([motion[:, open_] for motion in motions])
    truth = torch.stack([clip.motion[:, open_] for clip in clips])
    found = {}
    for name in MOUTH[:3]:
        channel = CHANNEL[name]
        true = torch.stack([clip.motion[:, channel] for clip in clips])
        found[name] = correlation(torch.stack([motion[:, channel] for motion in motions]), true)
    lags = by_lag(opened, truth, LAGS)
    found["lag"] = max(lags, key=lags.get)
    found["at_lag"] = lags[found["lag"]]
    found["other_speech"] = correlation(opened, truth.roll(1, dims=0))
    labels = torch.stack([clip.labels for clip in clips])
    vowels = torch.tensor([SOUNDS.index(vowel) for vowel in VOWEL])
    silent = _inside(labels == SOUNDS.index(""), QUIET)
    found["open_in_silence"] = opened[silent].mean().item()
    found["open_in_silence_95"] = opened[silent].quantile(0.95).item()
    found["open_in_vowels"] = opened[torch.isin(labels, vowels)].mean().item()
    found["true_open_in_vowels"] = truth[torch.isin(labels, vowels)].mean().item()
    lips = torch.isin(labels, torch.tensor([SOUNDS.index(sound) for sound in "pbm"])) & (truth < 0.05)
    found["open_at_lips"] = opened[lips].mean().item()
    return found


def _inside(mask: Tensor, margin: int) -> Tensor:
    """(N,T): frames whose neighbours, up to `margin` on both sides, are all in the mask."""
    around = torch.nn.functional.pad(mask.float(), (margin, margin)).unfold(1, 2 * margin + 1, 1)
    return around.amin(dim=-1) > 0


def measure_control(generator: Generator, clips: list[SpeechClip], cfg: float) -> dict[str, float]:
    """Correlation of controlled with sampled motion, one control at a time.

    Each clip's speech is sampled under the controls of the next clip, so that the speech cannot give them away.
    """
    found = {}
    for part, channels in CONTROLLED.items():
        others = [clips[(number + 1) % len(clips)] for number in range(len(clips))]
        motions = [
            sampled(generator, clip, cfg, Control(**{part: other.controls[part]}, fps=float(FPS)), number)
            for number, (clip, other) in enumerate(zip(clips, others))
        ]
        for name in MOTION[channels]:
            truth = torch.stack([other.motion[:, CHANNEL[name]] for other in others])
            reached = torch.stack([motion[:, CHANNEL[name]] for motion in motions])
            found[name] = correlation(reached, truth)
            # within clips: following the mean pose alone does not count
            found[f"{name}_within"] = correlation(_centred(reached), _centred(truth))
    return found


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=1, keepdim=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m imtalker.avatar.measure", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="an avatar's generator.safetensors")
    parser.add_argument("--clips", type=int, default=16, help="held-out clips to measure on (%(default)s)")
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 2.0], help="guidance weights to measure at (1 2)")
    arguments = parser.parse_args()
    generator = load_generator(arguments.file)
    clips = [make_speech_clip(1000 + number, held_out=True) for number in range(arguments.clips)]
    seconds = np.sum([len(clip.motion) for clip in clips]) / FPS
    print(f"{len(clips)} clips of held-out voices, {seconds:.0f} s")
    for cfg in arguments.cfg:
        print(f"cfg {cfg:g}:", "  ".join(f"{k} {v:.3f}" for k, v in measure_mouth(generator, clips, cfg).items()))
        print(f"cfg {cfg:g}:", "  ".join(f"{k} {v:.3f}" for k, v in measure_control(generator, clips, cfg).items()))


if __name__ == "__main__":
    main()
