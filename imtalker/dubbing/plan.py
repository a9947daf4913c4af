"""What is done with every frame of a clip: where its face is, how much of it is dubbed, or why it is left alone."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError
from ..face.crop import CROP_SCALE, Box, Crop, centre_crop, framed
from ..face.detectors import Fetch, open_detector
from ..face.follow import FaceNotFound, smooth_boxes, steady_box
from ..media.image import to_float
from ..motion.inertia import fading
from .shots import Cuts, Follower, shot_numbers, small_copy

log = logging.getLogger("imtalker")

LOST = 0.2  # seconds without the face that are bridged
# Seconds over which, beside frames that are left alone, the pasted face appears and the mouth changes over.
APPEARING, JOINING = 0.16, 0.48
LOOSE = 1.1  # where the face itself is not looked for, the mask leaves so much room for its movement
FOLLOWING = 0.08  # seconds, standard deviation: the mask stays nearer to the face than the crop does

Tracking = Literal["smooth", "steady"]
Shots = Literal["same view", "every shot"]
DUBBED, NO_FACE, OTHER_SHOT = range(3)


@dataclass(frozen=True)
class Following:
    """Which face is dubbed and how it is followed.

    which, index: the face, as for `choose_face`, chosen in the first frame that shows one.
    crop: "auto" finds it; "none" takes the middle square of a clip that is framed already, or a Crop.
    tracking: the square moves with the head "smooth"ly, or stays "steady" for a whole shot. scale: of the square.
    shots: only those of the "same view" as the first one with the face, or "every shot", where it is chosen anew.
    """

    which: str = "largest"
    index: int = 0
    crop: Crop | str = "auto"
    tracking: Tracking = "smooth"
    scale: float = CROP_SCALE
    shots: Shots = "same view"

    def __post_init__(self):
        for what, value, allowed in (
            ("tracking", self.tracking, get_args(Tracking)),
            ("shots", self.shots, get_args(Shots)),
            ("crop", "none" if isinstance(self.crop, Crop) else self.crop, ("auto", "none")),
        ):
            if value not in allowed:
                raise InputError(f"There is no {what} {value!r}: use {' or '.join(allowed)}.")


@dataclass(frozen=True)
class Plan:
    """For each of n frames of height x width at `fps`; a frame that is left alone has an opacity of 0."""

    height: int
    width: int
    fps: float
    squares: Tensor  # (n,3): x, y and side of the crop
    faces: Tensor  # (n,3): centre and side of the face's box
    opacity: Tensor  # (n,), 0..1, of the pasted face
    share: Tensor  # (n,), 0..1, of the speech in the mouth
    shots: Tensor  # (n,), numbers
    reasons: Tensor  # (n,), DUBBED, NO_FACE or OTHER_SHOT

    def __len__(self) -> int:
        return len(self.squares)

    def crop(self, number: int) -> Crop:
        return Crop(*self.squares[number].tolist(), self.height, self.width)

    @property
    def first(self) -> int:
        """The first frame that is dubbed."""
        return int((self.reasons == DUBBED).nonzero()[0])

    @property
    def left_alone(self) -> bool:
        """Whether there are frames that are not dubbed."""
        return bool((self.reasons != DUBBED).any())

    def report(self) -> str:
        """How many frames are dubbed, and how many are left alone and why, in a sentence."""
        left = {NO_FACE: "do not show the face", OTHER_SHOT: "belong to another shot"}
        counts = {what: int((self.reasons == reason).sum()) for reason, what in left.items()}
        parts = [f"{count} that {what}" for what, count in counts.items() if count]
        said = f"{int((self.reasons == DUBBED).sum())} of {len(self)} frames are dubbed"
        if not parts:
            return f"{said}."
        stretches = [f"{part.start + 1} to {part.stop}" for part in _runs(self.reasons != DUBBED)]
        more = f" and {len(stretches) - 5} more stretches" if len(stretches) > 5 else ""
        return f"{said}; left as they are: {' and '.join(parts)} (frames {', '.join(stretches[:5])}{more})."


def study(
    frames: Iterable[Tensor],
    fps: float,
    following: Following,
    on_frame: Callable[[], None] = lambda: None,
    model_dirs: Sequence[str | Path] = (),
    fetch: Fetch | None = None,
) -> Plan:
    """Looks once at every frame (H,W,3), uint8 or float in 0..1, of a clip.

    on_frame: called for each. model_dirs, fetch: as for `open_detector`. FaceNotFound, DetectorMissing. InputError: no
    frames, no such face.
    """
    detect = open_detector(model_dirs, fetch) if following.crop == "auto" else None
    is_cut, follow = Cuts(), Follower(following.which, following.index, following.shots == "every shot")
    boxes, cuts, elsewhere, size = [], [], [], None
    for frame in frames:
        size = size or tuple(frame.shape[:2])
        small = small_copy(frame)
        cuts.append(is_cut(small))
        found = detect(to_float(frame)) if detect else [_face_of(following.crop, *size)]
        boxes.append(follow(found, size, small, cuts[-1]))
        elsewhere.append(follow.elsewhere)
        on_frame()
    if not boxes:
        raise InputError("The clip has no frames: choose another.")
    if not any(boxes):
        raise FaceNotFound(f"No face was found in any of {len(boxes)} frames: use a video with a visible face")
    return _plan(boxes, shot_numbers(cuts), elsewhere, size, fps, following)


def _face_of(crop: Crop | str, height: int, width: int) -> Box:
    """The box of a face that a square is framed around as in training."""
    crop = _given(crop, height, width)
    x, y, half = crop.x + crop.size / 2, crop.y + crop.size / 2, crop.size / CROP_SCALE / 2
    return Box(x - half, y - half, x + half, y + half)


def _given(crop: Crop | str, height: int, width: int) -> Crop:
    return crop if isinstance(crop, Crop) else centre_crop(height, width)


def _plan(
    boxes: list[Box | None],
    shots: Tensor,
    elsewhere: list[bool],
    size: tuple[int, int],
    fps: float,
    following: Following,
) -> Plan:
    count = len(boxes)
    squares, faces = torch.zeros(count, 3, dtype=torch.float64), torch.zeros(count, 3)
    opacity, share = torch.zeros(count), torch.zeros(count)
    reasons = torch.tensor([OTHER_SHOT if other else NO_FACE for other in elsewhere], dtype=torch.int8)
    stretches = list(_stretches(boxes, shots, max(1, round(LOST * fps))))
    for part in stretches:
        rows = slice(part.start, part.stop)
        own = boxes[rows]
        if following.crop != "auto":
            crops = [_given(following.crop, *size)] * len(part)
        elif following.tracking == "smooth":
            crops = [framed(box, *size, following.scale) for box in smooth_boxes(own, fps)]
        else:
            again = following.shots == "every shot"  # else all stretches have one view
            same = [box for box, shot in zip(boxes, shots) if not again or shot == shots[part.start]]
            crops = [framed(steady_box(same), *size, following.scale)] * len(part)
        squares[rows] = torch.tensor([(crop.x, crop.y, crop.size) for crop in crops], dtype=torch.float64)
        nearer = smooth_boxes(own, fps, FOLLOWING)
        room = 1 if following.crop == "auto" else LOOSE
        faces[rows] = torch.tensor([(*box.center, room * box.side) for box in nearer])
        # beside a cut, or an end of the clip, nothing is to be joined
        before = part.start > 0 and shots[part.start - 1] == shots[part.start]
        after = part.stop < count and shots[part.stop] == shots[part.stop - 1]
        opacity[rows] = _rising(len(part), APPEARING * fps, before, after)
        share[rows] = _rising(len(part), JOINING * fps, before, after)
        reasons[rows] = DUBBED
    return Plan(*size, fps, squares, faces, opacity, share, shots, reasons)


def _stretches(boxes: list[Box | None], shots: Tensor, longest_gap: int) -> Iterator[range]:
    """Stretches of frames of one shot that show the face, with no more than short gaps."""
    start = last = None
    for number, box in enumerate(boxes):
        if box is None:
            continue
        if start is not None and (shots[number] != shots[last] or number - last - 1 > longest_gap):
            yield range(start, last + 1)
            start = None
        start, last = number if start is None else start, number
    if start is not None:
        yield range(start, last + 1)


def _rising(count: int, length: float, before: bool, after: bool) -> Tensor:
    """(count,): 1; rising from nearly 0 over `length` frames at the start (before), falling at the end (after)."""
    rise = 1 - fading(count, max(1, round(length) + 1), start=1)
    whole = torch.ones(count)
    return (rise if before else whole) * (rise.flip(0) if after else whole)


def _runs(marked: Tensor) -> list[range]:
    edges = torch.nn.functional.pad(marked.int(), (1, 1)).diff()
    starts, stops = ((edges == step).nonzero().flatten().tolist() for step in (1, -1))
    return [range(start, stop) for start, stop in zip(starts, stops)]
