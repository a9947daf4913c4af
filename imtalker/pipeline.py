"""The whole pipeline: a portrait, and speech or a driving video, to a stream of frames and a file."""

import itertools
import logging
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from .errors import InputError
from .face.crop import Crop, apply_crop, centre_crop, cropped_blocks
from .face.detectors import DetectorMissing
from .face.follow import find_crop, steady_crop
from .media.audio import FPS, Audio, AudioFile
from .media.image import check_image, read_image
from .media.provenance import TAGS, find_signer
from .media.video import VideoReader, frame_rate
from .media.video_writer import write_video
from .models import backend
from .models.generator import Generator
from .models.renderer import Renderer, Source
from .motion.control import Control
from .motion.motion import Motion, stream_at_fps

log = logging.getLogger("imtalker")

READ_AHEAD = 16  # driving frames decoded and encoded at a time
SEGMENT_FRAMES = 96  # renders resume at multiples of this: whole batches, seconds of rework


@dataclass(frozen=True)
class Clip:
    """A video that is rendered while it is read: its frames can be iterated once."""

    rendered: Iterator[Tensor]  # (n,H,W,3), RGB in 0..1, on the renderer's device
    fps: Fraction
    count: int | None  # frames in all; None if the driving video does not say
    audio: Audio | AudioFile | None

    @property
    def blocks(self) -> Iterator[Tensor]:
        """The frames on the CPU."""
        return backend.to_cpu(self.rendered)

    def save(self, path: str | Path, metadata: dict[str, str] | None = None) -> int:
        """Writes an .mp4 with its audio, whole or not at all, tagged as synthetic; returns the number of frames.

        Also signs it if the environment names a certificate, see `provenance`.
        """
        signer = find_signer()  # first, so that a bad certificate fails before the render
        count = write_video(path, backend.to_file(self.rendered), self.fps, self.audio, TAGS | (metadata or {}))
        if signer:
            signer.sign(path)
        return count


def talk(
    renderer: Renderer,
    generator: Generator,
    image: Tensor | str | Path,
    audio: Audio | AudioFile | str | Path,
    *,
    control: Control | None = None,
    cfg: float | None = None,
    nfe: int = 10,
    seed: int = 0,
    fps: float = FPS,
    frames: int | None = None,
    crop: Crop | str = "auto",
    model_dirs: Iterable[str | Path] = (),
    batch_size: int | None = None,
    first: int | None = None,
) -> Clip:
    """A portrait (1,H,W,3) or image file that speaks `audio` -> Clip of ceil(seconds * fps) frames, at most `frames`.

    An audio file is read three times while the clip is rendered and never loaded as a whole, so memory does not depend
    on its length.

    fps: rates other than 25 interpolate the motion, not the frames.
    crop: "auto" finds the face, "none" takes the middle square, or a Crop.
    first: a multiple of SEGMENT_FRAMES; only the frames from it on are rendered, in blocks that end at such multiples,
    so that a resumed render gives the same frames.
    Other settings as for `Generator.sample`. Raises InputError for bad input.
    """
    audio = AudioFile(audio) if isinstance(audio, str | Path) else audio
    rate = frame_rate(fps)
    speech = generator.listen(audio)
    count = _limit(math.ceil(Fraction(audio.samples, audio.sample_rate) * rate), frames)
    source = encode_portrait(renderer, image, crop, model_dirs)
    motion = stream_at_fps(generator.stream(speech, source, control, cfg, nfe, seed), float(rate), count)
    motion = motion if first is None else _in_segments(motion, first)
    count = max(0, count - (first or 0))
    return Clip(_render(renderer, source, motion, batch_size), rate, count, audio)


