"""Trains the generator of the project's own small avatar, from nothing and on one CPU core if need be.

    python -m imtalker.avatar.generator --out DIR --minutes 45

The avatar's motion has names (visemes.MOTION), and made-up speech comes with its true motion, so that no renderer and
no recording is needed. First the audio encoder learns to hear: a linear read-out of its features gives the shape of
the mouth and the sound of every frame. Then it is kept as it is, and the transformer learns by flow matching.
The same command goes on from where it was stopped. DIR/generator.safetensors is the result, in float16. With --start, a
generator of this kind, only the transformer learns on.
"""

import argparse
import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..drawn.portraits import MOTION_SIZE
from ..errors import InputError
from ..media.audio import FPS, normalise
from ..models.config import AudioConfig, GeneratorConfig, to_dict
from ..models.generator import Generator
from ..train.initialise import new_generator
from ..train.loop import Settings, Training
from ..train.runtime import seed_of
from ..weights.checkpoints import load_generator, save_weights
from .batches import HEAD
from .muon import Muon
from .readback import correlation
from .speech import random_utterance
from .visemes import CHANNEL, MOUTH, SOUNDS, control, motion, sounds

log = logging.getLogger("imtalker")

AUDIO = AudioConfig(112, 3, 4, 448, (56,) * 7, num_conv_pos_embeddings=32)
CONFIG = GeneratorConfig("v2", motion_size=MOTION_SIZE, width=128, depth=4, heads=4, audio=AUDIO)
SAMPLES_PER_FRAME = 16000 // FPS
SECONDS = 8  # of every clip
MEMORY = 192  # clips that are in use at a time
GATE = 0.8  # least correlation of mouth_open with the truth on voices never heard before flow matching begins
FIRST, LAST = CHANNEL[MOUTH[0]], CHANNEL[MOUTH[-1]] + 1
SCHEDULE = {"warmup": 100, "end": 0.02, "clip": 1.0, "ema": 0.998}
STEERED = {"pose": slice(0, 3), "cam": slice(3, 6), "gaze": slice(6, 8)}  # values of motion, by control
JOINS = 2.0  # weight of the first frame after a context
# By absolute errors what is rare is never learned: eyes are open nine tenths of the time, and that is their median.
RARE, RARELY = CHANNEL["blink"], 2.0  # value whose errors are squared, and their weight
SHAPES = 3  # channels of the mouth that are heard; the smile is not


@dataclass(frozen=True)
class Clip:
    """Speech with all that goes with it, T frames."""

    waveform: Tensor  # (640*T,) at 16 kHz
    motion: Tensor  # (T,16)
    sounds: Tensor  # (T,) places in SOUNDS
    controls: dict[str, Tensor]  # pose (T,3), cam (T,3), gaze (T,2)


def make_clip(seed: int, held_out: bool = False, seconds: int = SECONDS) -> Clip:
    speech = random_utterance(seed, seconds, held_out)
    frames = seconds * FPS
    rows = motion(speech.phonemes, frames, seed)
    return Clip(
        speech.waveform,
        torch.from_numpy(rows),
        torch.from_numpy(sounds(speech.phonemes, frames)),
        control(rows).parts(),
    )


def encode(generator: Generator, waveforms: Tensor) -> Tensor:
    """`Generator.encode_audio` for a batch of whole frames (B,640*T) at 16 kHz, with gradients -> (B,T,hidden_size)."""
    model, frames = generator.audio_encoder.wav2vec2, waveforms.shape[1] // SAMPLES_PER_FRAME
    x = model.feature_extractor(torch.stack([normalise(each) for each in waveforms]))
    x = F.interpolate(x, size=frames, mode="linear", align_corners=True).transpose(1, 2)
    return model.encoder(model.feature_projection(x)[0])[0]


