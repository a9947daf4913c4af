"""Square crops: cut out of pictures where the published method wants them, and pasted back without a seam.

The crop (spec/model.md, "Pictures in"): a square of 1.6 x max(w, h) around the box that the SFD detector would give.
Pictures are float tensors (N, H, W, 3), RGB, 0..1, on the CPU; positions are pixels from the picture's top left corner.
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

CROP_SCALE = 1.6  # side of the square over the longer side of the face box, as the weights were trained


@dataclass(frozen=True)
class Box:
    """A face's rectangle in pixels; only the order of scores means something, and only within one detector."""

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
    """A square cut from a picture of height x width: corner and side in pixels, fractions allowed, outside allowed."""

    x: float
    y: float
    size: float
    height: int
    width: int


def square_crop(box: Box, height: int, width: int, scale: float = CROP_SCALE) -> Crop:
    """The square of `scale` x the box's longer side around it; it may leave the picture. From spec, "Pictures in"."""
    (x, y), size = box.center, scale * box.side
    return Crop(x - size / 2, y - size / 2, size, height, width)


def centre_crop(height: int, width: int) -> Crop:
    """The largest square in the middle of the picture, on whole pixels."""
    size = min(height, width)
    return Crop((width - size) // 2, (height - size) // 2, size, height, width)


def apply_crop(images: Tensor, crop: Crop | Sequence[Crop], size: int = 512, pad: str = "edge") -> Tensor:
    """Cuts (N, H, W, C) into (N, size, size, C), 0..1, with one crop for all pictures or one for each.

    Antialiased cubic resampling straight from the picture; a crop on whole pixels whose side is `size` is a plain copy.
    Beyond the picture lies its edge, or black where `pad` is "zero". InputError where numbers or picture sizes differ.
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
    """Frames (H, W, 3), uint8 or float in 0..1, cut by one crop into blocks (n, size, size, 3) of up to `count` frames.

    Each frame is cropped before they are stacked, so that a block of large frames costs no more than small ones.
    """
    frames = iter(frames)
    while block := [apply_crop(to_float(frame)[None], crop, size) for frame in itertools.islice(frames, count)]:
        yield torch.cat(block)


def paste_back(
    background: Tensor,
    faces: Tensor,
    crop: Crop | Sequence[Crop],
    mask: Tensor | None = None,
    feather: float = 0.1,
    shape: str = "ellipse",
    colour_match: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Puts faces (N, S, S, 3) back where `crop` took them from: pictures (N, H, W, 3) and the masks used, (N, H, W).

    background: (N or 1, H, W, 3), the pictures the crop belongs to; untouched, to the bit, where the mask is 0.
    mask: (N or 1, h, w), 0..1, over the crop; without one an "ellipse" or "square" that fills the crop.
    feather: share of the crop's side, 0..0.5, over which the mask rises from exactly 0 at the crop's border; a given
    mask fades there too. Where the crop leaves the picture its edge just cuts it: nothing there could show a seam.
    colour_match: 0..1, how far each face takes the background's mean and spread of colour along the mask's soft ring.
    Raises InputError where counts differ and neither is 1, or the background is not the size the crop belongs to.
    """
    crops, masks_given = _each(crop), _each(mask)
    count = max(len(background), len(faces))
    for what, number in (("backgrounds", len(background)), ("faces", len(faces)), ("crops", len(crops))):
        _check_count(what, number, count)
    _check_count("masks", len(masks_given), count)
    images = background.expand(count, -1, -1, -1).clone()
    masks = images.new_zeros(images.shape[:3])
    for number in range(count):
        crop, given = crops[number % len(crops)], masks_given[number % len(masks_given)]
        _check_size(crop, images[number])
        y0, y1 = max(math.floor(crop.y), 0), min(math.ceil(crop.y + crop.size), crop.height)
        x0, x1 = max(math.floor(crop.x), 0), min(math.ceil(crop.x + crop.size), crop.width)
        if y0 >= y1 or x0 >= x1:
            continue
        face = _place(faces[number % len(faces)], crop, y0, y1, x0, x1)
        alpha = _feather(crop, y0, y1, x0, x1, feather, shape if given is None else "square")
        if given is not None:
            alpha = alpha * _place(given[..., None], crop, y0, y1, x0, x1)[..., 0]
        region = images[number, y0:y1, x0:x1]
        if colour_match > 0:
            face = face.lerp(_match_colour(face, region, 4 * alpha * (1 - alpha)), colour_match)
        region.lerp_(face, alpha[..., None])
        masks[number, y0:y1, x0:x1] = alpha
    return images, masks


def _each(value):
    return value if isinstance(value, (Sequence, Tensor)) else [value]


def _check_count(what: str, number: int, count: int) -> None:
    if number not in (1, count):
        raise InputError(f"{number} {what} do not go with {count} pictures: give 1 or {count}.")


def _check_size(crop: Crop, image: Tensor) -> None:
    height, width = image.shape[:2]
    if (height, width) != (crop.height, crop.width):
        raise InputError(
            f"The crop belongs to a picture of {crop.width}x{crop.height} but this one is {width}x{height}:"
            " connect the picture that was cropped."
        )


@lru_cache(maxsize=8)
def _weights(start: float, step: float, count: int, length: int, pad: str) -> tuple[Tensor, int, int]:
    """Cubic weights (count, hi - lo) of samples lo..hi of a line of `length` for `count` cells of `step` from `start`.

    Keys' cubic, a = -0.5, widened when shrinking, as Pillow and torch's antialias do; fractions of a pixel are kept.
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
    # A strided view, so that a corner of a very large picture costs no copy of it.
    strip = down @ image.flatten(1)[y0:y1, x0 * channels : x1 * channels]
    return torch.einsum("xw,ywc->yxc", across, strip.view(len(down), x1 - x0, channels)).clamp_(0, 1)


def _place(patch: Tensor, crop: Crop, y0: int, y1: int, x0: int, x1: int) -> Tensor:
    """A picture (h, w, C) of the whole crop, seen through the pixels y0..y1, x0..x1 of the picture it was cut from."""
    height, width = patch.shape[:2]
    down, across = height / crop.size, width / crop.size
    rows = _weights((y0 - crop.y) * down, down, y1 - y0, height, "edge")
    columns = _weights((x0 - crop.x) * across, across, x1 - x0, width, "edge")
    return _resample(patch, rows, columns)


def _feather(crop: Crop, y0: int, y1: int, x0: int, x1: int, feather: float, shape: str) -> Tensor:
    """The soft mask (y1 - y0, x1 - x0): 0 from the crop's border outwards, 1 from `feather` inwards."""
    v = ((torch.arange(y0, y1) + 0.5 - crop.y) / crop.size - 0.5).abs()[:, None]
    u = ((torch.arange(x0, x1) + 0.5 - crop.x) / crop.size - 0.5).abs()[None]
    width = max(feather, 1 / crop.size)  # at least a pixel, or a moving crop's edge would crawl

    def rise(depth: Tensor) -> Tensor:
        t = (depth / width).clamp(0, 1)
        return t * t * (3 - 2 * t)

    if shape == "ellipse":
        return rise(0.5 - torch.hypot(u, v))
    if shape == "square":
        return rise(0.5 - u) * rise(0.5 - v)
    raise InputError(f"There is no mask shape {shape!r}: use ellipse or square.")


# Oklab, a colour space whose axes are near enough independent to the eye (B. Ottosson, 2020)
RGB_TO_LMS = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LMS_TO_LAB = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def _to_lab(rgb: Tensor) -> Tensor:
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return (linear @ RGB_TO_LMS.T) ** (1 / 3) @ LMS_TO_LAB.T


def _from_lab(lab: Tensor) -> Tensor:
    linear = ((lab @ LMS_TO_LAB.inverse().T) ** 3 @ RGB_TO_LMS.inverse().T).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _match_colour(face: Tensor, picture: Tensor, weight: Tensor) -> Tensor:
    """`face` with the weighted mean and spread of `picture`'s colours; each frame alone: batching changes nothing."""
    lab, wanted = _to_lab(face), _to_lab(picture)
    # Where they differ more than elsewhere a head has moved: counted in full, it would make its surroundings pump.
    distance = (lab - wanted).norm(dim=-1)
    usual = (distance * weight).sum() / weight.sum().clamp_min(1e-6)
    weight = weight / (1 + (distance / usual.clamp_min(1e-3)) ** 4)
    total = weight.sum().clamp_min(1e-6)

    def statistics(lab: Tensor) -> tuple[Tensor, Tensor]:
        mean = (lab * weight[..., None]).sum((0, 1)) / total
        return mean, (((lab - mean) ** 2 * weight[..., None]).sum((0, 1)) / total).sqrt()

    (mean, spread), (wanted_mean, wanted_spread) = statistics(lab), statistics(wanted)
    # A flat wall says nothing about contrast: 0.01 keeps the ratio of two tiny spreads near 1, 2 is the most allowed.
    gain = ((wanted_spread + 0.01) / (spread + 0.01)).clamp(0.5, 2)
    return _from_lab((lab - mean) * gain + wanted_mean)
