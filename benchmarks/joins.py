"""How smoothly motion crosses from one window of 50 frames to the next, and whether it repeats.

    python -m benchmarks.joins [--avatar [--audio FILE ...] [--seeds 8]]

Three ways: smooth (the default), published (each window as it is sampled) and one noise (published, with the same noise
in every window). Without --weights or --avatar it uses full-size untrained weights. The avatar's values have names, so
with it each value's own step at joins is given, over the mean step inside; and what smooth joins do to the lips:
how far they are moved, in standard deviations, and their correlation with those of the published way.
"""

from pathlib import Path

import torch
from torch import Tensor

from imtalker import load_generator
from imtalker.avatar.readback import correlation
from imtalker.drawn import example as drawn
from imtalker.drawn.head import MOTION
from imtalker.media.audio import Audio, read_audio
from imtalker.motion.inertia import FRAMES
from imtalker.sampling import draw_noise
from imtalker.weights.checkpoints import AVATAR, find_weights

from . import measure, models

WAYS = ("smooth", "published", "one noise")
NAMED = ("yaw", "pitch", "roll", "x", "y", "scale", "mouth_open")


class MotionSource:
    """A source with nothing but its motion, which is all that the generator reads."""

    def __init__(self, generator, neutral: bool = False):
        size = generator.config.motion_size
        motion = torch.randn(1, size, generator=torch.Generator("cpu").manual_seed(4))
        self.motion = torch.zeros_like(motion) if neutral else motion
        self.generation = generator.generation


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=150, help="length of the speech (%(default)g)")
    parser.add_argument("--seeds", type=int, default=2, help="seeds to average over (%(default)s)")
    parser.add_argument("--weights", type=Path, help="your generator instead of untrained weights")
    parser.add_argument("--avatar", action="store_true", help="the avatar, with its sentence repeated")
    parser.add_argument("--audio", nargs="+", default=[], help="speech of your own for the avatar")
    options = measure.parse(parser, arguments)
    if options.avatar:
        generators = [load_generator(find_weights(AVATAR, "generator"), device=options.device)]
    elif options.weights:
        generators = [load_generator(options.weights, device=options.device)]
    else:
        generators = [models.generator(name, options.small).to(options.device) for name in ("v1", "v2")]
    table = []
    for generator in generators:
        speech = sentences(options.seconds) if options.avatar else drawn.speech(options.seconds)
        sounds = {Path(path).name: read_audio(path) for path in options.audio} or {"speech": speech}
        sounds["silence"] = Audio(torch.zeros_like(speech.waveform), speech.sample_rate)
        for what, sound in sounds.items():
            features = generator.encode_audio(sound.waveform, sound.sample_rate)
            for way in WAYS:
                rows = [measure_joins(generator, features, way, seed, options.avatar) for seed in range(options.seeds)]
                mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
                table.append({"generation": generator.generation, "sound": what, "joins": way} | mean)
    return measure.report(options, "joins", table)


def sentences(seconds: float) -> Audio:
    """The avatar's sentence, repeated to the length."""
    once = read_audio(AVATAR / "speech.wav")
    count = round(seconds * once.sample_rate)
    return Audio(once.waveform.repeat(1, -(-count // once.waveform.shape[1]))[:, :count], once.sample_rate)


def measure_joins(generator, features, way: str, seed: int, avatar: bool = False) -> dict[str, float]:
    """The columns of one row; way: one of WAYS."""
    window = generator.config.window
    count = -(-len(features) // window)
    fresh = draw_noise(count, window, generator.config.motion_size, seed)
    noise, joining = (fresh[0], "published") if way == "one noise" else (fresh, way)
    settings = {"noise": noise, "cfg": 1.0 if avatar else None}  # the avatar was made for no guidance
    source = MotionSource(generator, avatar)
    motion = generator.sample(features, source, joins=joining, **settings).latents
    found = joins(motion, window) | {"repeats": repetition(motion, window), "drift": drift(motion)}
    if avatar:
        found |= {name: joins(motion[:, [MOTION.index(name)]], window)["ratio"] for name in NAMED}
        published = generator.sample(features, source, joins="published", **settings).latents
        mouth = MOTION.index("mouth_open")
        moved = motion[:, mouth] - published[:, mouth]
        found["mouth_moved"] = (moved[FRAMES:].square().mean().sqrt() / published[:, mouth].std()).item()
        found["mouth_as_published"] = correlation(motion[:, mouth], published[:, mouth])
    return found


def joins(motion: Tensor, window: int) -> dict[str, float]:
    """Mean |m[t+1] - m[t]| over a latent's values: across window joins, and inside windows.

    "within" is the share of joins that step no further than 95 % of the steps inside windows.
    """
    speed = motion.diff(dim=0).abs().mean(dim=1)
    at_joins = torch.arange(len(speed)) % window == window - 1
    inside = speed[~at_joins]
    return {
        "inside": inside.mean().item(),
        "at_joins": speed[at_joins].mean().item(),
        "ratio": (speed[at_joins].mean() / inside.mean()).item(),
        "within": (speed[at_joins] <= inside.quantile(0.95)).float().mean().item(),
    }


def repetition(motion: Tensor, window: int) -> float:
    """Correlation of the centred motion with itself one window later: 1 if it repeats, 0 if not."""
    moving = motion - motion.mean(dim=0)
    return (moving[window:] * moving[:-window]).mean().div(moving.square().mean()).item()


def drift(values: Tensor, deviation: Tensor | None = None) -> float:
    """The largest change of a value's mean from the first to the last tenth of a clip (T,C), in standard deviations.

    deviation: (C,) to measure in instead of the values' own.
    """
    tenth = len(values) // 10
    deviation = values.std(0) if deviation is None else deviation
    change = values[-tenth:].mean(0) - values[:tenth].mean(0)
    return float((change.abs() / deviation.clamp_min(0.05)).max())


if __name__ == "__main__":
    measure.run(main)
