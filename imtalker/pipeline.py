"""The whole pipeline: a portrait, and speech or a driving video, to a stream of frames and a file."""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .errors import InputError
from .face.crop import Crop, apply_crop, centre_crop, cropped_blocks
from .face.detectors import DetectorMissing
from .face.follow import View, find_crop, steady_view
from .media.audio import FPS, Audio, AudioFile
from .media.image import check_image, read_image
from .media.mixing import Mixed
from .media.provenance import TAGS, find_signer
from .media.video import VideoReader, frame_rate
from .media.video_writer import write_video
from .models import backend
from .models.generator import Generator
from .models.renderer import Renderer, Source
from .motion import retarget
from .motion.control import Control
from .motion.hold import first_needed, hold
from .motion.inertia import Joins
from .motion.motion import Motion, stream_at_fps
from .motion.retarget import Reference
from .weights.download import fetch_detector

log = logging.getLogger("imtalker")

READ_AHEAD = 16  # driving frames decoded and encoded at a time
MAX_FRAMES = 10**9  # no video has so many
SEGMENT_FRAMES = 96  # renders resume at multiples of this: whole batches, seconds of rework

Shape = Callable[
    [Iterator[Motion]], Iterator[Motion]
]  # what is done to a motion, block by block, before it is rendered


@dataclass(frozen=True)
class Clip:
    """A video that is rendered while it is read: its frames can be iterated once."""

    rendered: Iterator[Tensor]  # (n,H,W,3), RGB in 0..1, on the renderer's device
    fps: Fraction
    count: int | None  # frames in all; None if the driving video does not say
    audio: Audio | AudioFile | Mixed | None

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
    joins: Joins = "smooth",
    fps: float = FPS,
    frames: int | None = None,
    crop: Crop | str = "auto",
    model_dirs: Iterable[str | Path] = (),
    batch_size: int | None = None,
    first: int | None = None,
    shape: Shape | None = None,
) -> Clip:
    """A portrait (1,H,W,3) or image file that speaks `audio` -> Clip of ceil(seconds * fps) frames, at most `frames`.

    An audio file is read three times while the clip is rendered and never loaded as a whole, so memory does not depend
    on its length.

    fps: rates other than 25 interpolate the motion, not the frames.
    crop: "auto" finds the face, "none" takes the middle square, or a Crop.
    first: a multiple of SEGMENT_FRAMES; only the frames from it on are rendered, in blocks that end at such multiples,
    so that a resumed render gives the same frames.
    shape: changes the motion, such as `partial(express_stream, rig=rig, content=text)` of `motion.expression`.
    Other settings as for `Generator.sample`. Raises InputError for bad input.
    """
    audio = AudioFile(audio) if isinstance(audio, str | Path) else audio
    rate = frame_rate(fps)
    speech = generator.listen(audio)
    count = _limit(math.ceil(Fraction(audio.samples, audio.sample_rate) * rate), frames)
    source = encode_portrait(renderer, image, crop, model_dirs)
    motion = stream_at_fps(generator.stream(speech, source, control, cfg, nfe, seed, joins=joins), float(rate), count)
    motion = motion if shape is None else shape(motion)
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
    relative: Reference | int | None = None,
    strength: float = 1.0,
    shape: Shape | None = None,
) -> Clip:
    """A portrait (1,H,W,3) or image file that follows the face in a video file, with the video's audio -> Clip.

    fps: None for the video's own. Other settings as for `talk`; crop "auto" uses one box for the whole driving video.
    relative: keeps the portrait's own pose and expression and adds only how the driver changes from this reference of
    it, times `strength`, as in `motion.retarget`; a frame number counts the video's own frames. For "mean" and
    "neutral" the whole video is encoded before the first frame is rendered. None takes the driver's motion as it is.
    """
    reader = VideoReader(driving)
    rate = frame_rate(fps) if fps else reader.fps
    count = None if reader.frames is None else _limit(math.ceil(reader.frames * rate / reader.fps), frames)
    source = encode_portrait(renderer, image, crop, model_dirs)
    view = _driving_view(reader, "auto" if isinstance(crop, Crop) else crop, model_dirs)
    needed = max(0, math.floor((first or 0) * float(reader.fps) / float(rate) - 1e-6))  # first driving frame needed
    if relative is None:
        driver = _encode_driving(renderer, reader, view, needed)
    else:
        driver, reference = _with_reference(renderer, reader, view, needed, relative)
        driver = retarget.relative(driver, source.motion, reference, strength)
    motion = _at_most(stream_at_fps(driver, float(rate)), frames)
    motion = motion if shape is None else shape(motion)
    motion = motion if first is None else _in_segments(motion, first)
    count = None if count is None else max(0, count - (first or 0))
    audio = AudioFile(driving) if reader.has_audio else None
    return Clip(_render(renderer, source, motion, batch_size), rate, count, audio)


