"""What minutes of fine-tuning on one new face are worth: the avatar, and a drawn person it never saw.

    python -m benchmarks.finetune [--minutes 5] [--person 300]

Draws a clip of the person, then runs `python -m imtalker prepare` and `train renderer --from` as docs/training.md has
them. Prints PSNR before and after, on the clip's last tenth, which is never trained on.
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
from imtalker.drawn.people import looks
from imtalker.drawn.portraits import draw
from imtalker.media.audio import FPS
from imtalker.media.video import write_video
from imtalker.weights.checkpoints import AVATAR

EVERY = 10  # frames from one random motion to the next
SIZE = 256


def clip(person: int, seconds: float) -> Tensor:
    """(T,SIZE,SIZE,3), RGB in 0..1: the person moves from one random motion to the next."""
    count = round(seconds * FPS)
    places = random_motion(count // EVERY + 2, torch.Generator().manual_seed(person))
    motion = F.interpolate(places.T[None], size=EVERY * len(places), mode="linear", align_corners=True)[0].T[:count]
    look = looks(1, person)
    parts = [draw(look.repeat_interleave(len(part)), part, SIZE) for part in motion.split(16)]
    return torch.cat(parts).permute(0, 2, 3, 1)


def imtalker(*arguments: object) -> str:
    """What the command says, on standard output and in its log."""
    command = [sys.executable, "-m", "imtalker", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    return done.stdout


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """PSNR in dB on frames that are not trained on, before and after."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seconds", type=float, default=16, help="of the clip (%(default)s)")
    parser.add_argument("--person", type=int, default=300, help="seed of who it is (%(default)s)")
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
        how = ("--minutes", options.minutes, "--batch-size", options.batch_size, "--lr", options.lr, "--device", "cpu")
        said = imtalker("train", "renderer", data, *start, *how)
    before, after = (float(found) for found in re.findall(r"PSNR ([\d.]+) dB", said))
    print(f"PSNR {before:.2f} dB before, {after:.2f} dB after {options.minutes:g} minutes, on frames not trained on")
    return before, after


if __name__ == "__main__":
    main()
