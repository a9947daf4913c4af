"""The door of VIDEO: driving frames and sound, streamed from the file wherever the file is the whole video."""

import io
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...imtalker.errors import InputError
from ...imtalker.media.audio import Audio, AudioFile, open_media
from ...imtalker.media.video import VideoReader
from . import numbers
from .opening import enter, kind_of, must_pass
from .pictures import Pictures, masks, pictures
from .sound import NoSound, sound

log = logging.getLogger("imtalker")

SLACK = 1e-6  # seconds; a time that ComfyUI computed from the same numbers differs by rounding only


@dataclass(frozen=True)
class Clip:
    """Driving frames (H,W,3), RGB, uint8 or float in 0..1, that can be iterated more than once."""

    frames: Iterable[Tensor]
    fps: float
    count: int | None
    read_sound: Callable[[], Audio | None]

    def sound(self) -> Audio | None:
        """The clip's sound, read now; None, with a warning, if it has none that can be used."""
        try:
            return self.read_sound()
        except NoSound:
            return None
        except InputError as error:
            log.warning("The sound of the video cannot be used, it stays silent: %s", error)
            return None


def no_sound() -> None:
    """`read_sound` of a silent clip."""


def video(name: str, value: object, new_file: Callable[[str], str]) -> Clip:
    """A VIDEO of any class of ComfyUI's.

    A whole, unedited file is streamed, and so is a part of one. What the file does not show, such as a crop or a list,
    is decoded by ComfyUI, which takes memory for every frame. Alpha is composited over white either way. new_file:
    makes a path for a video that is in memory; the file lives as long as the path object. InputError: not a video, no
    frames.
    """
    if not callable(getattr(value, "get_components", None)):
        raise InputError(f"The input {name} got {kind_of(value)} instead of a video: connect a VIDEO output.")
    # of other classes even asking for a source may encode all frames
    if any(kind.__name__ == "VideoFromFile" for kind in type(value).__mro__):
        path = _path_of(_ask(value.get_stream_source), new_file)
        if path is not None:
            reader = VideoReader(path)  # says what is wrong with the file
            part = _ask(lambda: _part_of(value, path))
            if part is not None:
                return _streamed(reader, *part)
    return _decoded(name, value)


def clip_of_pictures(images: Iterable[Tensor], fps: float) -> Clip:
    """A silent clip of `doors.pictures.Pictures`."""
    return Clip(images, fps, len(images), no_sound)


def _ask(question: Callable[[], object]) -> object:
    """What a VIDEO says about itself; None if its version of ComfyUI cannot say."""
    try:
        return question()
    except Exception as error:
        if must_pass(error):
            raise
        return None


def _path_of(source: object, new_file: Callable[[str], str]) -> str | None:
    if isinstance(source, (str, os.PathLike)):
        return source
    if not isinstance(source, io.BufferedIOBase):
        return None
    # on disk it is streamed by the reader of all files
    source.seek(0)
    try:
        path = new_file(".video")
        with open(path, "wb") as file:
            shutil.copyfileobj(source, file)
    except OSError as error:
        raise InputError(
            f"The video is in memory and cannot be written to ComfyUI's temp folder ({error.strerror or error}): check "
            "that folder and that the disk is not full."
        ) from error
    return path


def _part_of(value: object, path: str) -> tuple[float, float] | None:
    """Start and length (0: to the end), in seconds, if the video is this part of its file; None if it is not."""
    edited = getattr(value, "has_pending_frame_edits", False)
    if edited() if callable(edited) else edited:
        return None
    if hasattr(value, "get_active_trim_window"):
        start, length = value.get_active_trim_window()
    else:  # versions before 0.22 keep it to themselves
        start, length = (getattr(value, f"_VideoFromFile__{field}", 0) for field in ("start_time", "duration"))
    with open_media(path) as container:
        size = container.streams.video[0].codec_context
        whole = None if container.duration is None else container.duration / 1e6
        same = tuple(value.get_dimensions()) == (size.width, size.height)
    if start < 0:
        start = None if whole is None else max(0, whole + start)
    if not same or start is None or length < 0:
        return None
    if whole is None:
        return start, length
    left = whole - start
    expected = min(length, left) if length else left
    return (start, length) if abs(value.get_duration() - expected) < SLACK else None


@dataclass(frozen=True)
class _Frames:
    """The frames first..end of a reader; each iteration starts over."""

    reader: VideoReader
    first: int
    end: int | None

    def __iter__(self) -> Iterator[Tensor]:
        return self.reader.part(self.first, self.end)


def _streamed(reader: VideoReader, start: float, length: float) -> Clip:
    # ComfyUI keeps the frames that are shown first from `start` on and before the end
    first = math.ceil((start - SLACK) * reader.fps)
    end = math.ceil((start + length - SLACK) * reader.fps) if length else None
    known = [last for last in (reader.frames, end) if last is not None]
    count = max(0, min(known) - first) if known else None
    if count == 0:
        raise InputError(
            f"No frame of the video lies in the part that starts at {start:g} s: choose an earlier or longer part."
        )
    frames = reader if (first, end) == (0, None) else _Frames(reader, first, end)

    def read() -> Audio | None:
        if not reader.has_audio:
            return None
        file = AudioFile(reader.path)
        begin = round(first / reader.fps * file.sample_rate)
        stop = None if end is None else round(end / reader.fps * file.sample_rate)
        return Audio(torch.cat(list(_cut(file.blocks(), begin, stop)), dim=-1), file.sample_rate)

    return Clip(frames, float(reader.fps), count, read)


def _cut(blocks: Iterable[Tensor], begin: int, stop: int | None) -> Iterator[Tensor]:
    """The samples begin..stop of blocks (channels,n). NoSound: there are none."""
    done, empty = 0, True
    for block in blocks:
        part = block[:, max(0, begin - done) : None if stop is None else max(0, stop - done)]
        done += block.shape[-1]
        if part.shape[-1]:
            empty = False
            yield part
        if stop is not None and done >= stop:
            break
    if empty:
        raise NoSound("The sound of the video ends before this part of it: choose an earlier one.")


def _decoded(name: str, value: object) -> Clip:
    parts = value.get_components()
    if not len(parts.images):
        raise InputError(f"The video in {name} has no frames: choose another, or another part of it.")
    frames = enter(name, pictures, parts.images)
    fps = enter(f"The frame rate of {name}", numbers.real, parts.frame_rate, low=1 / 60, high=1000)
    audio, alpha = getattr(parts, "audio", None), getattr(parts, "alpha", None)
    shown = frames if alpha is None else _over_white(name, frames, enter(f"{name}'s alpha", masks, alpha))
    return Clip(shown, fps, len(frames), lambda: enter("audio", sound, audio))


def _over_white(name: str, frames: Pictures, alpha: Tensor) -> Iterable[Tensor]:
    if alpha.shape != (len(frames), frames.height, frames.width):
        raise InputError(f"The alpha of {name} is not of its pictures' count and size: connect another node.")
    return _OverWhite(frames, alpha)


@dataclass(frozen=True)
class _OverWhite:
    """Frames composited over white, one at a time."""

    frames: Pictures
    alpha: Tensor  # (N,H,W), 0..1

    def __iter__(self) -> Iterator[Tensor]:
        for frame, alpha in zip(self.frames, self.alpha, strict=True):
            opacity = alpha[..., None].to(frame.device)
            yield frame * opacity + (1 - opacity)
