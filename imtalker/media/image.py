"""Images in: files and tensors to float RGB (N,H,W,3) in 0..1."""

import os
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

MAX_PIXELS = 100_000_000
# Only common formats: for a PostScript header Pillow would start Ghostscript.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "TGA", "PPM", "JPEG2000")

if TYPE_CHECKING:
    from PIL import Image


def read_image(path: str | os.PathLike) -> Tensor:
    """Reads an image file as (1,H,W,3) float32 RGB in 0..1: rotated by its EXIF tag, composited over white.

    InputError: no such file, not an image, damaged, over 100 megapixels or Pillow's own limit.
    """
    from PIL import Image, ImageOps

    try:
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        with Image.open(path, formats=formats) as file:
            # another package may have switched off Pillow's own limit
            if file.width * file.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return check_image(_pixels(ImageOps.exif_transpose(file)))
    except FileNotFoundError as problem:
        raise InputError(f"There is no file {path}: check the name and the folder.") from problem
    except Image.DecompressionBombError as problem:
        raise InputError(f"{path} is too large: scale it below 100 megapixels first.") from problem
    except InputError:
        raise
    except Exception as problem:  # Pillow's decoders raise anything for a damaged file, even struct.error
        raise InputError(
            f"{path} cannot be read as an image ({problem}): choose a PNG, JPEG or WebP file."
        ) from problem


def _pixels(image: "Image.Image") -> Tensor:
    """(H,W,C): RGBA as uint8, or grey as float if the file has more than 8 bits."""
    import numpy as np

    # Pillow clips 16-bit grey instead of scaling it.
    if image.mode.startswith("I"):
        return torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)[..., None]
    if image.mode == "F":
        return torch.from_numpy(np.array(image))[..., None]
    return torch.from_numpy(np.array(image.convert("RGBA")))


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
