"""The whole way: a video and speech to a video that says it."""

import itertools
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from ..errors import InputError
from ..media.audio import FPS, Audio, AudioFile
from ..media.mixing import Mixed
from ..media.video import VideoReader
from ..models.generator import Generator
from ..models.renderer import Renderer
from ..motion.fit import positions
from ..motion.match import Side, check_match
from ..motion.motion import stream_at_fps
from ..motion.rig import Rig
from ..pipeline import Clip, detector_in
from ..rigging import ask, rig_of, shipped_rig
from .mouth import Manner, Mouth
from .plan import Following, study
from .redraw import Pasting, Redrawing

log = logging.getLogger("imtalker")

Ending = Literal["cut", "hold", "ping-pong"]


def dub(
    renderer: Renderer,
    generator: Generator,
    video: str | Path,
    audio: Audio | AudioFile | str | Path,
    *,
    rig: Rig | Literal["kept", "none"] = "kept",
    ending: Ending = "cut",
    keep_sound: float = 0.0,
    frames: int | None = None,
    model_dirs: Iterable[str | Path] = (),
    batch_size: int | None = None,
    first: int | None = None,
    progress: Callable[[str, int], None] = lambda what, done: None,
    **settings: object,
) -> Clip:
    """A video file whose face says `audio` -> Clip at the video's own rate and size, at most `frames` frames.

    The video is read twice and never in memory as a whole: once to find the face in every frame, before this returns,
    and again while it is rendered. Frames without the face, or of another shot, stay as they are, and are counted in a
    warning.

    rig: of these weights. "kept": the one beside them, in `rigs` of the first of model_dirs, which is asked from the
    generator the first time; "none": what speech changes is added to the clip's own motion, less exactly.
    ending: "cut" ends with the shorter of video and speech. Otherwise the longer one decides: a video that ends first
    stays on its last frame ("hold") or goes back and forth ("ping-pong"); after the speech the mouth rests.
    keep_sound: 0..1, volume of the video's own sound under the speech.
    first: as for `talk`.
    progress: called with "face" or "rig", and how many frames or percent are done.
    settings: of `Following` (plan.py), `Manner` (mouth.py) and `Pasting` (redraw.py), by name.
    InputError: bad input, weights that do not belong together. FaceNotFound, DetectorMissing.
    """
    following, manner, pasting = _sorted(settings)
    reader, speech = VideoReader(video), AudioFile(audio) if isinstance(audio, str | Path) else audio
    check_volume(keep_sound)
    check_models(renderer, generator)
    looked = 0

    def on_frame() -> None:
        nonlocal looked
        looked += 1
        progress("face", looked)

    dirs = tuple(model_dirs)
    looked_at = itertools.islice(reader, most_needed(speech, reader.fps, ending, frames))
    plan = study(looked_at, float(reader.fps), following, on_frame, **detector_in(dirs))
    log.warning("%s", plan.report()) if plan.left_alone else log.info("%s", plan.report())
    at = shown(len(plan), speech, reader.fps, ending, frames)
    own = AudioFile(video) if reader.has_audio else None
    if rig == "kept":
        rig = _kept_rig(generator, dirs, lambda share: progress("rig", round(100 * share)))
    mouth = Mouth(generator, None if rig == "none" else rig, manner)
    redrawing = Redrawing(renderer, reader, plan, pasting, batch_size)
    wanted = mouth.wanted(redrawing.source(plan.first), speech, own, latents_for(len(at), reader.fps))
    wanted = stream_at_fps(wanted, float(reader.fps), len(at))
    rendered = (block for block, _ in redrawing.stream(mouth, wanted, at, first or 0))
    sound = Mixed(speech, own, keep_sound) if own and keep_sound else speech
    return Clip(rendered, reader.fps, max(0, len(at) - (first or 0)), sound)


def _kept_rig(generator: Generator, dirs: tuple, progress: Callable[[float], None]) -> Rig:
    if dirs:
        return rig_of(generator, Path(dirs[0]) / "rigs", progress)[0]
    return shipped_rig(generator) or ask(generator, progress)


def _sorted(settings: dict[str, object]) -> list:
    """Following, Manner and Pasting made of settings by name. TypeError: an unknown one."""
    kinds = (Following, Manner, Pasting)
    known = {field.name: kind for kind in kinds for field in fields(kind)}
    if unknown := settings.keys() - known.keys():
        raise TypeError(f"dub() has no setting {sorted(unknown)[0]!r}; there are {', '.join(known)}")
    return [kind(**{name: value for name, value in settings.items() if known[name] is kind}) for kind in kinds]


def check_volume(keep_sound: float) -> None:
    if not 0 <= keep_sound <= 1:
        raise InputError(f"The volume of the video's own sound must be from 0 to 1, not {keep_sound:g}.")


def check_models(renderer: Renderer, generator: Generator) -> None:
    """Raises InputError for models of different generations or motion sizes."""
    check_match(
        Side("the renderer", renderer.generation, renderer.config.motion_size),
        Side("the generator", generator.generation, generator.config.motion_size),
    )


def most_needed(
    speech: Audio | AudioFile, fps: Fraction, ending: Ending = "cut", frames: int | None = None
) -> int | None:
    """How many frames of the clip are shown at most; None for all. InputError: no such ending, less than 1 frame."""
    if ending not in get_args(Ending):
        raise InputError(f"A dubbed video cannot end by {ending!r}: use {', '.join(get_args(Ending))}.")
    if frames is not None and frames < 1:
        raise InputError(f"At least 1 frame is needed, not {frames}.")
    lengths = [length for length in (frames, _spoken(speech, fps) if ending == "cut" else None) if length is not None]
    return min(lengths, default=None)


def shown(count: int, speech: Audio | AudioFile, fps: Fraction, ending: Ending, frames: int | None = None) -> Tensor:
    """For each frame of the result, which of the clip's `count` frames it shows, (n,)."""
    spoken = _spoken(speech, fps)
    total = min(spoken, count) if ending == "cut" else max(spoken, count)
    total = total if frames is None else min(total, frames)
    if spoken > count == total and ending == "cut" and count != frames:
        log.warning(
            "The speech is %.1f s longer than the video and is cut: choose the ending hold or ping-pong to keep it.",
            float((spoken - count) / fps),
        )
    return positions(count, total, "hold" if ending == "cut" else ending).long()


def _spoken(speech: Audio | AudioFile, fps: Fraction) -> int:
    return math.ceil(Fraction(speech.samples, speech.sample_rate) * fps)


def latents_for(frames: int, fps: Fraction | float) -> int:
    """How many latents at 25 frames a second so many frames at `fps` are made of."""
    return math.ceil(frames * FPS / float(fps)) + 1
