"""How smoothly motion crosses from one window of 50 frames to the next, and whether it repeats.

    python -m benchmarks.joins [--avatar]

Without --weights or --avatar it uses full-size untrained weights. With --avatar the steps of the head alone are
measured too, since the avatar's values have names.
"""

from pathlib import Path

import torch
from torch import Tensor

from imtalker import load_generator
from imtalker.drawn import example as drawn
from imtalker.drawn.head import MOTION
from imtalker.media.audio import Audio, read_audio
from imtalker.sampling import draw_noise
from imtalker.weights.checkpoints import AVATAR, find_weights

from . import measure, models


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
        for what, waveform in (("speech", speech.waveform), ("silence", torch.zeros_like(speech.waveform))):
            features = generator.encode_audio(waveform, speech.sample_rate)
            for noise in ("fresh", "the same"):
                rows = [
                    measure_joins(generator, features, noise, seed, options.avatar) for seed in range(options.seeds)
                ]
                mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
                table.append({"generation": generator.generation, "sound": what, "noise": noise} | mean)
    return measure.report(options, "joins", table)


def sentences(seconds: float) -> Audio:
    """The avatar's sentence, repeated to the length."""
    once = read_audio(AVATAR / "speech.wav")
    count = round(seconds * once.sample_rate)
    return Audio(once.waveform.repeat(1, -(-count // once.waveform.shape[1]))[:, :count], once.sample_rate)


def measure_joins(generator, features, noise: str, seed: int, avatar: bool = False) -> dict[str, float]:
    """The columns of one row; noise: "fresh" in every window, or "the same"."""
    window = generator.config.window
    count = -(-len(features) // window)
    fresh = draw_noise(count, window, generator.config.motion_size, seed)
    drawn_noise = fresh if noise == "fresh" else fresh[0]
    motion = generator.sample(features, MotionSource(generator, avatar), noise=drawn_noise).latents
    found = joins(motion, window) | {"repeats": repetition(motion, window), "drift": drift(motion)}
    if avatar:
        found["head_ratio"] = joins(motion[:, : MOTION.index("gaze_x")], window)["ratio"]
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
