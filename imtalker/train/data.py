"""Training samples from prepared clips (prepare.py), in batches whose order follows from a seed.

Each sample is drawn with its own random generator, seeded by its position in the training, so training can resume at
any step.
"""

import bisect
import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import InputError
from ..media.image import read_image, resize
from ..models.config import GeneratorConfig, RendererConfig
from .loop import Batches
from .runtime import seed_of

TRACKS = "tracks.safetensors"  # written last: a clip's folder without it is incomplete
FRAMES = "frames"
CONDITIONS = ("audio", "pose", "cam", "gaze")
CONDITION_DROPOUT = 0.1  # share of samples without audio, pose, cam or gaze, each on its own
CONTEXT_DROPOUT = 0.5  # share of samples without context


@dataclass(frozen=True)
class PreparedClip:
    """One clip's folder, read on demand; 25 frames and rows a second."""

    folder: Path

    @cached_property
    def metadata(self) -> dict[str, str]:
        with self._open() as file:
            return file.metadata()

    @cached_property
    def names(self) -> frozenset[str]:
        """Its tracks, out of motion (T,motion_size), audio (T,hidden_size), pose, cam, gaze and points (T,5,2)."""
        with self._open() as file:
            return frozenset(file.keys())

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of a track, read from the file each time: hours of audio features do not fit into memory."""
        with self._open() as file:
            return file.get_slice(name)[start:stop]

    def _open(self):
        try:
            return safe_open(str(self.folder / TRACKS), "pt")
        except (OSError, SafetensorError) as error:
            raise InputError(f"{self.folder} is damaged ({error}): delete it and run prepare again.") from error

    @property
    def person(self) -> str:
        return self.metadata["person"]

    def __len__(self) -> int:
        return int(self.metadata["frames"])

    def frame(self, number: int) -> Tensor:
        """One frame, (1,S,S,3), RGB in 0..1."""
        return read_image(self.folder / FRAMES / f"{number:06}.jpg")


def find_clips(folder: str | Path) -> list[PreparedClip]:
    """The complete clips of a dataset folder, sorted by name. InputError if there are none or they do not match."""
    clips = [PreparedClip(path.parent) for path in sorted(Path(folder).glob(f"*/{TRACKS}"))]
    if not clips:
        raise InputError(f"{folder} holds no prepared clips: run python -m imtalker prepare VIDEOS {folder} first.")
    for name in ("size", "generation", "renderer", "generator"):
        if len(found := {clip.metadata.get(name) for clip in clips}) > 1:
            raise InputError(
                f"The clips in {folder} were prepared differently ({name}: {', '.join(sorted(map(str, found)))}): "
                f"prepare all of them with the same models."
            )
    return clips


class Samples(Protocol):
    def __len__(self) -> int:
        """The number of samples in one epoch."""

    def sample(self, index: int, random: torch.Generator) -> dict[str, Tensor]:
        """Sample number `index`; everything random in it comes from `random`."""


class FramePairs:
    """Samples for the renderer: two frames of one clip, and a frame of another person.

    source, driving, other (3,S,S), S the size of prepared frames; source_motion, driving_motion (motion_size); mask
    (1,S,S) of the driving frame's eyes and mouth, all 0 if they are unknown. `other` equals `source` if the data shows
    only one person. held_out: share of each clip, at its end, that is kept out of training.
    """

    def __init__(self, clips: list[PreparedClip], config: RendererConfig, held_out: float = 0.0):
        self.clips, self.size = clips, max(config.input_size, config.output_size)
        self.lengths = [max(1, round(len(clip) * (1 - held_out))) for clip in clips]
        self.starts = [0, *itertools.accumulate(self.lengths)]
        self.several_people = len({clip.person for clip in clips}) > 1

    def unseen(self, count: int) -> list[dict[str, Tensor]]:
        """`count` samples of the held-out frames, evenly spread, each with its clip's first frame as the source."""
        held_out = [
            (number, frame)
            for number, clip in enumerate(self.clips)
            for frame in range(self.lengths[number], len(clip))
        ]
        chosen = held_out[:: max(1, len(held_out) // count)][:count]
        return [self._pair(self.clips[number], 0, frame, self.clips[number].frame(0)) for number, frame in chosen]

    @property
    def with_masks(self) -> bool:
        return any("points" in clip.names for clip in self.clips)

    def __len__(self) -> int:
        return self.starts[-1]

    def sample(self, index: int, random: torch.Generator) -> dict[str, Tensor]:
        number = bisect.bisect_right(self.starts, index) - 1
        clip, driving = self.clips[number], index - self.starts[number]
        source = _draw(self.lengths[number], random)
        third = clip
        while self.several_people and third.person == clip.person:
            third = self.clips[_draw(len(self.clips), random)]
        other = clip.frame(source) if third is clip else third.frame(_draw(len(third), random))
        return self._pair(clip, source, driving, other)

    def _pair(self, clip: PreparedClip, source: int, driving: int, other: Tensor) -> dict[str, Tensor]:
        def row(name: str, number: int) -> Tensor:
            # a renderer that also trains its motion encoder needs frames alone
            return clip.rows(name, number, number + 1)[0] if name in clip.names else torch.zeros(0)

        return {
            "source": self._to_chw(clip.frame(source)),
            "driving": self._to_chw(clip.frame(driving)),
            "other": self._to_chw(other),
            "source_motion": row("motion", source),
            "driving_motion": row("motion", driving),
            "mask": face_mask(row("points", driving), self.size),
        }

    def _to_chw(self, frame: Tensor) -> Tensor:
        return resize(frame, self.size)[0].movedim(-1, 0)


def face_mask(points: Tensor, size: int) -> Tensor:
    """A mask (1,size,size) of eyes and mouth from points (5,2) in 0..1 of the frame: eyes, nose, corners of the mouth.

    All 0 if there are no points or they are NaN.
    """
    mask = torch.zeros(1, size, size)
    if not len(points) or not points.isfinite().all():
        return mask
    first, second, _, left, right = (points * size).tolist()
    span = ((first[0] - second[0]) ** 2 + (first[1] - second[1]) ** 2) ** 0.5
    boxes = [(*eye, 0.35 * span, 0.25 * span) for eye in (first, second)]
    middle = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    # the corners lie a little above the middle of an open mouth
    boxes.append((middle[0], middle[1] + 0.1 * span, abs(right[0] - left[0]) / 2 + 0.2 * span, 0.4 * span))
    for x, y, across, down in boxes:
        top, bottom, west, east = (max(0, round(v)) for v in (y - down, y + down, x - across, x + across))
        mask[:, top:bottom, west:east] = 1
    return mask


class MotionWindows:
    """Samples for the generator: windows of motion with the context before them, and everything random in the loss.

    With L = context + window: motion (L,motion_size), audio (L,hidden_size), pose (L,3), cam (L,3), gaze (L,2);
    reference (motion_size): the motion of a random frame of the clip; keep (L,4): 1 where the model gets audio, pose,
    cam, gaze; context (1,): 1 with a context, 0 for the first window of a clip, which has zeros before it; noise
    (window,motion_size); time ().
    """

    def __init__(self, clips: list[PreparedClip], config: GeneratorConfig):
        self.config = config
        self.clips = [clip for clip in clips if len(clip) >= config.window and "audio" in clip.names]
        if not self.clips:
            raise InputError(
                f"The generator trains on clips of {config.window / 25:g} s or more with audio, and there are none: "
                f"prepare longer videos that have sound."
            )
        if (size := self.clips[0].rows("audio", 0, 1).shape[1]) != config.audio.hidden_size:
            raise InputError(
                f"The audio features have {size} values a frame, this generator needs {config.audio.hidden_size}: "
                f"prepare the data with the generator that you train."
            )
        # an epoch draws from each clip once per window in it
        self.order = [clip for clip in self.clips for _ in range(len(clip) // config.window)]

    def __len__(self) -> int:
        return len(self.order)

    def sample(self, index: int, random: torch.Generator) -> dict[str, Tensor]:
        clip, config = self.order[index], self.config
        start = _draw(len(clip) - config.window + 1, random)
        dropped = torch.rand((), generator=random) < CONTEXT_DROPOUT
        with_context = start >= config.context and not dropped
        start = start if with_context or start >= config.context else 0

        def rows(name: str, width: int) -> Tensor:
            if name not in clip.names:
                return torch.zeros(config.context + config.window, width)
            part = clip.rows(name, max(0, start - config.context), start + config.window)
            return torch.cat([part.new_zeros(config.context + config.window - len(part), width), part])

        widths = {"audio": config.audio.hidden_size, "pose": 3, "cam": 3, "gaze": 2}
        keep = torch.ones(config.context + config.window, len(CONDITIONS))
        for number, name in enumerate(CONDITIONS):
            if name not in clip.names:
                keep[:, number] = 0
            # guidance drops the speech of the window only, but all of a control
            elif torch.rand((), generator=random) < CONDITION_DROPOUT:
                keep[config.context if name == "audio" else 0 :, number] = 0
        if not with_context:
            keep[: config.context] = 0
        reference = _draw(len(clip), random)
        return {
            "motion": rows("motion", config.motion_size),
            **{name: rows(name, width) for name, width in widths.items()},
            "reference": clip.rows("motion", reference, reference + 1)[0],
            "keep": keep,
            "context": torch.tensor([float(with_context)]),
            "noise": torch.randn(config.window, config.motion_size, generator=random),
            "time": torch.rand((), generator=random),
        }


def batches(samples: Samples, size: int, seed: int = 0, workers: int = 0) -> Batches:
    """Batches of `size` for each process; every epoch has its own order.

    A step of n processes sees the samples that one process would see with n times the size.
    """

    def from_step(step: int, process: int, processes: int) -> Iterator[dict[str, Tensor]]:
        positions = _StepBatches(step, process, processes, size)
        options = {"persistent_workers": True, "worker_init_fn": _ignore_interrupts} if workers else {}
        shuffled = _ShuffledSamples(samples, seed)
        yield from DataLoader(shuffled, batch_sampler=positions, num_workers=workers, **options)

    return from_step


@dataclass(frozen=True)
class _StepBatches:
    """For each step, the positions in the training of this process's samples."""

    step: int
    process: int
    processes: int
    size: int

    def __iter__(self) -> Iterator[range]:
        start = (self.step * self.processes + self.process) * self.size
        while True:
            yield range(start, start + self.size)
            start += self.processes * self.size


class _ShuffledSamples(torch.utils.data.Dataset):
    """Samples by their position in the training; each epoch is shuffled anew."""

    def __init__(self, samples: Samples, seed: int):
        self.samples, self.seed = samples, seed
        self._epoch, self._order = None, None

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        epoch, index = divmod(position, len(self.samples))
        if epoch != self._epoch:
            order = torch.Generator().manual_seed(seed_of(self.seed, epoch))
            self._epoch, self._order = epoch, torch.randperm(len(self.samples), generator=order)
        random = torch.Generator().manual_seed(seed_of(self.seed, position, 0))
        return self.samples.sample(int(self._order[index]), random)


def _draw(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=random))


def _ignore_interrupts(worker: int) -> None:
    """Leaves Ctrl-C to the training loop, which stops after its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
