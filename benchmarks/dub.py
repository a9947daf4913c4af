"""How well a dubbed clip says the new words and stays as it was otherwise, and what it costs.

    python -m benchmarks.dub [--clips 2] [--seconds 3] [--ask]

dubs drawn clips of people and voices that the avatar was not trained with. For each: "asked", the correlation of the
mouth that the renderer's motion encoder reads off the result with what was asked of it, and "pictures", of the dark of
the mouth with that in a drawing of what was asked; "phonemes", with the mouth that truly belongs to the words, beside
"generator", what the generator itself reaches; "head", "eyes" and "brows", the correlation with the original of what
is read off both, for values that move; "outside", the largest difference where the mask is 0; "around", the PSNR in the
square but outside the mouth; "flicker", the change from frame to frame there, over that of the original; "silent", how
open silence leaves the mouth (0 shut, 1 wide open); "own", the PSNR of the clip when it is dubbed with its own speech.
--ask: with the rig that the generator gives, not the one that comes with the avatar.

    python -m benchmarks.dub --video CLIP.mp4 --sound SPEECH.wav [--seconds 1]

takes a clip of yours the whole way with full-size untrained weights. --stages: milliseconds a frame of every stage,
of a dubbed and of a reenacted frame.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from imtalker import load_generator, load_renderer
from imtalker.avatar.readback import correlation, read
from imtalker.avatar.speech_clips import SpeechClip, make_speech_clip
from imtalker.drawn.head import MOTION
from imtalker.drawn.people import Appearance, random_appearances
from imtalker.drawn.portraits import draw, draw_with_layers, part_mask
from imtalker.dubbing.dub import dub
from imtalker.dubbing.mouth import Manner, Mouth
from imtalker.dubbing.plan import Following, study
from imtalker.dubbing.redraw import Pasting, Redrawing, lower_face
from imtalker.face.crop import Crop, apply_crop, paste_back
from imtalker.media.audio import FPS, SAMPLE_RATE, Audio, AudioFile
from imtalker.media.video import VideoReader
from imtalker.media.video_writer import write_video
from imtalker.motion.motion import Motion
from imtalker.motion.rig import Rig
from imtalker.rigging import ask
from imtalker.train.losses import psnr
from imtalker.weights.checkpoints import AVATAR, find_weights

from . import measure, models

SIDE, MARGIN = 256, 96  # of the drawn square, and beside it, in pixels
CROP = Crop(MARGIN, 0, SIDE, SIDE, SIDE + 2 * MARGIN)
PERSON, VOICE = 700, 1000  # seeds of people, below those of training, and of speech of held-out voices
KEPT = {"head": ("yaw", "pitch", "roll"), "eyes": ("gaze_x", "gaze_y", "blink"), "brows": ("brows",)}
MOVES = 0.05  # least true deviation of a value that is correlated: the encoder's own noise is 0.01 to 0.02
MOUTH = [MOTION.index(name) for name in ("mouth_open", "mouth_width", "mouth_round", "smile")]
OPEN = MOUTH[0]
AROUND = 0.03  # of the square: the mouth's area is as much larger


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("--clips", type=int, default=2, help="drawn clips (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each clip (%(default)g)")
    parser.add_argument("--ask", action="store_true", help="ask the generator for the rig")
    parser.add_argument("--video", type=Path, help="a clip of your own, dubbed with untrained weights")
    parser.add_argument("--sound", type=Path, help="speech for it")
    parser.add_argument("--stages", action="store_true", help="what every stage costs")
    options = measure.parse(parser, arguments)
    frames = round(options.seconds * FPS)
    if options.stages:
        return measure.report(options, "dub by stage", stages(options))
    if options.video:
        return measure.report(options, "dub of a clip", [whole_way(options, frames)])
    renderer, generator = (
        load(find_weights(AVATAR, kind), device=options.device)
        for load, kind in ((load_renderer, "renderer"), (load_generator, "generator"))
    )
    rig = ask(generator) if options.ask else Rig.load(AVATAR / "rig.safetensors")
    table = [
        quality(renderer, generator, rig, number, frames)
        for number in range(options.first, options.first + options.clips)
    ]
    return measure.report(options, "dub", table)


def quality(renderer, generator, rig: Rig, number: int, frames: int) -> dict:
    """The columns for one drawn clip."""
    clip, words = (make_speech_clip(VOICE + 2 * number + other, held_out=True) for other in (0, 1))
    person, motion = random_appearances(1, PERSON + number), clip.motion[:frames]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_drawn(path, person, motion, sound_of(clip, frames))
        original = torch.stack(list(VideoReader(path))).float() / 255
        speech = sound_of(words, frames)
        dubbed, masks = run(renderer, generator, rig, path, speech)
        silent, _ = run(renderer, generator, rig, path, Audio(torch.zeros_like(speech.waveform), SAMPLE_RATE))
        own, _ = run(renderer, generator, rig, path, sound_of(clip, frames))
    asked = asked_of(renderer, generator, rig, original, speech)
    opened, drawn = mouth_in(dubbed, person, motion), mouth_in(drawing(person, motion, asked), person, motion)
    mouth = mouth_area(person, motion)
    around = ~mouth & in_square(mouth)
    read_before, read_after, read_silent = (
        renderer.encode_motion(squares(each, renderer)).latents for each in (original, dubbed, silent)
    )
    kept = {
        part: [
            correlation(read_after[:, number], read_before[:, number])
            for number in map(MOTION.index, names)
            if motion[:, number].std() > MOVES
        ]
        for part, names in KEPT.items()
    }
    true = words.motion[:frames, OPEN]
    difference = (dubbed - original).abs()
    steady = around[1:] & around[:-1]
    return {
        "clip": number,
        "frames": frames,
        "asked": correlation(read_after[:, OPEN], asked[:, OPEN]),
        "pictures": correlation(opened, drawn),
        "phonemes": correlation(read_after[:, OPEN], true),
        "generator": correlation(asked[:, OPEN], true),
        **{part: sum(found) / len(found) if found else None for part, found in kept.items()},
        "outside": difference[masks == 0].max().item(),
        "around": psnr(dubbed[around][None], original[around][None]),
        "flicker": (dubbed.diff(dim=0).abs()[steady].mean() / original.diff(dim=0).abs()[steady].mean()).item(),
        "silent": read_silent[:, OPEN].mean().item(),
        "own": psnr(own.flatten()[None], original.flatten()[None]),
    }


def write_drawn(path: Path, person: Appearance, motion: Tensor, sound: Audio) -> None:
    """A clip of a drawn person, in a frame that is wider than the square of its face."""
    pictures = draw(person.repeat_interleave(len(motion)), motion, SIDE)
    wide = F.pad(pictures, (MARGIN, MARGIN, 0, 0), mode="replicate")
    write_video(path, wide.movedim(1, -1), FPS, sound, crf=8)


def sound_of(clip: SpeechClip, frames: int) -> Audio:
    return Audio(clip.waveform[None, : frames * SAMPLE_RATE // FPS], SAMPLE_RATE)


def run(renderer, generator, rig: Rig, path: Path, speech: Audio) -> tuple[Tensor, Tensor]:
    """The frames (T,H,W,3) of the dubbed clip, and the masks (T,H,W) of what was pasted."""
    reader = VideoReader(path)
    plan = study(reader, float(reader.fps), Following(crop=CROP))
    mouth, redrawing = Mouth(generator, rig, Manner(cfg=1.0)), Redrawing(renderer, reader, plan, Pasting())
    wanted = mouth.wanted(redrawing.source(plan.first), speech, None, len(plan))
    blocks = redrawing.stream(mouth, wanted, torch.arange(len(plan)))
    frames, masks = zip(*((block.cpu(), mask.cpu()) for block, mask in blocks))
    return torch.cat(frames), torch.cat(masks)


def asked_of(renderer, generator, rig: Rig, original: Tensor, speech: Audio) -> Tensor:
    """The motion (T,16) that the renderer is asked for."""
    own = renderer.encode_motion(squares(original, renderer))
    person = renderer.encode_source(squares(original[:1], renderer))
    mouth = Mouth(generator, rig, Manner(cfg=1.0))
    wanted = torch.cat([block.latents for block in mouth.wanted(person, speech, None, len(original))])
    return mouth.change(own, wanted[: len(original)], torch.ones(len(original))).latents


def squares(frames: Tensor, renderer) -> Tensor:
    return apply_crop(frames, CROP, renderer.config.input_size)


def mouth_in(frames: Tensor, person: Appearance, motion: Tensor) -> Tensor:
    """How open the mouth is in the pictures, (T,)."""
    pictures = frames[:, :, MARGIN : MARGIN + SIDE].movedim(-1, 1)
    return read(pictures, person.repeat_interleave(len(frames)), motion)["mouth_open"]


def drawing(person: Appearance, motion: Tensor, asked: Tensor) -> Tensor:
    """The clip (T,H,W,3) drawn with the mouth that was asked for."""
    wanted = motion.clone()
    wanted[:, MOUTH] = asked[:, MOUTH]
    pictures = draw(person.repeat_interleave(len(motion)), wanted, SIDE)
    return F.pad(pictures, (MARGIN, MARGIN)).movedim(1, -1)


def mouth_area(person: Appearance, motion: Tensor) -> Tensor:
    """Where the mouth is when it is wide open, and a little around, (T,H,W)."""
    wide = motion.clone()
    wide[:, MOUTH[:2]] = 1
    layers = draw_with_layers(person.repeat_interleave(len(motion)), wide, SIDE)[1]
    reach = round(AROUND * SIDE)
    area = F.max_pool2d(part_mask(layers, "mouth").float()[:, None], 2 * reach + 1, 1, reach)[:, 0] > 0
    return F.pad(area, (MARGIN, MARGIN))


def in_square(area: Tensor) -> Tensor:
    inside = torch.zeros_like(area)
    inside[:, :, MARGIN : MARGIN + SIDE] = True
    return inside


def whole_way(options, frames: int) -> dict:
    """One row: a clip of any kind, from file to file."""
    renderer, generator = (make("v2", options.small).to(options.device) for make in (models.renderer, models.generator))
    started, peaks = time.perf_counter(), []
    clip = dub(renderer, generator, options.video, options.sound, rig="none", crop="none", frames=frames)
    prepared = time.perf_counter() - started

    def watched(blocks):
        for block in blocks:
            peaks.append(measure.peak_bytes(torch.device("cpu")))
            yield block

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.mp4"
        count = replace(clip, rendered=watched(clip.rendered)).save(path)
        done, sound = VideoReader(path), AudioFile(path)
        return {
            "frames": count,
            "shown": sum(1 for _ in done),
            "fps": str(done.fps),
            "size": f"{done.width}x{done.height}",
            "sound_seconds": sound.seconds,
            "prepared_seconds": prepared,
            "seconds_per_frame": (time.perf_counter() - started - prepared) / count,
            "bytes_at_a_third": peaks[len(peaks) // 3],
            "bytes_at_the_end": peaks[-1],
        }


def stages(options) -> list[dict]:
    """Rows of milliseconds a frame."""
    renderer, count = models.renderer(options.generation, options.small).to(options.device), options.frames
    pictures = models.images(count, renderer.config.input_size).to(options.device)
    motion = Motion(models.latents(count, renderer.config.motion_size), generation=options.generation)
    one, each = renderer.encode_source(pictures[:1]), renderer.encode_source(pictures)
    faces = renderer.render(each, motion).to(options.device)
    picture = torch.rand(1, 1080, 1920, 3, device=options.device)
    crop, batch = Crop(700.5, 200.5, 600, 1080, 1920), options.batch_size and options.batch_size[0]
    mask = lower_face(crop, (1000, 500, 375), 0.5)[None]
    work = {
        "dub: crop": lambda: [apply_crop(picture, crop, renderer.config.input_size) for _ in range(count)],
        "dub: encode": lambda: renderer.encode_source(pictures, batch_size=batch),
        "dub: render": lambda: list(renderer.stream(each, motion, batch)),
        "dub: paste": lambda: [paste_back(picture, face[None], crop, mask) for face in faces],
        "reenact: encode": lambda: renderer.encode_motion(pictures, batch_size=batch),
        "reenact: render": lambda: list(renderer.stream(one, motion, batch)),
    }
    return measure.rows(measure.alternate(work, options.rounds, options.device), count, None)


if __name__ == "__main__":
    measure.run(main)
