"""Clips of synthetic speech with their true motion, and batches of them to train the avatar's generator on."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..media.audio import FPS, normalise
from ..models.generator import Generator
from ..train.runtime import seed_of
from .batches import HEAD_CHANNELS
from .speech import random_utterance
from .visemes import CHANNEL, MOUTH, head_motion, motion_control, sound_labels

SAMPLES_PER_FRAME = 16000 // FPS
SECONDS = 8  # of every clip
MEMORY = 192  # clips in use at a time
WINDOWS = 32  # in a batch of flow matching
# the motion channels that can be heard: the mouth without the smile
HEARD = slice(CHANNEL[MOUTH[0]], CHANNEL[MOUTH[0]] + 3)


@dataclass(frozen=True)
class SpeechClip:
    """T frames of speech with their motion, sounds and controls."""

    waveform: Tensor  # (640*T,) at 16 kHz
    motion: Tensor  # (T,16)
    labels: Tensor  # (T,) indices into visemes.SOUNDS
    controls: dict[str, Tensor]  # pose (T,3), cam (T,3), gaze (T,2)


def make_speech_clip(seed: int, held_out: bool = False) -> SpeechClip:
    """A clip of `SECONDS`; held_out: a voice, and sometimes a language, that training never uses."""
    speech = random_utterance(seed, SECONDS, held_out)
    frames = SECONDS * FPS
    rows = head_motion(speech.phonemes, frames, seed)
    return SpeechClip(
        speech.waveform,
        torch.from_numpy(rows),
        torch.from_numpy(sound_labels(speech.phonemes, frames)),
        motion_control(rows).parts(),
    )


def encode_speech(generator: Generator, waveforms: Tensor) -> Tensor:
    """`Generator.encode_audio` for a batch, with gradients: (B,640*T) at 16 kHz -> (B,T,hidden_size)."""
    model, frames = generator.audio_encoder.wav2vec2, waveforms.shape[1] // SAMPLES_PER_FRAME
    x = model.feature_extractor(torch.stack([normalise(each) for each in waveforms]))
    x = F.interpolate(x, size=frames, mode="linear", align_corners=True).transpose(1, 2)
    return model.encoder(model.feature_projection(x)[0])[0]


def hearing_batches(step: int, rank: int, count: int) -> Iterator[dict[str, Tensor]]:
    """Batches of about 28 seconds of speech, cut to one length between 2.4 and 8 s.

    Each step adds at most two new clips and reuses the others.
    """
    clips = functools.lru_cache(MEMORY)(make_speech_clip)
    while True:
        random = np.random.default_rng(seed_of(1, step, rank))
        frames = int(random.integers(60, SECONDS * FPS + 1))
        parts = []
        for number in random.integers(0, MEMORY, max(4, 700 // frames)):
            clip = clips((2 * step + int(number)) * count + rank)
            start = int(random.integers(0, len(clip.motion) - frames + 1))
            span = slice(start, start + frames)
            waveform = clip.waveform[start * SAMPLES_PER_FRAME : (start + frames) * SAMPLES_PER_FRAME]
            parts.append((waveform, clip.motion[span, HEARD], clip.labels[span]))
        yield dict(zip(("waveform", "mouth", "labels"), map(torch.stack, zip(*parts))))
        step += 1


def flow_batches(generator: Generator) -> Callable[[int, int, int], Iterator[dict[str, Tensor]]]:
    """Batches of motion windows with the context before them.

    Each step adds at most one new clip; every clip serves many windows.
    """
    window, context = generator.config.window, generator.config.context

    @functools.lru_cache(MEMORY)
    @torch.no_grad()
    def clips(seed: int) -> dict[str, Tensor]:
        clip = make_speech_clip(seed)
        return {"audio": encode_speech(generator, clip.waveform[None])[0], "motion": clip.motion, **clip.controls}

    def batches(step: int, rank: int, count: int) -> Iterator[dict[str, Tensor]]:
        while True:
            random = np.random.default_rng(seed_of(2, step, rank))
            parts = []
            for number in random.integers(0, MEMORY, WINDOWS):
                clip = clips(10**6 + (step + int(number)) * count + rank)
                frames = len(clip["motion"])
                first = random.random() < 0.25  # the first window of a clip has no context
                start = 0 if first else int(random.integers(context, frames - window + 1))
                rows = (torch.arange(-context, window) + start).clamp(min=0)
                part = {name: values[rows] for name, values in clip.items()}
                # the pose that the head sways about, like that of a portrait
                part["reference"] = clip["motion"][random.integers(0, frames)].clone()
                part["reference"][HEAD_CHANNELS] = clip["motion"][:, HEAD_CHANNELS].mean(0)
                part["context"] = torch.tensor(not first)
                parts.append(part)
            yield {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
            step += 1

    return batches
