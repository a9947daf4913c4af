"""Measures a trained avatar on people, motions and speech that are held out from training.

    python -m benchmarks.avatar FOLDER [--json FILE]

FOLDER holds renderer.safetensors, generator.safetensors or both. Prints each number beside its target; the exit status
is 1 if a target is missed.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import imtalker
from imtalker.avatar.batches import HEAD_CHANNELS, random_motion
from imtalker.avatar.measure import bare_source, measure_control, measure_mouth
from imtalker.avatar.readback import correlation, find_head, read
from imtalker.avatar.speech_clips import SECONDS, SpeechClip, make_speech_clip
from imtalker.avatar.visemes import CHANNEL
from imtalker.drawn.head import MOTION, MOTION_SIZE
from imtalker.drawn.people import Appearance, random_appearances
from imtalker.drawn.portraits import draw, draw_with_layers, part_layers
from imtalker.media.audio import FPS, SAMPLE_RATE
from imtalker.models.generator import Generator
from imtalker.models.renderer import Renderer, Source
from imtalker.motion.control import Control
from imtalker.motion.motion import Motion
from imtalker.train.losses import psnr

from .joins import drift, joins

READ = ("yaw", "pitch", "roll", "gaze_x", "gaze_y", "mouth_open")
STEERED = ("yaw", "gaze_x", "gaze_y", "x", "y", "scale")
SPEECH_SEED = 5000


@dataclass(frozen=True)
class Number:
    """A measured value and its target."""

    name: str
    value: float
    target: str  # "at least 27", "at most 0.1", or "" without a target

    @property
    def missed(self) -> bool:
        bound, _, limit = self.target.rpartition(" ")
        if not bound:
            return False
        return not (self.value >= float(limit) if bound == "at least" else self.value <= float(limit))


def measure_renderer(renderer: Renderer, people: int = 12, frames: int = 16) -> list[Number]:
    """Reenacts held-out people from drawn frames of themselves, and of other people with the same motion."""
    size = renderer.config.output_size
    random = torch.Generator().manual_seed(11)
    own, cross, other, colours = [], [], [], []
    readings = {name: [] for name in READ}
    for person in range(people):
        appearance, driver = (random_appearances(1, seed) for seed in (person, 100 + person))
        repeated = appearance.repeat_interleave(frames)
        source = _source(renderer, appearance)
        motion = random_motion(frames, random)
        truth = draw(repeated, motion, size)
        driven = _rendered(renderer, source, truth)
        own.append(psnr(driven, truth))
        other.append(psnr(driven.roll(1, 0), truth))
        borrowed = _rendered(renderer, source, draw(driver.repeat_interleave(frames), motion, size))
        cross.append(psnr(borrowed, truth))
        for name, r in motion_correlations(borrowed, repeated, motion).items():
            readings[name].append(r)
        colours.append(_colour_error(borrowed, repeated, motion))
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return [
        Number("self-reenactment, PSNR in dB", mean(own), "at least 27"),
        Number("lead over other drivers, dB", mean(own) - mean(other), "at least 3"),
        Number("cross-reenactment, PSNR in dB", mean(cross), ""),
        *(Number(f"cross-reenactment, {name} read back, r", mean(readings[name]), "at least 0.9") for name in READ),
        Number("identity colours, relative error", mean(colours), "at most 0.1"),
    ]


def motion_correlations(images: Tensor, appearance: Appearance, motion: Tensor) -> dict[str, float]:
    """Correlations of the motion read off images (B,3,S,S) of known people with the true motion (B,16), by READ.

    Angles are those of the head found in the image; eyes and mouth are read where the true motion places them, the gaze
    only of open eyes.
    """
    head = find_head(images, appearance)
    found = read(images, appearance, motion) | {name: head[:, MOTION.index(name)] for name in ("yaw", "pitch", "roll")}
    opened = motion[:, MOTION.index("blink")] < 0.5
    kept = {name: opened if name.startswith("gaze") else torch.ones_like(opened) for name in READ}
    return {name: correlation(found[name][kept[name]], motion[kept[name], MOTION.index(name)]) for name in READ}


def measure_speech(generator: Generator, cfg: float, minutes: float = 10) -> list[Number]:
    """Mouth and controls on held-out clips of speech, and the motion of one long clip of `minutes`."""
    held_out = [make_speech_clip(SPEECH_SEED + number, held_out=True) for number in range(8)]
    mouth, control = measure_mouth(generator, held_out, cfg), measure_control(generator, held_out, cfg)
    long = long_clip(minutes)
    speech = generator.encode_audio(long.waveform[None], SAMPLE_RATE)
    steering = Control(long.controls["pose"], gaze=long.controls["gaze"], fps=float(FPS))
    free, steered = (generator.sample(speech, bare_source(), each, cfg).latents for each in (None, steering))
    known = [MOTION.index(name) for name in READ]
    return [
        Number("mouth and phonemes, r at lag 0", mouth["mouth_open"], "at least 0.7"),
        Number("best lag, frames", abs(mouth["lag"]), "at most 1"),
        Number("mouth and other speech, |r|", abs(mouth["other_speech"]), "at most 0.1"),
        Number("mouth_open in silence, 95 %", mouth["open_in_silence_95"], "at most 0.1"),
        *(Number(f"{name} control, r", control[name], "at least 0.9") for name in STEERED),
        Number(
            f"drift under controls over {minutes:g} minutes, in deviations",
            drift((steered - long.motion)[:, known], long.motion[:, known].std(0)),
            "at most 0.5",
        ),
        Number("drift of all values without controls, in deviations", drift(free[:, : len(MOTION)]), ""),
        Number("free gaze, deviation relative to the truth", _spread(free) / _spread(long.motion), "at least 0.8"),
        Number("blinks a minute, relative to the truth", blinks(free) / blinks(long.motion), "at least 0.5"),
        Number(
            "head step where windows meet, relative to inside",
            joins(free[:, HEAD_CHANNELS], generator.config.window)["ratio"],
            "at most 1.2",
        ),
    ]


def blinks(motion: Tensor) -> float:
    """How often the eyes close in a motion (T,16), per minute."""
    closed = motion[:, MOTION.index("blink")] > 0.5
    return float((closed[1:] & ~closed[:-1]).sum()) / (len(motion) / FPS / 60)


def _spread(motion: Tensor) -> float:
    """The standard deviation of the gaze in a motion (T,16)."""
    return float(motion[:, [CHANNEL["gaze_x"], CHANNEL["gaze_y"]]].std(0).square().mean().sqrt())


def measure_both(renderer: Renderer, generator: Generator, cfg: float) -> list[Number]:
    """From speech to frames as in `talk`, and the mouth read back from the frames."""
    correlations = []
    for number in range(4):
        clip = make_speech_clip(SPEECH_SEED + 100 + number, held_out=True)
        appearance = random_appearances(1, seed=200 + number)
        source = _source(renderer, appearance)
        motion = generator.sample(
            generator.encode_audio(clip.waveform[None], SAMPLE_RATE), source, cfg=cfg, seed=number
        )
        shown = Motion(motion.latents[:100], float(FPS), motion.generation)
        frames = renderer.render(source, shown).permute(0, 3, 1, 2)
        opened = read(frames, appearance.repeat_interleave(len(frames)), shown.latents)["mouth_open"]
        correlations.append(correlation(opened, clip.motion[: len(frames), CHANNEL["mouth_open"]]))
    return [Number("speech to frames, mouth read back, r", sum(correlations) / len(correlations), "at least 0.7")]


def long_clip(minutes: float) -> SpeechClip:
    """Held-out clips joined to one, each with its own motion."""
    count = max(1, round(60 * minutes / SECONDS))
    clips = [make_speech_clip(SPEECH_SEED + 200 + number, held_out=True) for number in range(count)]
    waveform, motion, labels = (torch.cat([getattr(c, f) for c in clips]) for f in ("waveform", "motion", "labels"))
    controls = {name: torch.cat([clip.controls[name] for clip in clips]) for name in clips[0].controls}
    return SpeechClip(waveform, motion, labels, controls)


def _source(renderer: Renderer, appearance: Appearance) -> Source:
    return renderer.encode_source(
        _channels_last(draw(appearance, torch.zeros(1, MOTION_SIZE), renderer.config.input_size))
    )


def _rendered(renderer: Renderer, source: Source, driving: Tensor) -> Tensor:
    return renderer.render(source, renderer.encode_motion(_channels_last(driving))).permute(0, 3, 1, 2)


def _channels_last(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).clamp(0, 1)


def _colour_error(frames: Tensor, appearance: Appearance, motion: Tensor) -> float:
    """Relative error of each layer's mean colour against the drawing, without eyes and mouth; mean over layers."""
    truth, layers = draw_with_layers(appearance, motion, frames.shape[-1])
    errors = []
    for layer in range(int(layers.max()) + 1):
        where = (layers == layer)[:, None]
        if layer in part_layers("eye", "mouth") or where.sum() < 200:
            continue
        means = [(x * where).sum((0, 2, 3)) / where.sum() for x in (frames, truth)]
        errors.append(float(((means[0] - means[1]).abs() / means[1].clamp_min(0.1)).mean()))
    return sum(errors) / len(errors)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.avatar", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with renderer.safetensors, generator.safetensors or both")
    parser.add_argument("--cfg", type=float, default=1.0, help="guidance weight of the speech (%(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=10, help="length of the clip that drift is measured on (%(default)g)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file")
    options = parser.parse_args(arguments)
    files = {kind: options.folder / f"{kind}.safetensors" for kind in ("renderer", "generator")}
    found = []
    if files["renderer"].exists():
        renderer = imtalker.load_renderer(files["renderer"])
        found += measure_renderer(renderer)
    if files["generator"].exists():
        generator = imtalker.load_generator(files["generator"])
        found += measure_speech(generator, options.cfg, minutes=options.minutes)
    if all(file.exists() for file in files.values()):
        found += measure_both(renderer, generator, options.cfg)
        size = sum(file.stat().st_size for file in files.values()) / 1e6
        found.append(Number("both files, MB", size, "at most 12"))
    if not found:
        parser.error(f"{options.folder} holds neither renderer.safetensors nor generator.safetensors")
    for number in found:
        print(f"{number.name:56} {number.value:8.3f}  {number.target:14} {'MISSED' if number.missed else ''}")
    if options.json:
        options.json.write_text(json.dumps({number.name: number.value for number in found}, indent=1))
    return int(any(number.missed for number in found))


if __name__ == "__main__":
    raise SystemExit(main())
