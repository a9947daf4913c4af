"""A job (one video to render, as the command line or a table describes it) and the models that render it."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from ..dubbing.dub import dub
from ..errors import InputError
from ..media import provenance
from ..media.files import VIDEO_SUFFIXES, check_output
from ..media.image import read_image
from ..models.config import PUBLISHED
from ..models.folding import fold
from ..models.generator import Generator
from ..models.renderer import Renderer
from ..motion import keyframes
from ..motion.control import Control, load_gaze, load_pose, merge
from ..motion.expression import express_stream
from ..motion.retarget import Reference
from ..motion.rig import Rig
from ..pipeline import Clip, Shape, reenact, talk
from ..rigging import rig_of
from ..weights import untrained
from ..weights.checkpoints import AVATAR, find_weights, load_generator, load_renderer
from ..weights.download import CACHE

log = logging.getLogger("imtalker")

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SHORT_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}  # as ComfyUI calls them


# Of a dub alone, as `dub` names them, and ways to choose a face.
DUBBING = ("which", "index", "tracking", "shots", "ending", "lower_face", "head", "colour_match", "keep_sound", "gate")
FACES = ("largest", "left to right", "nearest to centre", "best score")


@dataclass(frozen=True)
class Job:
    """A portrait and speech or a driving video, or a video and speech to dub it with; and the output.

    Settings as for `talk`, `reenact` and `dub`.
    """

    source: Path | None
    output: Path
    audio: Path | None = None
    driving: Path | None = None
    seed: int = 0
    cfg: float | None = None
    nfe: int = 10
    joins: str = "smooth"
    fps: float | None = None
    frames: int | None = None
    crop: str = "auto"
    control: Path | None = None
    allow_more: bool = False
    pose: Path | None = None
    gaze: Path | None = None
    relative: Reference | int | None = None
    strength: float = 1.0
    expression: Path | None = None
    blinks: float = 0.0  # a minute
    rig: Path | None = None
    mark: str = ""  # text in a corner of every frame
    video: Path | None = None
    mask: Path | None = None
    dubbing: dict[str, object] = field(default_factory=dict)  # further settings of `dub`, by name

    def inputs(self) -> dict[str, Path]:
        """The files to read, by field."""
        names = ("source", "audio", "driving", "control", "pose", "gaze", "expression", "video", "rig", "mask")
        return {name: path for name in names if (path := getattr(self, name)) is not None}


def read_control(job: Job) -> Control | None:
    """All of the job's control files merged; None if there are none."""
    given = []
    if job.control and job.control.suffix.lower() == ".json":
        given.append(keyframes.to_control(keyframes.load(job.control), allow_more=job.allow_more))
    elif job.control:
        given.append(Control.load(job.control))
    if job.pose:
        given.append(Control(**load_pose(job.pose)))
    if job.gaze:
        given.append(Control(gaze=load_gaze(job.gaze)))
    return merge(given) if given else None


@dataclass(frozen=True)
class Models:
    """Where the models are and how they run. Each is loaded once, on first use."""

    folder: Path
    device: str = "auto"
    dtype: str = "float32"
    untrained: str | None = None  # "v1" or "v2": made-up weights of that generation
    batch_size: int | None = None
    final: bool = True  # they are only used, see load_renderer

    @cached_property
    def renderer(self) -> Renderer:
        if self.untrained:
            return self._made_up("renderer", untrained.untrained_renderer)
        file = find_weights(self.folder, "renderer")
        return load_renderer(file, find_device(self.device), DTYPES[self.dtype], self.final)

    @cached_property
    def generator(self) -> Generator:
        if self.untrained:
            return self._made_up("generator", untrained.untrained_generator)
        wav2vec = self.folder / "wav2vec2-base-960h"
        file = find_weights(self.folder, "generator")
        device, dtype = find_device(self.device), DTYPES[self.dtype]
        return load_generator(file, wav2vec if os.path.isdir(wav2vec) else None, device, dtype, self.final)

    def _made_up(self, kind: str, make):
        log.warning("Untrained %s weights: the %s gives patterns, not a face.", self.untrained, kind)
        model = fold(make(PUBLISHED[kind][self.untrained]), self.final)
        return model.to(find_device(self.device), DTYPES[self.dtype])

    @property
    def tags(self) -> dict[str, str]:
        """Metadata tags for videos made with these models."""
        return {"title": "Made with untrained weights: not a face"} if self.untrained else {}

    def expressions(self, job: Job) -> Shape | None:
        """What the job adds to the motion; its rig is that of the weights unless it names one."""
        if not job.expression and not job.blinks:
            if job.rig:
                raise InputError("--rig is for --expression and --blinks: give one of them too, or leave it out.")
            return None
        content = keyframes.load(job.expression) if job.expression else ""
        keyframes.parse(content, None)  # bad keyframes are told before the work
        rig = Rig.load(job.rig) if job.rig else rig_of(self.generator, self.folder / "rigs")[0]
        settings = {"allow_more": job.allow_more, "blinks": job.blinks, "seed": job.seed}
        return partial(express_stream, rig=rig, content=content, **settings)

    def clip(
        self, job: Job, first: int | None = None, progress: Callable[[str, int], None] = lambda what, done: None
    ) -> Clip:
        """The job's video, rendered while it is read; `first` as for `talk`. Raises InputError for bad input.

        progress: as for `dub`.
        """
        common = {
            "frames": job.frames,
            "crop": job.crop,
            "model_dirs": [CACHE if self.folder == AVATAR else self.folder],
            "batch_size": self.batch_size,
            "first": first,
        }
        if job.video:
            settings = {"cfg": job.cfg, "nfe": job.nfe, "seed": job.seed, "strength": job.strength, **job.dubbing}
            settings |= {"rig": self._rig(job), "mask": None if job.mask is None else _mask(job.mask)}
            clip = dub(self.renderer, self.generator, job.video, job.audio, progress=progress, **settings, **common)
            return self._marked(clip, job)
        common["shape"] = self.expressions(job)
        if job.driving:
            settings = {"fps": job.fps, "relative": job.relative, "strength": job.strength}
            clip = reenact(self.renderer, job.source, job.driving, **settings, **common)
        else:
            control = read_control(job)
            renderer, generator = self.renderer, self.generator
            sampling = {"cfg": job.cfg, "nfe": job.nfe, "seed": job.seed, "joins": job.joins}
            settings = {"control": control, "fps": job.fps or 25, **sampling}
            clip = talk(renderer, generator, job.source, job.audio, **settings, **common)
        return self._marked(clip, job)

    def _marked(self, clip: Clip, job: Job) -> Clip:
        blocks = provenance.mark(clip.rendered, untrained.LABEL if self.untrained else "", "top")
        return replace(clip, rendered=provenance.mark(blocks, job.mark))

    def _rig(self, job: Job) -> Rig | str:
        if job.rig:
            return Rig.load(job.rig)
        return "none" if self.untrained else "kept"


def _mask(path: Path) -> Tensor:
    """A picture's brightness as a mask (1,H,W)."""
    return read_image(path).mean(dim=3)


def check_output_of(job: Job) -> Path:
    """Checks that the job's video can be written and is none of its inputs, before the work. InputError if not."""
    return check_output(job.output, *VIDEO_SUFFIXES, inputs=job.inputs().values())


def find_device(name: str) -> torch.device:
    """A device by PyTorch's name, or "auto" for the best one. Raises InputError if it is not available."""
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device
