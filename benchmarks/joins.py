"""How motion goes on where windows of 50 frames meet, and whether it repeats: python -m benchmarks.joins

On made-up weights of full size unless --weights or --avatar: they are as large and as deep as trained ones, but not
trained. With --avatar, steps are also told of its head alone, whose values have names.
"""

from pathlib import Path

import torch
from torch import Tensor

from imtalker import load_generator
from imtalker.drawn import example as drawn
from imtalker.drawn.portraits import MOTION
from imtalker.media.audio import Audio, read_audio
from imtalker.sampling import draw_noise
from imtalker.weights.checkpoints import AVATAR, find_weights

from . import measure, models


class Still:
    """A source of which the generator reads the motion alone."""

    def __init__(self, generator, neutral: bool = False):
        size = generator.config.motion_size
        motion = torch.randn(1, size, generator=torch.Generator("cpu").manual_seed(4))
        self.motion = torch.zeros_like(motion) if neutral else motion
        self.generation = generator.generation


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="a generator of yours instead of made-up weights")
    parser.add_argument("--avatar", action="store_true", help="the avatar and its own sentence, over and over")
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
                rows = [look(generator, features, noise, seed, options.avatar) for seed in range(options.seeds)]
                mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
                table.append({"generation": generator.generation, "sound": what, "noise": noise} | mean)
    return measure.report(options, "joins", table)


def sentences(seconds: float) -> Audio:
    once = read_audio(AVATAR / "speech.wav")
    count = round(seconds * once.sample_rate)
    return Audio(once.waveform.repeat(1, -(-count // once.waveform.shape[1]))[:, :count], once.sample_rate)


def look(generator, features, noise: str, seed: int, avatar: bool = False) -> dict[str, float]:
    window = generator.config.window
    count = -(-len(features) // window)
    fresh = draw_noise(count, window, generator.config.motion_size, seed)
    noise = fresh if noise == "fresh" else fresh[0]
    motion = generator.sample(features, Still(generator, avatar), noise=noise).latents
    found = joins(motion, window) | {"repeats": repetition(motion, window), "wandering": wandering(motion, window)}
    if avatar:
        found["head_ratio"] = joins(motion[:, : MOTION.index("gaze_x")], window)["ratio"]
    return found


def joins(motion: Tensor, window: int) -> dict[str, float]:
    """Mean |m[t+1] - m[t]| over a latent's values: from one window into the next, and inside windows."""
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
    """Correlation of the motion, centred, with itself one window later: 1 repeats, 0 does not."""
    moving = motion - motion.mean(dim=0)
    return (moving[window:] * moving[:-window]).mean().div(moving.square().mean()).item()


def wandering(motion: Tensor, window: int) -> float:
    """How far the mean of the last third lies from that of the first, in deviations of windows' means."""
    means = motion[: len(motion) // window * window].reshape(-1, window, motion.shape[1]).mean(dim=1)
    third = max(1, len(means) // 3)
    deviation = means.std(dim=0, correction=0).mean().clamp(min=1e-9)
    return ((means[-third:].mean(dim=0) - means[:third].mean(dim=0)).abs().mean() / deviation).item()


if __name__ == "__main__":
    measure.run(main)