def reenact(
    renderer: Renderer,
    image: Tensor | str | Path,
    driving: str | Path,
    *,
    fps: float | None = None,
    frames: int | None = None,
    crop: Crop | str = "auto",
    model_dirs: Iterable[str | Path] = (),
    batch_size: int | None = None,
    first: int | None = None,
) -> Clip:
    """A portrait (1,H,W,3) or image file that follows the face in a video file, with the video's audio -> Clip.

    fps: None for the video's own. Other settings as for `talk`; crop "auto" uses one box for the whole driving video.
    """
    reader = VideoReader(driving)
    rate = frame_rate(fps) if fps else reader.fps
    count = None if reader.frames is None else _limit(math.ceil(reader.frames * rate / reader.fps), frames)
    source = encode_portrait(renderer, image, crop, model_dirs)
    box = _driving_crop(reader, "auto" if isinstance(crop, Crop) else crop, model_dirs)
    needed = max(0, math.floor((first or 0) * float(reader.fps) / float(rate) - 1e-6))  # first driving frame needed
    motion = stream_at_fps(_encode_driving(renderer, reader, box, needed), float(rate), frames)
    motion = motion if first is None else _in_segments(motion, first)
    count = count if frames is None else frames
    count = None if count is None else max(0, count - (first or 0))
    audio = AudioFile(driving) if reader.has_audio else None
    return Clip(_render(renderer, source, motion, batch_size), rate, count, audio)


def encode_portrait(
    renderer: Renderer, image: Tensor | str | Path, crop: Crop | str = "auto", model_dirs: Iterable[str | Path] = ()
) -> Source:
    """The Source of one portrait, cropped as in `talk`."""
    name = "the portrait" if isinstance(image, Tensor) else str(image)
    image = check_image(image) if isinstance(image, Tensor) else read_image(image)
    if not isinstance(crop, Crop):
        crop = _portrait_crop(image[:1], crop, name, tuple(model_dirs))
    return renderer.encode_source(apply_crop(image, crop, renderer.config.input_size), checked=True)


def _limit(count: int, frames: int | None) -> int:
    if frames is not None and frames < 1:
        raise InputError(f"At least 1 frame is needed, not {frames}.")
    return count if frames is None else min(count, frames)


def _portrait_crop(image: Tensor, crop: str, name: str, model_dirs: tuple) -> Crop:
    if crop == "none":
        return _middle(name, *image.shape[1:3])
    try:
        return find_crop(image, model_dirs=model_dirs, name=name)
    except DetectorMissing:
        # warns: which detector to install, and what is used instead
        return find_crop(image, model_dirs=model_dirs, name=name, fallback="centre")


def _driving_crop(reader: VideoReader, crop: str, model_dirs: Iterable[str | Path]) -> Crop:
    if crop == "none":
        return _middle(str(reader.path), reader.height, reader.width)
    try:
        return steady_crop(reader, reader.frames, model_dirs=tuple(model_dirs))
    except DetectorMissing as error:
        log.warning("%s Using the middle square of the driving video.", error)
        return centre_crop(reader.height, reader.width)


def _middle(name: str, height: int, width: int) -> Crop:
    if height != width:
        log.warning("%s is %d x %d, not square: using its middle square.", name, width, height)
    return centre_crop(height, width)


def _encode_driving(renderer: Renderer, reader: VideoReader, crop: Crop, needed: int = 0) -> Iterator[Motion]:
    """The motion of the driving frames; those of whole blocks before frame `needed` are skipped and read as zeros."""
    frames, fps = iter(reader), float(reader.fps)
    if skipped := sum(1 for _ in itertools.islice(frames, needed - needed % READ_AHEAD)):
        yield Motion(torch.zeros(skipped, renderer.config.motion_size), fps, renderer.generation)
    blocks = cropped_blocks(frames, crop, renderer.config.input_size, READ_AHEAD)
    # the next block is decoded while this one is encoded and rendered
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, blocks, None)
        while (block := upcoming.result()) is not None:
            upcoming = thread.submit(next, blocks, None)
            yield renderer.encode_motion(block, fps)


def _in_segments(blocks: Iterable[Motion], first: int) -> Iterator[Motion]:
    """The motion from frame `first` on, split at the ends of segments."""
    start = 0
    for motion in blocks:
        end = start + len(motion)
        cuts = range(start - start % SEGMENT_FRAMES, end, SEGMENT_FRAMES)
        for cut in cuts:
            piece = motion.latents[max(cut - start, 0) : cut + SEGMENT_FRAMES - start]
            if cut >= first:
                yield replace(motion, latents=piece)
        start = end


def _render(renderer: Renderer, source: Source, blocks: Iterable[Motion], batch_size: int | None) -> Iterator[Tensor]:
    return (block for motion in blocks for block in renderer.stream(source, motion, batch_size))
