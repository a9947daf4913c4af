"""Where a clip cuts to another picture, and which face is followed through its shots.

Frames are (H,W,3), uint8 or float in 0..1. Cuts are seen on copies of SIDE x SIDE pixels.
"""

from collections import deque
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..face.crop import Box
from ..face.follow import choose_face, still_there
from ..media.image import to_float

SIDE = 24
# Mean differences of small copies, of colours in 0..1. A step that is larger than LEAST, and JUMP times as large as the
# RECENT ones, is a cut: a quick movement builds up. One of CERTAIN is a cut in any case. Frames that differ less than
# SAME show the same view.
LEAST, JUMP, RECENT, CERTAIN = 0.04, 4, 3, 0.12
SAME = 0.1


def small_copy(frame: Tensor) -> Tensor:
    """(3,SIDE,SIDE), 0..1."""
    # a few pixels of each cell are enough, and quicker than all of a large frame
    rows, columns = (max(1, side // (4 * SIDE)) for side in frame.shape[:2])
    return F.adaptive_avg_pool2d(to_float(frame[::rows, ::columns]).cpu().movedim(-1, 0), SIDE)


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().mean().item()


class Cuts:
    """Told one small copy after another, says which ones begin a shot."""

    def __init__(self):
        self._last: Tensor | None = None
        self._steps: deque[float] = deque(maxlen=RECENT)

    def __call__(self, small: Tensor) -> bool:
        last, self._last = self._last, small
        if last is None:
            return False
        step = difference(small, last)
        cut = step > max(LEAST, min(JUMP * max(self._steps, default=0), CERTAIN))
        if cut:
            self._steps.clear()
        else:
            self._steps.append(step)
        return cut


class Follower:
    """Follows one face through the frames of a clip.

    which, index: as for `choose_face`, in the first frame that shows a face.
    every_shot: choose anew after each cut; otherwise only shots of the first view are followed, and others are not.
    """

    def __init__(self, which: str, index: int, every_shot: bool):
        self._which, self._index, self._every_shot = which, index, every_shot
        self._last: Box | None = None
        self._gap = 0
        self._view: Tensor | None = None  # the latest frame that showed the face
        self.elsewhere = False  # in a shot that is not followed

    def __call__(self, boxes: Sequence[Box], size: tuple[int, int], small: Tensor, cut: bool) -> Box | None:
        """The face in the next frame, of `size` (H,W)."""
        if cut and self._every_shot:
            self._last = None
        elif cut and self._view is not None:
            self.elsewhere = difference(small, self._view) > SAME
            self._gap = 0
        if self.elsewhere:
            return None
        box = self._choose(boxes, size) if self._last is None else still_there(boxes, self._last, self._gap)
        if box is None:
            self._gap += 1
        else:
            self._last, self._gap, self._view = box, 0, small
        return box

    def _choose(self, boxes: Sequence[Box], size: tuple[int, int]) -> Box | None:
        if not boxes:
            return None
        try:
            return choose_face(boxes, self._which, self._index, size)
        except InputError:
            if self._view is None:
                raise
            return None  # a later shot shows fewer faces


def shot_numbers(cuts: Sequence[bool]) -> Tensor:
    """(n,): the number of each frame's shot."""
    return torch.tensor(cuts, dtype=torch.int32).cumsum(0)
