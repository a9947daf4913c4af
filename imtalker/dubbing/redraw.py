"""The second pass: frames with a face are encoded, rendered with another mouth, and pasted back."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..face.crop import Crop, apply_crop, paste_back
from ..media.image import to_float
from ..media.resampling import BlockReader
from ..models.renderer import Renderer, Source
from ..motion.fit import frames_at, part_of
from ..motion.motion import Motion
from ..pipeline import SEGMENT_FRAMES
from .mouth import Mouth
from .plan import DUBBED, Plan

log = logging.getLogger("imtalker")

MASK_SIDE = 256  # of the mask over the square
BYTES_PER_PIXEL = 60  # of a whole frame that is pasted into
BACKWARDS = 256 << 20  # bytes of frames, 8 bits a colour, that are kept to show them backwards


@dataclass(frozen=True)
class Pasting:
    """What is pasted back.

    lower_face: 0..1, how much of it: only the lips, mouth and chin (0.5), or everything below the eyes.
    colour_match: 0..1, see `paste_back`.
    mask: (N or 1,h,w), 0..1, over the whole picture, one for each frame of the clip or for all; instead of the lower
    face. It fades at the border of the square, too.
    """

    lower_face: float = 0.5
    colour_match: float = 0.0
    mask: Tensor | None = None

    def __post_init__(self):
        for what, value in (("lower_face", self.lower_face), ("colour_match", self.colour_match)):
            if not 0 <= value <= 1:
                raise InputError(f"The {what} must be from 0 to 1, not {value:g}.")


def lower_face(crop: Crop, face: Sequence[float], amount: float, size: int = MASK_SIDE) -> Tensor:
    """The soft mask (size,size), 0..1, over a crop, for a face with this centre (x, y) and side of its box.

    amount: 0..1, as in `Pasting`. It rises from exactly 0.
    """
    x, y, side = face
    line = (torch.arange(size) + 0.5) * crop.size / size
    u, v = (crop.x + line - x) / side, (crop.y + line - y) / side
    # in sides of the box, in which the mouth is a quarter below the centre and the chin a half
    across, down, middle = 0.30 + 0.45 * amount, 0.18 + 0.24 * amount, 0.31 + 0.04 * amount
    away = (u / across).abs()[None] ** 2.5 + ((v - middle) / down).abs()[:, None] ** 2.5
    t = (3.3 * (1 - away**0.4)).clamp(0, 1)
    return t * t * (3 - 2 * t)


class Redrawing:
    """Makes the frames of a dubbed clip. plan: of these frames."""

    def __init__(
        self,
        renderer: Renderer,
        frames: Iterable[Tensor],
        plan: Plan,
        pasting: Pasting,
        batch_size: int | None = None,
    ):
        self._renderer, self._frames, self._plan, self._pasting = renderer, frames, plan, pasting
        each = renderer.bytes_per_image + renderer.bytes_per_frame + BYTES_PER_PIXEL * plan.height * plan.width
        self._batch = batch_size or renderer.batch_size(each)
        self.memory = (self._batch + 1) * each  # bytes that a block works in; one more for what every block takes
        self._device = renderer.motion_decoder.const.device
        self._still: tuple[int, Source] | None = None  # the latest frame that was encoded alone
        self.turned: set[int] = set()  # frames so far in which the head is turned away
        masks = pasting.mask
        if masks is not None and 1 != len(masks) < len(plan):
            raise InputError(f"{len(masks)} masks do not match the clip's {len(plan)} frames: give 1, or one for each.")

    def source(self, number: int) -> Source:
        """The Source of one frame."""
        return self._encode([number], [next(part_of(self._frames, number, number + 1))])

    def stream(
        self, mouth: Mouth, wanted: Iterable[Motion], at: Tensor, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Frames (n,H,W,3), RGB in 0..1, on the renderer's device, and the masks (n,H,W) of what was pasted.

        wanted: from the mouth, a latent for each frame. at: for each frame, the clip's frame. first: the first that is
        made.
        """
        poses = self._poses() if mouth.steadies else {}
        wishes = BlockReader((block.latents for block in wanted), dim=0)
        numbers = at.tolist()[first:]
        keep = max(8, BACKWARDS // (3 * self._plan.height * self._plan.width))
        given = self._blocks(zip(numbers, frames_at(self._frames, numbers, keep)), first)
        position = first
        # the next block is decoded while this one is rendered
        with ThreadPoolExecutor(1) as thread:
            upcoming = thread.submit(next, given, None)
            while (block := upcoming.result()) is not None:
                upcoming = thread.submit(next, given, None)
                numbers, frames = zip(*block)
                rows = wishes.read(position, position + len(block))
                position += len(block)
                yield self._redraw(mouth, poses, list(numbers), list(frames), rows)
        if self.turned:
            log.warning("%s", self.report())

    def report(self) -> str:
        """The plan's report, and how many frames are also left alone because the head is turned away."""
        turned = f" In {len(self.turned)} of the dubbed frames the head is turned away: they stay as they are."
        return self._plan.report() + (turned if self.turned else "")

    def _poses(self) -> dict[int, Tensor]:
        """The latent (1,size) of the first frame that is dubbed in each shot, by the shot's number."""
        shots, firsts = self._plan.shots, {}
        for number in (self._plan.reasons == DUBBED).nonzero().flatten().tolist():
            firsts.setdefault(int(shots[number]), number)
        return {shot: self.source(number).motion.float().cpu() for shot, number in firsts.items()}

    def _blocks(self, frames: Iterator[tuple[int, Tensor]], position: int) -> Iterator[list[tuple[int, Tensor]]]:
        while block := list(itertools.islice(frames, min(self._batch, SEGMENT_FRAMES - position % SEGMENT_FRAMES))):
            position += len(block)
            yield block

    def _redraw(
        self, mouth: Mouth, poses: dict[int, Tensor], numbers: list[int], frames: list[Tensor], wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        pictures = torch.stack([to_float(frame.to(self._device)) for frame in frames])
        masks = pictures.new_zeros(pictures.shape[:3])
        rows = [row for row, number in enumerate(numbers) if self._plan.reasons[number] == DUBBED]
        if not rows:
            return pictures, masks
        chosen = [numbers[row] for row in rows]
        source = self._encode(chosen, pictures[rows])
        own = Motion(source.motion.float().cpu().expand(len(chosen), -1), self._plan.fps, self._renderer.generation)
        pose = torch.cat([poses[int(self._plan.shots[number])] for number in chosen]) if poses else None
        facing = mouth.facing(own)
        self.turned.update(number for number, share in zip(chosen, facing.tolist()) if share == 0)
        motion = mouth.change(own, wanted[rows], self._plan.share[chosen] * facing, pose)
        faces = (face for block in self._renderer.stream(source, motion, self._batch) for face in block)
        for row, number, face, share in zip(rows, chosen, faces, facing.tolist()):
            opacity = float(self._plan.opacity[number]) * share
            pictures[row], masks[row] = self._paste(pictures[row], face, number, opacity)
        return pictures, masks

    def _encode(self, numbers: Sequence[int], pictures: Iterable[Tensor]) -> Source:
        """A source for each frame, or one for all if all are the same."""
        still = len(set(numbers)) == 1
        if still and self._still and self._still[0] == numbers[0]:
            return self._still[1]
        pairs, size = zip(numbers, pictures), self._renderer.config.input_size
        squares = [
            apply_crop(to_float(picture)[None], self._plan.crop(number), size)
            for number, picture in itertools.islice(pairs, 1 if still else None)
        ]
        source = self._renderer.encode_source(torch.cat(squares), checked=True, batch_size=self._batch)
        self._still = (numbers[0], source) if still else None
        return source

    def _paste(self, picture: Tensor, face: Tensor, number: int, opacity: float) -> tuple[Tensor, Tensor]:
        """The frame (H,W,3) with its new face, and how much of each pixel is new (H,W)."""
        crop, plan, given = self._plan.crop(number), self._plan, self._pasting.mask
        if given is None:
            mask = lower_face(crop, plan.faces[number].tolist(), self._pasting.lower_face)
        else:
            given = given[number if len(given) > 1 else 0].to(picture)[None, None]
            given = F.interpolate(given, picture.shape[:2], mode="bilinear", align_corners=False)[0, 0]
            mask = apply_crop(given[None, ..., None], crop, MASK_SIDE)[0, ..., 0]
        mask = mask * opacity
        pasted, alpha = paste_back(picture[None], face[None], crop, mask[None], colour_match=self._pasting.colour_match)
        if given is None:
            return pasted[0], alpha[0]
        # resampling spreads the mask by a pixel or two
        inside = given > 0
        return torch.where(inside[..., None], pasted[0], picture), alpha[0] * inside
