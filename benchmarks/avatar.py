"""What a trained avatar is worth, on people, motions and speech that its training never saw.

    python -m benchmarks.avatar FOLDER [--json FILE]

FOLDER holds renderer.safetensors and generator.safetensors; with one of them, only that is measured. Prints each number
beside its target; the exit status is 1 where one is missed.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import imtalker
from imtalker.avatar.batches import HEAD, random_motion
from imtalker.avatar.generator import SECONDS, Clip, make_clip
from imtalker.avatar.measure import bare_source, measure_control, measure_mouth
from imtalker.avatar.readback import correlation, find_head, read
from imtalker.avatar.tasks import psnr
from imtalker.avatar.visemes import CHANNEL
from imtalker.drawn.people import Look, looks
from imtalker.drawn.portraits import MOTION, MOTION_SIZE, draw, draw_with_layers, numbers
from imtalker.media.audio import FPS, SAMPLE_RATE
from imtalker.models.generator import Generator
from imtalker.models.renderer import Renderer
from imtalker.motion.control import Control
from imtalker.motion.motion import Motion

from .joins import joins

READ = ("yaw", "pitch", "roll", "gaze_x", "gaze_y", "mouth_open")
SPEECH_SEED = 5000


@dataclass(frozen=True)
class Number:
    name: str
    value: float
    target: str  # "at least 27", "at most 0.1", or "" where it is only told

    @property
    def missed(self) -> bool:
        how, _, limit = self.target.rpartition(" ")
        if not how:
            return False
        return not (self.value >= float(limit) if how == "at least" else self.value <= float(limit))


def measure_renderer(renderer: Renderer, people: int = 12, frames: int = 16) -> list[Number]:
    """Reenactment of held-out people by drawn frames of their own, and by frames of others with the same motion."""
    size = renderer.config.output_size
    random = torch.Generator().manual_seed(11)
    own, cross, other, colours = [], [], [], []
    readings = {name: [] for name in READ}
    for person in range(people):
        look, driver = looks(1, seed=person), looks(1, seed=100 + person)
        source = _source(renderer, look)
        motion = random_motion(frames, random)
        truth = draw(look.repeat_interleave(frames), motion, size)
        driven = _rendered(renderer, source, truth)
        own.append(psnr(driven, truth))
        other.append(psnr(driven.roll(1, 0), truth))
        borrowed = _rendered(renderer, source, draw(driver.repeat_interleave(frames), motion, size))
        cross.append(psnr(borrowed, truth))
        for name, r in followed(borrowed, look.repeat_interleave(frames), motion).items():
            readings[name].append(r)
        colours.append(_colour_error(borrowed, look.repeat_interleave(frames), motion))
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return [
        Number("self-reenactment, PSNR in dB", mean(own), "at least 27"),
        Number("the same less PSNR with other drivers, dB", mean(own) - mean(other), "at least 3"),
        Number("cross-reenactment, PSNR in dB", mean(cross), ""),
        *(Number(f"cross-reenactment, {name} read back, r", mean(readings[name]), "at least 0.9") for name in READ),
        Number("identity's colours, relative error", mean(colours), "at most 0.1"),
    ]


def followed(pictures: Tensor, look: Look, motion: Tensor) -> dict[str, float]:
    """How far pictures (B,3,S,S) of the people of `look` show a motion (B,16): correlations, by the names of READ.

    Angles are those of the head that is found in the picture; eyes and mouth are read where the motion has them, the
    gaze of open eyes alone.
    """
    head = find_head(pictures, look)
    found = read(pictures, look, motion) | {name: head[:, MOTION.index(name)] for name in ("yaw", "pitch", "roll")}
    opened = motion[:, MOTION.index("blink")] < 0.5
    seen = {name: opened if name.startswith("gaze") else torch.ones_like(opened) for name in READ}
    return {name: correlation(found[name][seen[name]], motion[seen[name], MOTION.index(name)]) for name in READ}


def measure_speech(generator: Generator, cfg: float, clips: int = 8, minutes: float = 10) -> list[Number]:
    held_out = [make_clip(SPEECH_SEED + number, held_out=True) for number in range(clips)]
    mouth, control = measure_mouth(generator, held_out, cfg), measure_control(generator, held_out, cfg)
    long = long_clip(minutes)
    speech = generator.encode_audio(long.waveform[None], SAMPLE_RATE)
    asked = Control(long.controls["pose"], gaze=long.controls["gaze"], fps=float(FPS))
    free, steered = (generator.sample(speech, bare_source(), each, cfg).latents for each in (None, asked))
    known = [MOTION.index(name) for name in READ]
    return [
        Number("mouth follows the phonemes, r at lag 0", mouth["mouth_open"], "at least 0.7"),
        Number("best lag, frames", abs(mouth["lag"]), "at most 1"),
        Number("mouth against other speech, |r|", abs(mouth["other_speech"]), "at most 0.1"),
        Number("mouth_open in silence, 95 %", mouth["open_in_silence_95"], "at most 0.1"),
        *(Number(f"{name} control, r", control[name], "at least 0.9") for name in ("yaw", "gaze_x", "gaze_y")),
        *(Number(f"{name} control, r", control[name], "") for name in ("x", "y", "scale")),
        Number(
            f"drift of angles, gaze and mouth over {minutes:g} minutes, in deviations",
            drift((steered - long.motion)[:, known], long.motion[:, known].std(0)),
            "at most 0.5",
        ),
        Number("wandering of all values where nothing is asked", drift(free[:, : len(MOTION)]), ""),
        Number("blinks a minute, of the drawn", blinks(free) / blinks(long.motion), "at least 0.5"),
        Number(
            "head's step where windows meet, of one inside", joins(free[:, HEAD], generator.config.window)["ratio"], ""
        ),
    ]


def blinks(motion: Tensor) -> float:
    """How often eyes close in a motion (T,16), a minute."""
    closed = motion[:, MOTION.index("blink")] > 0.5
    return float((closed[1:] & ~closed[:-1]).sum()) / (len(motion) / FPS / 60)


def drift(values: Tensor, deviation: Tensor | None = None) -> float:
    """How far a value's mean over the last tenth of a clip is from that over the first, at most of all values; in their
    deviations, or given ones."""
    tenth = len(values) // 10
    deviation = values.std(0) if deviation is None else deviation
    change = values[-tenth:].mean(0) - values[:tenth].mean(0)
    return float((change.abs() / deviation.clamp_min(0.05)).max())


def measure_both(renderer: Renderer, generator: Generator, cfg: float, clips: int = 4) -> list[Number]:
    """The way of `talk`: speech in, pictures out, and the mouth read back from them."""
    found = []
    for number in range(clips):
        clip, look = make_clip(SPEECH_SEED + 100 + number, held_out=True), looks(1, seed=200 + number)
        source = _source(renderer, look)
        motion = generator.sample(
            generator.encode_audio(clip.waveform[None], SAMPLE_RATE), source, cfg=cfg, seed=number
        )
        shown = Motion(motion.latents[:100], float(FPS), motion.generation)
        frames = renderer.render(source, shown).permute(0, 3, 1, 2)
        opened = read(frames, look.repeat_interleave(len(frames)), shown.latents)["mouth_open"]
        found.append(correlation(opened, clip.motion[: len(frames), CHANNEL["mouth_open"]]))
    return [Number("speech to pictures, mouth read back, r", sum(found) / clips, "at least 0.7")]


def long_clip(minutes: float) -> Clip:
    """Held-out clips one after another, each with a motion of its own."""
    count = max(1, round(60 * minutes / SECONDS))
    clips = [make_clip(SPEECH_SEED + 200 + number, held_out=True) for number in range(count)]
    waveform, motion, sounds = (torch.cat([getattr(c, f) for c in clips]) for f in ("waveform", "motion", "sounds"))
    controls = {name: torch.cat([clip.controls[name] for clip in clips]) for name in clips[0].controls}
    return Clip(waveform, motion, sounds, controls)


def _source(renderer: Renderer, look: Look):
    return renderer.encode_source(_seen(draw(look, torch.zeros(1, MOTION_SIZE), renderer.config.input_size)))


def _rendered(renderer: Renderer, source, driving: Tensor) -> Tensor:
    return renderer.render(source, renderer.encode_motion(_seen(driving))).permute(0, 3, 1, 2)


def _seen(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 2, 3, 1).clamp(0, 1)


def _colour_error(frames: Tensor, look: Look, motion: Tensor) -> float:
    """Mean colours of what is not eyes or mouth, layer by layer, against the drawing's: relative, of 0..1."""
    truth, seen = draw_with_layers(look, motion, frames.shape[-1])
    errors = []
    for layer in range(int(seen.max()) + 1):
        where = (seen == layer)[:, None]
        if layer in numbers("eye", "mouth") or where.sum() < 200:
            continue
        means = [(x * where).sum((0, 2, 3)) / where.sum() for x in (frames, truth)]
        errors.append(float(((means[0] - means[1]).abs() / means[1].clamp_min(0.1)).mean()))
    return sum(errors) / len(errors)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.avatar", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cfg", type=float, default=1.0, help="weight of the speech (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="of the clip that drift is looked for in")
    parser.add_argument("--json", type=Path, metavar="FILE")
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
