"""Pictures in: files and tensors to float RGB (N,H,W,3) in 0..1."""

import os
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

MAX_PIXELS = 100_000_000
# What people's pictures are; Pillow would also start Ghostscript for a file that says it is PostScript.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "TGA", "PPM", "JPEG2000")

if TYPE_CHECKING:
    from PIL import Image


def read_image(path: str | os.PathLike) -> Tensor:
    """A picture file as (1,H,W,3) float32 RGB in 0..1: turned upright by its EXIF, transparency over white.

    InputError: no such file, not a picture, broken, or too large for Pillow's limit.
    """
    from PIL import Image, ImageOps

    try:
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        with Image.open(path, formats=formats) as file:
            # Pillow's own limit may have been lifted by another package
            if file.width * file.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return check_image(_pixels(ImageOps.exif_transpose(file)))
    except FileNotFoundError as problem:
        raise InputError(f"There is no file {path}: check the name and the folder.") from problem
    except Image.DecompressionBombError as problem:
        raise InputError(f"{path} is too large a picture: scale it below 100 megapixels first.") from problem
    except InputError:
        raise
    except Exception as problem:  # Pillow's decoders raise anything for a broken file, struct.error among them
        raise InputError(
            f"{path} cannot be read as a picture ({problem}): choose a PNG, JPEG or WebP file."
        ) from problem


def _pixels(image: "Image.Image") -> Tensor:
    """(H,W,C) uint8, or float where the file holds more than 8 bits of grey."""
    import numpy as np

    # Pillow clips 16 bit greys when it converts them, so they are scaled here.
    if image.mode.startswith("I"):
        return torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)[..., None]
    if image.mode == "F":
        return torch.from_numpy(np.array(image))[..., None]
    return torch.from_numpy(np.array(image.convert("RGBA")))


def check_image(image: Tensor) -> Tensor:
    """Bring (H,W,C) or (N,H,W,C) with C of 1, 3 or 4, uint8 or float in 0..1, to (N,H,W,3) float32 in 0..1.

    Grey is repeated, alpha is composited over white, values outside are clamped. InputError: another shape or type,
    empty, NaN.
    """
    shape = tuple(image.shape)
    if image.ndim not in (3, 4) or shape[-1] not in (1, 3, 4) or image.numel() == 0:
        raise InputError(f"A picture must be (H,W,C) or (N,H,W,C) with 1, 3 or 4 channels, this one is {shape}.")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise InputError(f"A picture must be uint8 or float in 0..1, this one is {image.dtype}: convert it first.")
    image = image.reshape(-1, *shape[-3:])
    image = to_float(image)
    if image.isnan().any():
        raise InputError(f"The picture of shape {shape} contains NaN: load it again or repair the node that made it.")
    image = image.clamp(0, 1)
    if shape[-1] == 4:
        colour, alpha = image[..., :3], image[..., 3:]
        return colour * alpha + (1 - alpha)
    return image.expand(*image.shape[:-1], 3)


def to_float(image: Tensor) -> Tensor:
    """An image of any shape, uint8 or float in 0..1, as float32 in 0..1."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def resize(images: Tensor, size: int) -> Tensor:
    """Square pictures (N,H,H,3) in 0..1 to (N,size,size,3), bicubic with antialiasing; of that size already, untouched.

    Done in float32 on the CPU, so that every device sees the same pixels. InputError: not square.
    """
    height, width = images.shape[1:3]
    if height != width:
        raise InputError(f"The picture is {width}x{height} and must be square: crop the face first.")
    if height == size:
        return images
    planes = images.to("cpu", torch.float32).movedim(-1, 1)
    planes = F.interpolate(planes, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return planes.clamp(0, 1).movedim(1, -1).contiguous().to(images.device)
