"""Picture files to upright sRGB, composited over white, in bounded memory.

Colour profiles are honoured by Pillow's ImageCms with its defaults. What is not honoured is said in one warning: HDR
and gamma chunks of PNG, broken profiles, further frames or pages.
"""

import logging
import math
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .files import regular_file, unusable
from .formats import kind_of

log = logging.getLogger("imtalker")

MAX_PIXELS = 100_000_000
READ_WHOLE = 25_000_000  # pixels; a larger picture is read at half, a third, ... of its size
BAND = 2_000_000  # pixels that are converted at a time
MAX_BYTES = 1_500_000_000  # for decoding
# Bytes a pixel of decoders that work on whole pictures; others need as many as the picture's mode.
WHOLE = {"JPEG2000": 24, "AVIF": 14, "WEBP": 12, "HEIF": 14}
# Only common formats: for a PostScript header Pillow would start Ghostscript. HEIF is there if a plugin is.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "TGA", "PPM", "JPEG2000", "HEIF")
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
PQ, HLG = 16, 18  # transfer characteristics of ITU-T H.273
SDR_PRIMARIES = (1, 2)  # BT.709, which is sRGB's, and unspecified
GAMMA = 1 / 2.2
# How to bring (H,W,C) upright: transposed or not, then the axes to flip.
UPRIGHT = {
    2: (False, [1]),
    3: (False, [0, 1]),
    4: (False, [0]),
    5: (True, []),
    6: (True, [1]),
    7: (True, [0, 1]),
    8: (True, [0]),
}

if TYPE_CHECKING:
    from PIL import Image


def read_picture(path: str | os.PathLike) -> Iterator[Tensor]:
    """Yields a picture's bands (h,W,C) from top to bottom as stored, then its EXIF orientation, 1 to 8.

    C is 1 or 3, or 4 with straight alpha; uint8, or float32 in 0..1 where the file has more than 8 bits. Pictures of
    more than READ_WHOLE pixels come reduced, with a warning. Animations and documents give their first frame.
    InputError: not an ordinary file, not a picture, damaged, over MAX_PIXELS, MAX_BYTES or Pillow's own limit.
    """
    from PIL import Image

    path = regular_file(path)
    try:
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about size and odd tags
            with Image.open(path, formats=formats) as image:
                _check_size(image)
                _warn(path, image)
                yield from _bands(path, image)
                yield _orientation(image)
    except Image.DecompressionBombError as problem:
        raise InputError(f"{path} is too large: scale it below 100 megapixels first.") from problem
    except InputError:
        raise
    except Exception as problem:  # Pillow's decoders raise anything for a damaged file, even struct.error
        if isinstance(problem, OSError) and problem.errno:
            raise unusable(path, "read", problem) from problem
        kind = kind_of(path) if isinstance(problem, Image.UnidentifiedImageError) else None
        reason = f"it is {kind.name}" if kind else "it is not a picture, damaged or of an unusual kind"
        raise InputError(f"{path} cannot be read as an image ({reason}): convert it to PNG or JPEG first.") from problem


def _check_size(image: "Image.Image") -> None:
    from PIL import Image

    pixels = image.width * image.height
    bytes_a_pixel = WHOLE.get(image.format, 4 if len(image.getbands()) > 1 or image.mode in ("I", "F") else 2)
    # another package may have switched off Pillow's own limit
    if pixels > MAX_PIXELS or pixels * bytes_a_pixel > MAX_BYTES:
        raise Image.DecompressionBombError


def _warn(path: Path, image: "Image.Image") -> None:
    """Says in the log what of a picture will not be honoured."""
    if image.format != "MPO" and getattr(image, "is_animated", False):
        log.warning("%s has several frames or pages: only the first is used.", path)
    if image.format != "PNG":
        return
    primaries, transfer = _light(path)
    if transfer in (PQ, HLG) or primaries not in SDR_PRIMARIES:
        log.warning("%s has wide or HDR colours in a cICP chunk, which are read as sRGB: convert it to sRGB.", path)
    gamma = image.info.get("gamma", GAMMA)
    if "icc_profile" not in image.info and "srgb" not in image.info and abs(gamma - GAMMA) > 0.05:
        log.warning("%s asks for a gamma of %.2f and is read as sRGB: convert it to sRGB.", path, gamma)