class Hearing:
    """First stage: the audio encoder and a linear read-out of mouth and sounds."""

    def __init__(self, generator: Generator, rate: float = 1.5e-3):
        self.generator = generator
        self.readout = nn.Linear(generator.config.audio.hidden_size, SHAPES + len(SOUNDS))
        self.rate = rate

    def modules(self) -> dict[str, nn.Module]:
        return {"audio_encoder": self.generator.audio_encoder, "readout": self.readout}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = [p for module in self.modules().values() for p in module.parameters()]
        return {"audio": torch.optim.AdamW(parameters, self.rate, betas=(0.9, 0.98), weight_decay=0.01)}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        shapes, heard = self.hear(batch["waveform"])
        wrong = F.cross_entropy(heard.flatten(0, 1), batch["sounds"].flatten(), label_smoothing=0.05)
        yield "audio", {"mouth": 4 * (shapes - batch["mouth"]).abs().mean(), "sound": 0.3 * wrong}

    def hear(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """-> mouth (B,T,3) and what speaks for every sound (B,T,len(SOUNDS))."""
        read = self.readout(encode(self.generator, waveforms))
        return read[..., :SHAPES], read[..., SHAPES:]

    @torch.no_grad()
    def correlation(self, clips: list[Clip]) -> float:
        """Of mouth_open as read out with the truth, over all frames."""
        read = torch.cat([self.hear(clip.waveform[None])[0][0, :, 0] for clip in clips])
        return correlation(read, torch.cat([clip.motion[:, FIRST] for clip in clips]))


def hearing_batches(step: int, rank: int, count: int) -> Iterator[dict[str, Tensor]]:
    """About 28 seconds of speech in clips of one length between 2.4 and 8 s; two new ones a step, the others again."""
    clips = functools.lru_cache(MEMORY)(make_clip)
    while True:
        random = np.random.default_rng(seed_of(1, step, rank))
        frames = int(random.integers(60, SECONDS * FPS + 1))
        parts = []
        for number in random.integers(0, MEMORY, max(4, 700 // frames)):
            clip = clips((2 * step + int(number)) * count + rank)
            start = int(random.integers(0, len(clip.motion) - frames + 1))
            span = slice(start, start + frames)
            sound = clip.waveform[start * SAMPLES_PER_FRAME : (start + frames) * SAMPLES_PER_FRAME]
            parts.append((sound, clip.motion[span, FIRST : FIRST + SHAPES], clip.sounds[span]))
        yield dict(zip(("waveform", "mouth", "sounds"), map(torch.stack, zip(*parts))))
        step += 1


class Flow:
    """Second stage: projections and transformer by flow matching, on features of the audio encoder as it is."""

    def __init__(self, generator: Generator, rate: float = 1e-3):
        self.generator, self.rate = generator, rate
        parts = ("audio_projection", "pose_projection", "cam_projection", "gaze_projection", "flow")
        self.parts = {name: getattr(generator, name) for name in parts}
        self.weights = torch.ones(MOTION_SIZE)
        self.weights[FIRST:LAST] = 3
        self.weights[HEAD] = 3

    def modules(self) -> dict[str, nn.Module]:
        return self.parts

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"flow": Muon(nn.ModuleDict(self.parts), self.rate)}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        context = self.generator.config.context
        true, reference = batch["motion"], batch["reference"].clone()
        count = len(true)

        def kept(share: float) -> Tensor:
            return (torch.rand(count, 1, 1) < share).float()

        # guidance takes away the speech of the window but not that of the context
        speech = self.parts["audio_projection"](batch["audio"])
        speech = torch.cat([speech[:, :context], speech[:, context:] * kept(0.9)], dim=1)
        condition = speech
        for name, channels in STEERED.items():
            given = kept(0.5)
            condition = condition + self.parts[f"{name}_projection"](batch[name]) * given
            # half of what is asked for is asked of a source that is not so by itself
            asked = (given * kept(0.5))[:, 0]
            reference[:, channels] = reference[:, channels].lerp(reference[:, channels].roll(1, 0), asked)
        remembered = (batch["context"][:, None, None] * (torch.rand(count, 1, 1) < 2 / 3)).float()
        condition = torch.cat([condition[:, :context] * remembered, condition[:, context:]], dim=1)

        time, noise = torch.rand(count), torch.randn_like(true[:, context:])
        target = true[:, context:] - noise
        noisy = noise + time[:, None, None] * target
        # what was sampled before is never quite the truth
        past = true[:, :context] + 0.02 * torch.randn_like(true[:, :context])
        x = torch.cat([past * remembered, noisy], dim=1)
        off = (self.parts["flow"](x, time, reference, condition) - target) * self.weights
        # what was there before is exact: an error of the first frame is a jump at the join
        joins = (off[:, 0] * remembered[:, 0]).abs().mean()
        yield "flow", {"velocity": size_of(off), "change": size_of(off.diff(dim=1)), "joins": JOINS * joins}


def size_of(error: Tensor) -> Tensor:
    """Mean of absolute errors (...,16), but of squared ones where a value is rare."""
    size = error.abs()
    size[..., RARE] = RARELY * error[..., RARE].square()
    return size.mean()


@torch.no_grad()
def standardise_controls(generator: Generator, clips: list[Clip], seed: int = 0) -> None:
    """Draws the projections of controls so that they see inputs of mean 0 and deviation 1: a camera scale is always
    near 8, and its changes would be lost."""
    random = torch.Generator().manual_seed(seed)
    for name in clips[0].controls:
        rows = torch.cat([clip.controls[name] for clip in clips])
        layer = getattr(generator, f"{name}_projection")[0]
        layer.weight.normal_(std=0.5, generator=random).div_(rows.std(dim=0))
        layer.bias.normal_(std=0.5, generator=random).sub_(layer.weight @ rows.mean(dim=0))


def flow_batches(generator: Generator, size: int = 32):
    """Batches of windows with their context; one new clip a step, every clip in many windows."""
    window, context = generator.config.window, generator.config.context

    @functools.lru_cache(MEMORY)
    @torch.no_grad()
    def clips(seed: int) -> dict[str, Tensor]:
        clip = make_clip(seed)
        return {"audio": encode(generator, clip.waveform[None])[0], "motion": clip.motion, **clip.controls}

    def batches(step: int, rank: int, count: int) -> Iterator[dict[str, Tensor]]:
        while True:
            random = np.random.default_rng(seed_of(2, step, rank))
            parts = []
            for number in random.integers(0, MEMORY, size):
                clip = clips(10**6 + (step + int(number)) * count + rank)
                frames = len(clip["motion"])
                first = random.random() < 0.25  # a clip begins without context
                start = 0 if first else int(random.integers(context, frames - window + 1))
                rows = (torch.arange(-context, window) + start).clamp(min=0)
                part = {name: values[rows] for name, values in clip.items()}
                # the pose that the head sways about, as a portrait's is
                part["reference"] = clip["motion"][random.integers(0, frames)].clone()
                part["reference"][HEAD] = clip["motion"][:, HEAD].mean(0)
                part["context"] = torch.tensor(not first)
                parts.append(part)
            yield {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
            step += 1

    return batches


def train(
    out: Path,
    minutes: float,
    hearing_minutes: float | None = None,
    config: GeneratorConfig = CONFIG,
    seed: int = 0,
    gate: float = GATE,
    start: Path | None = None,
) -> Path | None:
    """Both stages, `hearing_minutes` of the time for the first, None for half of it; goes on from what `out` holds.

    start: the file of an avatar's generator to go on from, which hears already. Returns the file of weights, or None
    where training was stopped before its end. InputError where the audio encoder stays below the gate.
    """
    facts = {"config": to_dict(config), "seed": seed, "start": str(start)}
    if start is not None:
        generator = load_generator(start).requires_grad_(True)
        if generator.config != config:
            raise InputError(f"{start} is a generator of another size than the avatar's: {generator.config}")
        return _second_stage(generator, out, minutes, facts)
    # evaluation mode: so small a model, on speech that never repeats, needs no dropout
    generator = new_generator(config, seed).eval()
    hearing_minutes = minutes / 2 if hearing_minutes is None else hearing_minutes
    hearing = _first_stage(generator, out / "hearing.ckpt", hearing_minutes, facts, gate)
    if hearing is None:
        return None
    with hearing.averaged():
        standardise_controls(generator, [make_clip(2 * 10**6 + number) for number in range(24)], seed)
        return _second_stage(generator, out, minutes - hearing_minutes, facts)


def _second_stage(generator: Generator, out: Path, minutes: float, facts: dict) -> Path | None:
    """The file of the trained generator; None where training was stopped."""
    generator.audio_encoder.requires_grad_(False)
    flow = Flow(generator)
    settings = Settings(minutes=minutes, averaged=tuple(flow.parts), seed=facts["seed"], **SCHEDULE)
    training = Training(flow, flow_batches(generator), out / "flow.ckpt", settings, facts=facts)
    if not training.run().finished:
        return None
    path = out / "generator.safetensors"
    with training.averaged():
        save_weights(generator, path, torch.float16)
    return path


def _first_stage(generator: Generator, file: Path, minutes: float, facts: dict, gate: float) -> Training | None:
    """The finished training of the audio encoder; None where it was stopped."""
    held_out = [make_clip(number, held_out=True) for number in range(12)]
    hearing, told = Hearing(generator), 0

    def tell(step: int, means: dict[str, float]) -> None:
        nonlocal told
        if step // 100 != told:
            told = step // 100
            log.info("step %d  mouth_open of unheard voices: correlation %.3f", step, hearing.correlation(held_out))

    settings = Settings(minutes=minutes, averaged=("audio_encoder", "readout"), seed=facts["seed"], **SCHEDULE)
    training = Training(hearing, hearing_batches, file, settings, facts=facts, watch=tell)
    if not training.run().finished:
        return None
    with training.averaged():
        reached = hearing.correlation(held_out)
    log.info("The audio encoder reads mouth_open of unheard voices at a correlation of %.3f.", reached)
    if not reached >= gate:
        raise InputError(f"The audio encoder reaches {reached:.2f} of the {gate} wanted: run again with more minutes.")
    return training


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and of the result")
    parser.add_argument("--minutes", type=float, default=45, help="of training, both stages together")
    parser.add_argument("--hearing-minutes", type=float, help="of these, for the audio encoder (half)")
    parser.add_argument("--start", type=Path, metavar="FILE", help="an avatar's generator.safetensors, to go on from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if not 0 < (options.hearing_minutes or options.minutes / 2) < options.minutes:
        parser.error("both stages need some of the minutes")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        path = train(options.out, options.minutes, options.hearing_minutes, seed=options.seed, start=options.start)
    except InputError as error:
        raise SystemExit(str(error)) from error
    if path is None:
        log.info("Stopped; the same command goes on.")
    else:
        log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
