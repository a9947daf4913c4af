"""Images in: files and tensors to float RGB (N,H,W,3) in 0..1."""

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .pictures import UPRIGHT, read_picture


def read_image(path: str | os.PathLike) -> Tensor:
    """Reads an image file as (1,H,W,3) float32 sRGB in 0..1: upright by its EXIF tag, composited over white.

    H and W are smaller than in a file of more than 25 megapixels, see `pictures.read_picture`.
    InputError: no ordinary file, not an image, damaged, over 100 megapixels or Pillow's own limit.
    """
    *bands, orientation = read_picture(path)
    # one at a time, because a band of floats is four times as large
    image = torch.empty(1, sum(map(len, bands)), bands[0].shape[1], 3)
    top = 0
    while bands:
        band = check_image(bands.pop(0))
        image[:, top : top + band.shape[1]] = band
        top += band.shape[1]
    transposed, flipped = UPRIGHT.get(orientation, (False, []))
    image = image.transpose(1, 2) if transposed else image
    return image.flip([axis + 1 for axis in flipped]) if flipped else image.contiguous()


def check_image(image: Tensor) -> Tensor:
    """Converts (H,W,C) or (N,H,W,C) with 1, 3 or 4 channels, uint8 or float in 0..1, to (N,H,W,3) float32 in 0..1.

    Grey is repeated, alpha is composited over white, values out of range are clamped.
    InputError: another shape or type, empty, NaN.
    """
    shape = tuple(image.shape)
    if image.ndim not in (3, 4) or shape[-1] not in (1, 3, 4) or image.numel() == 0:
        raise InputError(f"An image must be (H,W,C) or (N,H,W,C) with 1, 3 or 4 channels, not {shape}.")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise InputError(f"An image must be uint8 or float in 0..1, not {image.dtype}: convert it first.")
    image = image.reshape(-1, *shape[-3:])
    image = to_float(image)
    if image.isnan().any():
        raise InputError(f"The image of shape {shape} contains NaN: load it again or fix the node that made it.")
    image = image.clamp(0, 1)
    if shape[-1] == 4:
        colour, alpha = image[..., :3], image[..., 3:]
        return colour * alpha + (1 - alpha)
    return image.expand(*image.shape[:-1], 3)


def to_float(image: Tensor) -> Tensor:
    """An image of any shape, uint8 or float in 0..1, as float32 in 0..1."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def resize(images: Tensor, size: int) -> Tensor:
    """Resizes square images (N,H,H,3) in 0..1 to (N,size,size,3), bicubic with antialiasing; a no-op at the same size.

    Computed in float32 on the CPU, so that every device sees the same pixels. InputError: not square.
    """
    height, width = images.shape[1:3]
    if height != width:
        raise InputError(f"The image is {width}x{height} but must be square: crop the face first.")
    if height == size:
        return images
    planes = images.to("cpu", torch.float32).movedim(-1, 1)
    planes = F.interpolate(planes, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return planes.clamp(0, 1).movedim(1, -1).contiguous().to(images.device)
