"""Turns a folder of videos into a dataset folder: square frames of each clip at 25 a second, and tracks read off them.

A clip's folder is complete once it holds its tracks file, which is written last; a second run prepares what is missing.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import InputError
from ..face.crop import Crop, centre_crop, cropped_blocks
from ..face.detectors import DetectorMissing, point_finder
from ..face.follow import steady_view
from ..media.atomic import is_disk_full
from ..media.audio import FPS, AudioFile
from ..media.tensors import read_safetensors, save_safetensors
from ..media.video import VideoReader
from ..models.generator import Generator
from ..models.l2cs import GazeEncoder
from ..models.renderer import Renderer
from ..models.smirk import PoseEncoder
from ..pipeline import READ_AHEAD
from ..tracking import control_from_frames, face_boxes
from .data import FRAMES, TRACKS

log = logging.getLogger("imtalker")

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg"}
QUALITY = 95  # of JPEG
SIZE = 512  # of frames without a renderer
SMALL = 4096  # the largest tensors that a fingerprint reads


@dataclass(frozen=True)
class Preparation:
    """The models that read tracks off each clip; None leaves the track out.

    renderer: motion; generator: audio features; smirk: pose and camera; l2cs: gaze. Eyes and mouth are marked if
    `model_dirs` holds YuNet.
    crop: "auto" finds the face, one box per clip; "none" takes the central square.
    """

    renderer: Renderer | None = None
    generator: Generator | None = None
    smirk: PoseEncoder | None = None
    l2cs: GazeEncoder | None = None
    model_dirs: Sequence[str | Path] = ()
    crop: str = "auto"

    @property
    def size(self) -> int:
        config = self.renderer and self.renderer.config
        return max(config.input_size, config.output_size) if config else SIZE


@dataclass
class Report:
    """The names of clips made and of those kept from an earlier run, and why others were left out."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def prepare(
    videos: str | Path,
    data: str | Path,
    how: Preparation,
    on_clip: Callable[[str, str], None] = lambda name, outcome: None,
) -> Report:
    """Prepares every video below a folder and reports each one as on_clip(name, outcome).

    Videos in one subfolder show one person; a video in no subfolder shows a person of its own. A video that cannot be
    used is left out. InputError: no videos, no face detector, or a full disk.
    """
    videos, data = Path(videos), Path(data)
    files = sorted(path for path in videos.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise InputError(f"There are no videos in {videos}: give a folder with {', '.join(sorted(SUFFIXES))} files.")
    data.mkdir(parents=True, exist_ok=True)
    points = point_finder(how.model_dirs)
    if points is None:
        log.warning("YuNet is not installed, so eyes and mouth weigh no more than the rest of the frame in training.")
    marks = {
        "renderer": fingerprint(how.renderer.motion_encoder) if how.renderer else "none",
        "generator": fingerprint(how.generator.audio_encoder) if how.generator else "none",
        "generation": how.renderer.generation if how.renderer else "none",
        "trackers": " ".join(name for name in ("smirk", "l2cs") if getattr(how, name)) + (" points" if points else ""),
        "size": str(how.size),
        "crop": how.crop,
    }
    report = Report()
    for file in files:
        inside = file.relative_to(videos)
        name, state = "__".join(inside.parts), file.stat()
        metadata = marks | {
            "format": "imtalker",
            "kind": "clip",
            "fps": str(FPS),
            "person": inside.parts[0],
            "video": f"{state.st_size} bytes of {state.st_mtime_ns}",
        }
        if _is_prepared(data / name, metadata):
            report.kept.append(name)
            on_clip(name, "already prepared")
            continue
        try:
            frames = _prepare_clip(file, data / name, how, points, metadata)
        except DetectorMissing:
            raise
        except InputError as error:
            report.left_out[name] = str(error)
            on_clip(name, f"left out: {error}")
        except OSError as error:
            if is_disk_full(error):
                raise InputError(f"The disk is full at {data / name}: make room and run this again.") from error
            report.left_out[name] = str(error)
            on_clip(name, f"left out: {error}")
        else:
            report.made.append(name)
            on_clip(name, f"{frames} frames")
    return report


def fingerprint(model: nn.Module) -> str:
    """A hash of the small tensors, all of which training changes: it tells weights apart."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.numel() <= SMALL:
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _is_prepared(folder: Path, metadata: dict[str, str]) -> bool:
    try:
        _, found = read_safetensors(folder / TRACKS)
    except InputError:
        return False
    return all(found.get(name) == value for name, value in metadata.items())


def _prepare_clip(file: Path, folder: Path, how: Preparation, points, metadata: dict[str, str]) -> int:
    shutil.rmtree(folder, ignore_errors=True)  # from another preparation, or incomplete
    with VideoReader(file, fps=FPS) as reader:
        crop = _crop(reader, how)
        tracks = {"crop": torch.tensor([crop.x, crop.y, crop.size])}
        (folder / FRAMES).mkdir(parents=True)
        motion, found, count = [], [], 0
        for block in cropped_blocks(reader, crop, how.size, READ_AHEAD):
            for frame in block:
                pixels = (frame * 255).round().to(torch.uint8).numpy()
                Image.fromarray(pixels).save(folder / FRAMES / f"{count:06}.jpg", quality=QUALITY)
                count += 1
            if how.renderer:
                motion.append(how.renderer.encode_motion(block, FPS).latents)
            if points:
                found += [_points(points(frame), how.size) for frame in block]
        if how.renderer:
            tracks["motion"] = torch.cat(motion)
        if points:
            tracks["points"] = torch.stack(found)
        if how.generator and reader.has_audio:
            features = torch.cat(list(how.generator.listen(AudioFile(file)).blocks()))
            last = features[-1:].expand(max(0, count - len(features)), -1)
            tracks["audio"] = torch.cat([features[:count], last])
        if how.smirk or how.l2cs:
            tracks |= _trackers(reader, how, count)
    tracks = {name: rows.float().contiguous() for name, rows in tracks.items()}
    save_safetensors(folder / TRACKS, tracks, metadata | {"frames": str(count)})
    return count


def _crop(reader: VideoReader, how: Preparation) -> Crop:
    if how.crop == "none":
        return centre_crop(reader.height, reader.width)
    return steady_view(reader, reader.frames, model_dirs=how.model_dirs).crop


def _trackers(reader: VideoReader, how: Preparation, count: int) -> dict[str, Tensor]:
    boxes = face_boxes(reader, model_dirs=how.model_dirs)
    return control_from_frames(reader, boxes[:count], float(FPS), how.smirk, how.l2cs).parts()


def _points(found, size: int) -> Tensor:
    """Points (5,2) in 0..1 of the frame, NaN if no face was found."""
    return torch.full((5, 2), float("nan")) if found is None else torch.from_numpy(found).float() / size