def _light(path: Path) -> tuple[int, int]:
    """Primaries and transfer of a PNG's cICP chunk; 2, 2 is unspecified."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            length = struct.unpack(">I", head[:4])[0]
            if head[4:] == b"cICP" and length == 4:
                return tuple(file.read(2))
            file.seek(length + 4, os.SEEK_CUR)
    return 2, 2


def _orientation(image: "Image.Image") -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF is no reason to refuse a picture
        return 1


def _bands(path: Path, image: "Image.Image") -> Iterator[Tensor]:
    factor = math.ceil(math.sqrt(image.width * image.height / READ_WHOLE))
    deep = _deep_colour(path, image) if factor == 1 else None
    if factor > 1:
        log.warning("%s is %d x %d: read at 1/%d of its size.", path, image.width, image.height, factor)
        before = image.width
        image.draft(None, (image.width // factor, image.height // factor))  # JPEG decodes to 1/2, 1/4, 1/8
        factor = math.ceil(factor * image.width / before)
    image.load()
    convert, white = _conversion(path, image)
    rows = max(1, BAND // image.width // factor) * factor
    for top in range(0, image.height, rows):
        if deep is not None:
            yield torch.from_numpy(deep[top : top + rows].astype(np.float32) / 65535)
            continue
        band = convert(image.crop((0, top, image.width, min(top + rows, image.height))))
        yield _array(band.reduce(factor) if factor > 1 else band, white)


def _deep_colour(path: Path, image: "Image.Image") -> np.ndarray | None:
    """The pixels (H,W,C), uint16, of a PNG or TIFF with 16 bits a channel, of which Pillow keeps 8: FFmpeg reads all.

    None for other files, and for those with a profile, which Pillow applies to 8 bits.
    """
    arguments = image.tile[0][3] if image.tile else ""
    raw = arguments if isinstance(arguments, str) else str(arguments[0])
    if ";16" not in raw or image.mode not in ("RGB", "RGBA") or image.info.get("icc_profile"):
        return None
    import av

    try:
        with av.open(os.path.abspath(path), format={"PNG": "png_pipe", "TIFF": "tiff_pipe"}[image.format]) as file:
            frame = next(file.decode(video=0))
        return frame.to_ndarray() if frame.format.name.startswith(("rgb48", "rgba64")) else None
    except (KeyError, StopIteration, ValueError, OSError, av.FFmpegError):
        return None


def _conversion(path: Path, image: "Image.Image") -> tuple[Callable[["Image.Image"], "Image.Image"], float]:
    """What brings a band of this picture to sRGB, as an image of mode L, RGB, RGBA, I or F, and its value of white."""
    from PIL import Image, ImageCms

    profile, space = _profile(path, image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        white = _white(path, image)
        if profile is None or space != "GRAY":
            # Pillow itself clips 16 bits instead of scaling them
            return lambda band: Image.fromarray(np.asarray(band).astype(np.float32)), white
        transform = _transform(path, profile, "L")

        def with_profile(band: "Image.Image") -> "Image.Image":
            grey = np.asarray(band).astype(np.float32) * (255 / white)
            return transform(Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)))

        return with_profile, 255
    if image.mode == "LAB":
        profile, space = profile or ImageCms.createProfile("LAB"), "LAB"
    mode = {"GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(space, "RGB")
    transform = _transform(path, profile, mode)
    if image.mode not in ALPHA and "transparency" not in image.info:
        return lambda band: transform(band if band.mode == mode else band.convert(mode)), 255

    def with_alpha(band: "Image.Image") -> "Image.Image":
        band = band.convert("RGBA")
        colour = transform(band.convert(mode)).convert("RGB")
        colour.putalpha(band.getchannel("A"))
        return colour

    return with_alpha, 255


def _array(image: "Image.Image", white: float) -> Tensor:
    pixels = torch.from_numpy(np.array(image))
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return pixels if pixels.dtype == torch.uint8 else pixels.float() / white


def _profile(path: Path, image: "Image.Image") -> tuple[object, str]:
    """The colour profile of a picture and the space it is for (RGB, GRAY, CMYK, LAB); None if it has none that fits."""
    from PIL import ImageCms

    spaces = {"1": "GRAY", "L": "GRAY", "LA": "GRAY", "La": "GRAY", "I": "GRAY", "F": "GRAY"}
    own = "GRAY" if image.mode.startswith("I;16") else spaces.get(image.mode, image.mode)
    own = own if own in ("GRAY", "CMYK", "LAB") else "RGB"
    content = image.info.get("icc_profile")
    if not content:
        return None, own
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(content))
        space = profile.profile.xcolor_space.strip().upper()
        if space == own or (space, own) == ("RGB", "GRAY"):
            return profile, space
        reason = f"it is for {space}"
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        reason = "it is damaged"
    log.warning("%s has a colour profile that cannot be used (%s): read without it.", path, reason)
    return None, own


def _transform(path: Path, profile: object, mode: str) -> Callable[["Image.Image"], "Image.Image"]:
    """To sRGB from a picture of `mode` by its profile, or without one as Pillow does."""
    from PIL import ImageCms

    if profile is not None:
        try:
            transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
            return lambda band: ImageCms.applyTransform(band, transform)
        except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
            log.warning("%s has a colour profile that cannot be used (it is damaged): read without it.", path)
    return lambda band: band if band.mode in ("L", "RGB") else band.convert("RGB")


def _white(path: Path, image: "Image.Image") -> float:
    """The value of white in a picture of 16-bit or 32-bit numbers."""
    if image.mode.startswith("I;16"):
        return 65535.0
    low, high = image.getextrema()
    tops = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0) if image.format == "TIFF" else (65535.0,)}[image.mode]
    top = next((top for top in tops if high <= 1.5 * top), None)
    # between these, nobody can tell very bright from very dark
    if top is None or low < -0.5 * top or (image.mode == "F" and top == 255 and high < 16):
        raise InputError(f"{path} holds numbers from {low:g} to {high:g}: save it with 0 to 1, or as 16-bit PNG.")
    if image.mode == "F" and top > 1:
        log.warning("%s holds numbers up to %g: read as 0 to %g.", path, high, top)
    return top
