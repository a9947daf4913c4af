"""What a few minutes of fine-tuning on a new face gain: the avatar, on a drawn person it has never seen.

    python -m benchmarks.finetune [--minutes 5] [--person 300]

Draws a clip of the person, then runs `python -m imtalker prepare` and `train renderer --from` as in docs/training.md.
Prints PSNR before and after on the last tenth of the clip, which is held out from training.
"""

import argparse
import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from imtalker.avatar.batches import random_motion
from imtalker.drawn.people import random_appearances
from imtalker.drawn.portraits import draw
from imtalker.media.audio import FPS
from imtalker.media.video_writer import write_video
from imtalker.weights.checkpoints import AVATAR

EVERY = 10  # frames from one random motion to the next
SIZE = 256


def clip(person: int, seconds: float) -> Tensor:
    """(T,SIZE,SIZE,3), RGB in 0..1: the person moves from one random motion to the next."""
    count = round(seconds * FPS)
    keyframes = random_motion(count // EVERY + 2, torch.Generator().manual_seed(person))
    motion = F.interpolate(keyframes.T[None], size=EVERY * len(keyframes), mode="linear", align_corners=True)[0].T[
        :count
    ]
    appearance = random_appearances(1, person)
    parts = [draw(appearance.repeat_interleave(len(part)), part, SIZE) for part in motion.split(16)]
    return torch.cat(parts).permute(0, 2, 3, 1)


def imtalker(*arguments: object) -> str:
    """Runs a command and returns its output and log; exits with them if it fails."""
    command = [sys.executable, "-m", "imtalker", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    return done.stdout


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """PSNR in dB on held-out frames, before and after."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5, help="of fine-tuning (%(default)g)")
    parser.add_argument("--seconds", type=float, default=16, help="length of the clip (%(default)g)")
    parser.add_argument("--person", type=int, default=300, help="seed of the person (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        videos, data = Path(folder) / "videos", Path(folder) / "data"
        videos.mkdir()
        write_video(videos / "person.mp4", clip(options.person, options.seconds), FPS)
        imtalker("prepare", videos, data, "--models", AVATAR, "--crop", "none", "--device", "cpu")
        start = ("--from", AVATAR / "renderer.safetensors", "-o", Path(folder) / "person.safetensors")
        settings = (
            "--minutes",
            options.minutes,
            "--batch-size",
            options.batch_size,
            "--lr",
            options.lr,
            "--device",
            "cpu",
        )
        output = imtalker("train", "renderer", data, *start, *settings)
    before, after = (float(found) for found in re.findall(r"PSNR ([\d.]+) dB", output))
    print(f"PSNR {before:.2f} dB before, {after:.2f} dB after {options.minutes:g} minutes, on held-out frames")
    return before, after


if __name__ == "__main__":
    main()
