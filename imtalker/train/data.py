"""Prepared clips (prepare.py) as training samples, and batches of them in an order that a seed decides.

A sample is drawn with a generator of its own, seeded by the place it has in the training: any step can be asked for.
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

TRACKS = "tracks.safetensors"  # written last: a clip's folder without it is unfinished
FRAMES = "frames"
CONDITIONS = ("audio", "pose", "cam", "gaze")


@dataclass(frozen=True)
class PreparedClip:
    """One clip's folder, read when it is asked for; frames and rows are 25 a second."""

    folder: Path

    @cached_property
    def metadata(self) -> dict[str, str]:
        with self._open() as file:
            return file.metadata()

    @cached_property
    def names(self) -> frozenset[str]:
        """Of the rows there are: motion (T,motion_size), audio (T,hidden_size), pose, cam, gaze, points (T,5,2)."""
        with self._open() as file:
            return frozenset(file.keys())

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read from the file each time: many hours of audio features are more than a memory holds."""
        with self._open() as file:
            return file.get_slice(name)[start:stop]

    def _open(self):
        try:
            return safe_open(str(self.folder / TRACKS), "pt")
        except (OSError, SafetensorError) as error:
            raise InputError(f"{self.folder} is damaged ({error}): delete it and prepare the clip again.") from error

    @property
    def person(self) -> str:
        return self.metadata["person"]

    def __len__(self) -> int:
        return int(self.metadata["frames"])

    def frame(self, number: int) -> Tensor:
        """(1,S,S,3), RGB in 0..1."""
        return read_image(self.folder / FRAMES / f"{number:06}.jpg")


def find_clips(folder: str | Path) -> list[PreparedClip]:
    """The finished clips of a dataset folder, by name. InputError where there is none, or they are of other models."""
    clips = [PreparedClip(path.parent) for path in sorted(Path(folder).glob(f"*/{TRACKS}"))]
    if not clips:
        raise InputError(f"{folder} holds no prepared clips: run python -m imtalker prepare VIDEOS {folder} first.")
    for name in ("size", "generation", "renderer", "generator"):
        if len(found := {clip.metadata.get(name) for clip in clips}) > 1:
            raise InputError(
                f"The clips in {folder} are of different preparations ({name}: {', '.join(sorted(map(str, found)))}): "
                f"prepare all with the same models."
            )
    return clips


class Samples(Protocol):
    def __len__(self) -> int:
        """How many samples are one round through the data."""

    def sample(self, index: int, random: torch.Generator) -> dict[str, Tensor]:
        """Number `index`; all that is drawn comes from `random`."""


class FramePairs:
    """For the renderer: two frames of one clip, and a frame of another person where there is one.

    source, driving, other (3,S,S), S the size of prepared frames; source_motion, driving_motion (motion_size);
    mask (1,S,S) of the driving frame's eyes and mouth, empty where they are not known. `other` is `source` where the
    data shows one person only. held_out: share of each clip, at its end, that is not shown.
    """

    def __init__(self, clips: list[PreparedClip], config: RendererConfig, held_out: float = 0.0):
        self.clips, self.size = clips, max(config.input_size, config.output_size)
        self.lengths = [max(1, round(len(clip) * (1 - held_out))) for clip in clips]
        self.starts = [0, *itertools.accumulate(self.lengths)]
        self.several_people = len({clip.person for clip in clips}) > 1

    def unseen(self, count: int) -> list[dict[str, Tensor]]:
        """`count` samples of the held out frames, evenly spread, each with its clip's first frame as the source."""
        places = [
            (number, frame)
            for number, clip in enumerate(self.clips)
            for frame in range(self.lengths[number], len(clip))
        ]
        chosen = places[:: max(1, len(places) // count)][:count]
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
            # frames alone will do for a renderer whose motion encoder learns as well
            return clip.rows(name, number, number + 1)[0] if name in clip.names else torch.zeros(0)

        return {
            "source": self._picture(clip.frame(source)),
            "driving": self._picture(clip.frame(driving)),
            "other": self._picture(other),
            "source_motion": row("motion", source),
            "driving_motion": row("motion", driving),
            "mask": face_mask(row("points", driving), self.size),
        }

    def _picture(self, frame: Tensor) -> Tensor:
        return resize(frame, self.size)[0].movedim(-1, 0)


def face_mask(points: Tensor, size: int) -> Tensor:
    """(1,size,size), 1 on eyes and mouth, from (5,2) in 0..1 of the picture: eyes, nose, corners of the mouth.

    Nothing is 1 where there are no points, or they are not numbers.
    """
    mask = torch.zeros(1, size, size)
    if not len(points) or not points.isfinite().all():
        return mask
    first, second, _, left, right = (points * size).tolist()
    span = ((first[0] - second[0]) ** 2 + (first[1] - second[1]) ** 2) ** 0.5
    boxes = [(*eye, 0.35 * span, 0.25 * span) for eye in (first, second)]
    middle = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    # the corners are a little above an open mouth's middle
    boxes.append((middle[0], middle[1] + 0.1 * span, abs(right[0] - left[0]) / 2 + 0.2 * span, 0.4 * span))
    for x, y, across, down in boxes:
        top, bottom, west, east = (max(0, round(v)) for v in (y - down, y + down, x - across, x + across))
        mask[:, top:bottom, west:east] = 1
    return mask


class MotionWindows:
    """For the generator: windows of a clip's motion with the context before them, and all that is random in the loss.

    With L = context + window: motion (L,motion_size), audio (L,hidden_size), pose (L,3), cam (L,3), gaze (L,2),
    reference (motion_size): a frame of the same clip; keep (L,4): 1 where audio, pose, cam, gaze are shown to the
    model; context (1,): 1 where there is one, otherwise the window is the first of its clip, with zeros before it;
    noise (window,motion_size), time ().
    """

    def __init__(self, clips: list[PreparedClip], config: GeneratorConfig, condition_dropout=0.1, context_dropout=0.5):
        self.config = config
        self.clips = [clip for clip in clips if len(clip) >= config.window and "audio" in clip.names]
        self.condition_dropout, self.context_dropout = condition_dropout, context_dropout
        if not self.clips:
            raise InputError(
                f"No clip is as long as {config.window / 25:g} s and has sound: the generator needs such ones."
            )
        if (size := self.clips[0].rows("audio", 0, 1).shape[1]) != config.audio.hidden_size:
            raise InputError(
                f"The audio features have {size} values a frame: prepare with the generator to be trained."
            )
        # a clip comes once in a round for each of its windows
        self.order = [clip for clip in self.clips for _ in range(len(clip) // config.window)]

    def __len__(self) -> int:
        return len(self.order)

    def sample(self, index: int, random: torch.Generator) -> dict[str, Tensor]:
        clip, config = self.order[index], self.config
        start = _draw(len(clip) - config.window + 1, random)
        dropped = torch.rand((), generator=random) < self.context_dropout
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
            # what guidance takes away: of the speech the window's alone, of a control everything
            elif torch.rand((), generator=random) < self.condition_dropout:
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
    """Batches of `size` for each process: round after round, each in an order of its own.

    A step of n processes sees the samples that one process with n times the size would.
    """

    def from_step(step: int, process: int, processes: int) -> Iterator[dict[str, Tensor]]:
        places = _Places(step, process, processes, size)
        how = {"persistent_workers": True, "worker_init_fn": _ignore_interrupts} if workers else {}
        yield from DataLoader(_Placed(samples, seed), batch_sampler=places, num_workers=workers, **how)

    return from_step


@dataclass(frozen=True)
class _Places:
    """For each step, the places in the training of this process's samples."""

    step: int
    process: int
    processes: int
    size: int

    def __iter__(self) -> Iterator[range]:
        start = (self.step * self.processes + self.process) * self.size
        while True:
            yield range(start, start + self.size)
            start += self.processes * self.size


class _Placed(torch.utils.data.Dataset):
    """Samples by their place."""

    def __init__(self, samples: Samples, seed: int):
        self.samples, self.seed = samples, seed
        self._round, self._order = None, None

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        number, index = divmod(place, len(self.samples))
        if number != self._round:
            order = torch.Generator().manual_seed(seed_of(self.seed, number))
            self._round, self._order = number, torch.randperm(len(self.samples), generator=order)
        random = torch.Generator().manual_seed(seed_of(self.seed, place, 0))
        return self.samples.sample(int(self._order[index]), random)


def _draw(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=random))


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C is for the loop, which ends after its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
