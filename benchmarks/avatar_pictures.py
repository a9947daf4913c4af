"""Pictures of a trained avatar, to look at what the numbers of benchmarks/avatar.py do not say.

    python -m benchmarks.avatar_pictures FOLDER OUT

FOLDER holds renderer.safetensors and generator.safetensors. Writes OUT/avatar_people.webp, twelve held-out people, each
as drawn and three times while speaking sentences in held-out voices, and OUT/avatar.webp, the example's portrait beside
its video.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import imtalker
from imtalker.avatar.speech_clips import make_speech_clip
from imtalker.drawn import example
from imtalker.drawn.head import MOTION_SIZE
from imtalker.drawn.people import random_appearances
from imtalker.drawn.portraits import draw
from imtalker.media.audio import FPS, SAMPLE_RATE, Audio, read_audio
from imtalker.media.image import resize
from imtalker.models.generator import Generator
from imtalker.models.renderer import Renderer
from imtalker.motion.motion import Motion
from imtalker.weights.checkpoints import AVATAR

from .avatar import SPEECH_SEED

PEOPLE, ACROSS = 12, 3  # people in all, and in a row
SHOWN = (30, 75, 120)  # frames of a clip
SIDE = 256  # pixels of the moving picture's halves


def people(renderer: Renderer, generator: Generator, count: int = PEOPLE) -> Tensor:
    """The sheet (H,W,3): each person's portrait and frames side by side."""
    rows = []
    for person in range(count):
        size = renderer.config.input_size
        portrait = draw(random_appearances(1, person), torch.zeros(1, MOTION_SIZE), size).permute(0, 2, 3, 1)
        clip = make_speech_clip(SPEECH_SEED + 300 + person, held_out=True)
        frames = _video(renderer, generator, portrait, Audio(clip.waveform[None], SAMPLE_RATE), person, SHOWN)
        rows.append(torch.cat([resize(portrait, frames.shape[1]), frames]))
    sheet = torch.stack(rows).unflatten(0, (-1, ACROSS))  # (rows, across, pictures, S, S, 3)
    return sheet.permute(0, 3, 1, 2, 4, 5).flatten(2, 4).flatten(0, 1)


def example_video(renderer: Renderer, generator: Generator) -> Tensor:
    """Frames (T,SIDE,2*SIDE,3): the example's portrait, and its video."""
    portrait = example.portrait()
    frames = resize(_video(renderer, generator, portrait, read_audio(AVATAR / "speech.wav")), SIDE)
    return torch.cat([resize(portrait, SIDE).expand(len(frames), -1, -1, -1), frames], dim=2)


def _video(
    renderer: Renderer,
    generator: Generator,
    portrait: Tensor,
    speech: Audio,
    seed: int = 0,
    shown: tuple[int, ...] | None = None,
) -> Tensor:
    """The frames (T,S,S,3) of somebody who says the speech; shown: the numbers of those to render, None for all."""
    source = renderer.encode_source(portrait)
    motion = generator.sample(generator.encode_audio(speech.waveform, speech.sample_rate), source, cfg=1.0, seed=seed)
    latents = motion.latents if shown is None else motion.latents[list(shown)]
    return renderer.render(source, Motion(latents, motion.fps, motion.generation))


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().numpy())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.avatar_pictures", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with renderer.safetensors and generator.safetensors")
    parser.add_argument("out", type=Path, help="an existing folder")
    options = parser.parse_args(arguments)
    renderer = imtalker.load_renderer(options.folder / "renderer.safetensors")
    generator = imtalker.load_generator(options.folder / "generator.safetensors")
    _image(people(renderer, generator)).save(options.out / "avatar_people.webp", quality=80, method=6)
    first, *others = map(_image, example_video(renderer, generator))
    settings = {"duration": round(1000 / FPS), "loop": 0, "quality": 60, "method": 6}
    first.save(options.out / "avatar.webp", save_all=True, append_images=others, **settings)


if __name__ == "__main__":
    main()