def encode_portrait(
    renderer: Renderer, image: Tensor | str | Path, crop: Crop | str = "auto", model_dirs: Iterable[str | Path] = ()
) -> Source:
    """The Source of one portrait, cropped as in `talk`."""
    name = "the portrait" if isinstance(image, Tensor) else str(image)
    image = check_image(image) if isinstance(image, Tensor) else read_image(image)
    if len(image) != 1:
        raise InputError(f"The source must be one picture, not a batch of {len(image)}: choose one of them.")
    if not isinstance(crop, Crop):
        crop = _portrait_crop(image, crop, name, tuple(model_dirs))
    return renderer.encode_source(apply_crop(image, crop, renderer.config.input_size), checked=True)


def _limit(count: int, frames: int | None) -> int:
    if frames is not None and frames < 1:
        raise InputError(f"At least 1 frame is needed, not {frames}.")
    return count if frames is None else min(count, frames)


def _at_most(blocks: Iterable[Motion], frames: int | None) -> Iterator[Motion]:
    """The first `frames` of the motion, all of it where there is less."""
    for motion in blocks:
        yield motion if frames is None else replace(motion, latents=motion.latents[:frames])
        frames = None if frames is None else frames - len(motion)
        if frames is not None and frames <= 0:
            return


def _portrait_crop(image: Tensor, crop: str, name: str, model_dirs: tuple) -> Crop:
    if crop == "none":
        return _middle(name, *image.shape[1:3])
    try:
        return find_crop(image, name=name, **detector_in(model_dirs))
    except DetectorMissing as error:
        log.warning("%s Using the middle square of %s.", error, name)
        return centre_crop(*image.shape[1:3])


def _driving_view(reader: VideoReader, crop: str, model_dirs: Iterable[str | Path]) -> View:
    if crop == "none":
        return View(_middle(str(reader.path), reader.height, reader.width))
    try:
        return steady_view(reader, reader.frames, fps=float(reader.fps), **detector_in(tuple(model_dirs)))
    except DetectorMissing as error:
        log.warning("%s Using the middle square of the driving video.", error)
        return View(centre_crop(reader.height, reader.width))


def detector_in(model_dirs: tuple) -> dict[str, object]:
    """Where face detectors are looked for; one that is missing is downloaded into the first of these folders."""
    return {"model_dirs": model_dirs, "fetch": partial(fetch_detector, model_dirs[0]) if model_dirs else None}


def _middle(name: str, height: int, width: int) -> Crop:
    if height != width:
        log.warning("%s is %d x %d, not square: using its middle square.", name, width, height)
    return centre_crop(height, width)


def _encode_driving(renderer: Renderer, reader: VideoReader, view: View, needed: int = 0) -> Iterator[Motion]:
    """The motion of the driving frames, held where no face is seen.

    Frames of whole blocks before frame `needed` are skipped and read as zeros.
    """
    return hold(_encode_frames(renderer, reader, view.crop, first_needed(needed, view.hidden)), view.hidden)


def _encode_frames(renderer: Renderer, reader: VideoReader, crop: Crop, needed: int) -> Iterator[Motion]:
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


def _with_reference(
    renderer: Renderer, reader: VideoReader, view: View, needed: int, reference: Reference | int
) -> tuple[Iterable[Motion], Tensor]:
    """The motion of the driving frames as from `_encode_driving`, and the latent (1,size) of the reference."""
    number = 0 if reference == "first" else reference
    if isinstance(number, int):
        shown = next((stretch.stop for stretch in view.hidden if number in stretch), number)
        frame = itertools.islice(reader, shown, shown + 1) if 0 <= shown < MAX_FRAMES else iter(())
        found = [renderer.encode_motion(b) for b in cropped_blocks(frame, view.crop, renderer.config.input_size, 1)]
        if not found:
            raise InputError(f"{reader.path} has no frame {number} with a face: choose another reference.")
        return _encode_driving(renderer, reader, view, needed), found[0].latents
    blocks = list(_encode_driving(renderer, reader, view))
    whole = replace(blocks[0], latents=torch.cat([block.latents for block in blocks]))
    return [whole], retarget.reference_latent(whole, reference)


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
