"""Square crops: cut as the published method does, and pasted back without a seam.

The crop (spec/model.md, "Pictures in") is a square of 1.6 x max(w, h) around the face box of the SFD detector.
Images are float tensors (N, H, W, 3), RGB, 0..1, on any device, where the work is done; positions are pixels from the
image's top left corner.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InputError
from ..media.image import to_float
from .blend import join_seam, match_colour

CROP_SCALE = 1.6  # side of the square over the longer side of the face box, as the weights were trained
MAX_CHANGE = 1 / 6  # share of the side by which a square is moved or shrunk to stay inside the image


@dataclass(frozen=True)
class Box:
    """A face's rectangle in pixels. Scores only rank boxes of the same detector."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float = 1.0

    @property
    def center(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    @property
    def side(self) -> float:
        return max(self.x1 - self.x0, self.y1 - self.y0)

    @property
    def area(self) -> float:
        return (self.x1 - self.x0) * (self.y1 - self.y0)


@dataclass(frozen=True)
class Crop:
    """A square in an image of height x width: top left corner and side in pixels, fractional, may leave the image."""

    x: float
    y: float
    size: float
    height: int
    width: int


def square_crop(box: Box, height: int, width: int, scale: float = CROP_SCALE) -> Crop:
    """The square around a box, `scale` x its longer side; may leave the image. Spec, "Pictures in"."""
    (x, y), size = box.center, scale * box.side
    return Crop(x - size / 2, y - size / 2, size, height, width)


def framed(box: Box, height: int, width: int, scale: float = CROP_SCALE) -> Crop:
    """`square_crop`, kept inside the image where it nearly is: an edge that is repeated shows as streaks in the video.

    A square that leaves the image is moved and shrunk, each by up to MAX_CHANGE of its side; what is still outside
    stays so. The result changes smoothly with the box.
    """
    (x, y), size = box.center, scale * box.side
    shift, lengths = MAX_CHANGE * size, ((x, width), (y, height))
    # the largest square that a centre within reach has room for
    room = min(min(length, 2 * (at + shift), 2 * (length - at + shift)) for at, length in lengths)
    side = min(size, max(room, (1 - MAX_CHANGE) * size))
    x, y = (_moved(at, side, length, shift) for at, length in lengths)
    return Crop(x - side / 2, y - side / 2, side, height, width)


def _moved(centre: float, side: float, length: int, shift: float) -> float:
    """The centre of a square, moved by up to `shift` to be inside a line of `length`, or in its middle if too long."""
    margin = min(side, length) / 2
    nearest = min(max(centre, margin), length - margin)
    return min(max(nearest, centre - shift), centre + shift)


def centre_crop(height: int, width: int) -> Crop:
    """The largest square in the middle of the image, on whole pixels."""
    size = min(height, width)
    return Crop((width - size) // 2, (height - size) // 2, size, height, width)


def apply_crop(images: Tensor, crop: Crop | Sequence[Crop], size: int = 512, pad: str = "edge") -> Tensor:
    """Crops (N, H, W, C) to (N, size, size, C), 0..1, with one crop for all images or one each.

    Antialiased cubic resampling in one step; a crop on whole pixels whose side is `size` is an exact copy. Outside the
    image its edge is repeated, or black if `pad` is "zero". InputError: the number of crops or an image size is wrong.
    """
    crops = _each(crop)
    _check_count("crops", len(crops), len(images))
    out = images.new_empty(len(images), size, size, images.shape[3])
    for number, image in enumerate(images):
        crop = crops[number % len(crops)]
        _check_size(crop, image)
        step = crop.size / size
        rows = _weights(crop.y, step, size, crop.height, pad)
        columns = _weights(crop.x, step, size, crop.width, pad)
        out[number] = _resample(image, rows, columns)
    return out


def cropped_blocks(frames: Iterable[Tensor], crop: Crop, size: int, count: int) -> Iterator[Tensor]:
    """Crops frames (H, W, 3), uint8 or float in 0..1, and yields blocks (n, size, size, 3) of up to `count` frames.

    Frames are cropped before they are stacked, so that a block of large frames needs no more memory than small ones.
    """
    frames = iter(frames)
    while block := [apply_crop(to_float(frame)[None], crop, size) for frame in itertools.islice(frames, count)]:
        yield torch.cat(block)


# all of the square, which was rendered as a whole: an ellipse in it would show the old head beside the new one
SOFT_SQUARE = {"shape": "square", "feather": 0.05, "seam": 1.0}


def paste_back(
    background: Tensor,
    faces: Tensor,
    crop: Crop | Sequence[Crop],
    mask: Tensor | None = None,
    feather: float = 0.1,
    shape: str = "ellipse",
    colour_match: float = 0.0,
    seam: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Pastes faces (N, S, S, 3) back into the images they were cropped from.

    Returns the images (N, H, W, 3) and the masks used (N, H, W).
    background: (N or 1, H, W, 3), the cropped images; unchanged, bit for bit, where the mask is 0.
    The result is on the device of the background; faces and masks may be on another.
    mask: (N or 1, h, w), 0..1, over the crop; None uses `shape`, an "ellipse" or "square" that fills the crop.
    feather: share of the crop's side, 0..0.5, over which the mask rises from exactly 0 at the crop's border; a given
    mask fades there too. There is no fade where the crop leaves the image, since no seam can show there.
    colour_match: 0..1, how closely each face matches the background's colour mean and spread along the soft edge.
    seam: 0..1, how far colours are joined at the soft edge; nothing changes in the middle of the face.
    InputError: counts differ and neither is 1, or the background's size is not the crop's.
    """
    crops, given_masks = _each(crop), _each(mask)
    count = max(len(background), len(faces))
    for what, number in (("backgrounds", len(background)), ("faces", len(faces)), ("crops", len(crops))):
        _check_count(what, number, count)
    _check_count("masks", len(given_masks), count)
    images = background.expand(count, -1, -1, -1).clone()
    masks = images.new_zeros(images.shape[:3])
    for number in range(count):
        crop, given_mask = crops[number % len(crops)], given_masks[number % len(given_masks)]
        _check_size(crop, images[number])
        y0, y1 = max(math.floor(crop.y), 0), min(math.ceil(crop.y + crop.size), crop.height)
        x0, x1 = max(math.floor(crop.x), 0), min(math.ceil(crop.x + crop.size), crop.width)
        if y0 >= y1 or x0 >= x1:
            continue
        face = _to_background(faces[number % len(faces)].to(images.device), crop, y0, y1, x0, x1)
        alpha = _feather(crop, y0, y1, x0, x1, feather, shape if given_mask is None else "square").to(images.device)
        if given_mask is not None:
            given_mask = given_mask[..., None].to(images.device)
            alpha = alpha * _to_background(given_mask, crop, y0, y1, x0, x1)[..., 0]
        region = images[number, y0:y1, x0:x1]
        if colour_match > 0:
            face = face.lerp(match_colour(face, region, 4 * alpha * (1 - alpha)), colour_match)
        if seam > 0:
            depth = _depth(crop, y0, y1, x0, x1).to(images.device)
            face = face.lerp(join_seam(face, region, 4 * alpha * (1 - alpha), depth), seam)
        region.lerp_(face, alpha[..., None])
        masks[number, y0:y1, x0:x1] = alpha
    return images, masks


def _each(value: object) -> Sequence | Tensor:
    return value if isinstance(value, (Sequence, Tensor)) else [value]


def _check_count(what: str, number: int, count: int) -> None:
    if number not in (1, count):
        raise InputError(f"{number} {what} do not match {count} images: use 1 or {count}.")


def _check_size(crop: Crop, image: Tensor) -> None:
    height, width = image.shape[:2]
    if (height, width) != (crop.height, crop.width):
        raise InputError(
            f"The crop belongs to an image of {crop.width}x{crop.height} but this one is {width}x{height}:"
            " connect the image that was cropped."
        )


@lru_cache(maxsize=8)
def _weights(start: float, step: float, count: int, length: int, pad: str) -> tuple[Tensor, int, int]:
    """Resamples a line of `length` pixels to `count` cells, each `step` wide, from `start` on.

    Returns weights (count, hi - lo) and the range lo..hi of pixels they apply to. Keys' cubic, a = -0.5, widened when
    shrinking, as in Pillow and torch's antialias; positions may be fractional.
    """
    centre = start + (torch.arange(count, dtype=torch.float64) + 0.5) * step - 0.5
    stretch = max(step, 1.0)
    taps = torch.floor(centre - 2 * stretch).long()[:, None] + torch.arange(math.ceil(4 * stretch) + 2)
    far = ((taps - centre[:, None]) / stretch).abs()
    near = (1.5 * far - 2.5) * far * far + 1
    weights = torch.where(far <= 1, near, torch.where(far < 2, ((-0.5 * far + 2.5) * far - 4) * far + 2, 0.0))
    weights = weights / weights.sum(1, keepdim=True)
    if pad == "zero":
        weights = weights * ((taps >= 0) & (taps < length))
    taps = taps.clamp(0, length - 1)
    lo, hi = int(taps.min()), int(taps.max()) + 1
    matrix = torch.zeros(count, hi - lo, dtype=torch.float64).scatter_add_(1, taps - lo, weights)
    return matrix.float(), lo, hi


def _resample(image: Tensor, rows: tuple[Tensor, int, int], columns: tuple[Tensor, int, int]) -> Tensor:
    (down, y0, y1), (across, x0, x1) = rows, columns
    channels = image.shape[2]
    # A strided view: a small crop of a very large image must not copy all of it.
    strip = down.to(image.device) @ image.flatten(1)[y0:y1, x0 * channels : x1 * channels]
    return torch.einsum("xw,ywc->yxc", across.to(image.device), strip.view(len(down), x1 - x0, channels)).clamp_(0, 1)


def _to_background(patch: Tensor, crop: Crop, y0: int, y1: int, x0: int, x1: int) -> Tensor:
    """Resamples an image (h, w, C) of the crop onto the pixels y0..y1, x0..x1 of the background."""
    height, width = patch.shape[:2]
    down, across = height / crop.size, width / crop.size
    rows = _weights((y0 - crop.y) * down, down, y1 - y0, height, "edge")
    columns = _weights((x0 - crop.x) * across, across, x1 - x0, width, "edge")
    return _resample(patch, rows, columns)


def _feather(crop: Crop, y0: int, y1: int, x0: int, x1: int, feather: float, shape: str) -> Tensor:
    """The soft mask (y1 - y0, x1 - x0): 0 at the crop's border and outside, 1 from `feather` inwards."""
    v, u = _from_centre(crop, y0, y1, x0, x1)
    width = max(feather, 1 / crop.size)  # at least a pixel, or the edge of a moving crop would crawl

    def rise(depth: Tensor) -> Tensor:
        t = (depth / width).clamp(0, 1)
        return t * t * (3 - 2 * t)

    if shape == "ellipse":
        return rise(0.5 - torch.hypot(u, v))
    if shape == "square":
        return rise(0.5 - u) * rise(0.5 - v)
    raise InputError(f"Unknown mask shape {shape!r}: use ellipse or square.")


def _from_centre(crop: Crop, y0: int, y1: int, x0: int, x1: int) -> tuple[Tensor, Tensor]:
    """How far rows (y1 - y0, 1) and columns (1, x1 - x0) of pixels are from the crop's centre, over its side."""
    v = ((torch.arange(y0, y1) + 0.5 - crop.y) / crop.size - 0.5).abs()[:, None]
    u = ((torch.arange(x0, x1) + 0.5 - crop.x) / crop.size - 0.5).abs()[None]
    return v, u


def _depth(crop: Crop, y0: int, y1: int, x0: int, x1: int) -> Tensor:
    """How far pixels (y1 - y0, x1 - x0) are from the crop's border, over its side."""
    v, u = _from_centre(crop, y0, y1, x0, x1)
    return (0.5 - torch.maximum(u, v)).clamp_min(0)
