"""Colours of decoded video frames as 8-bit RGB in BT.709: matrix, range, HDR, wide gamuts, transparency.

Matrix and range are libswscale's. Light is the exact arithmetic of FFmpeg's filters zscale (npl=100) and tonemap
(hable, desat=0), which PyAV's wheels lack in part: SMPTE ST 2084, ARIB STD-B67 and BT.2100, ITU-R BT.1886.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .orientation import side_data

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.codeccontext import VideoCodecContext

# Code points of ITU-T H.273, the same in every FFmpeg.
BT709, BT601, UNSPECIFIED, LIMITED, FULL = 1, 5, 2, 1, 2
PQ, HLG, SRGB, LINEAR, GAMMA22, GAMMA28 = 16, 18, 13, 8, 4, 5
# YCgCo, BT.2020 with constant luminance, SMPTE 2085, chroma-derived, ICtCp and newer ones: libswscale has no matrix.
UNREAD_MATRICES = {8, *range(10, 18)}
# SWS_BILINEAR | SWS_FULL_CHR_H_INT | SWS_ACCURATE_RND: libswscale's fast path to RGB is 1 to 2 levels of 255 too dark.
ACCURATE = 0x2 | 0x2000 | 0x40000

# share of red and blue in luma
LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
REFERENCE_WHITE = 100  # nits, of tonemap
BAND = 1 << 20  # pixels that are toned at once
# x, y of red, green, blue and white
CHROMATICITIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
}
BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))


@dataclass(frozen=True)
class Light:
    """What the numbers of a frame mean: code points of H.273, and the brightest light in units of 100 nits."""

    matrix: int
    full: bool
    transfer: int
    primaries: int
    peak: float | None = None

    @property
    def plain(self) -> bool:
        """Whether the RGB values can be shown as they are."""
        return self.transfer not in (PQ, HLG, LINEAR) and self.primaries not in CHROMATICITIES.keys() - {1}

    @property
    def note(self) -> str | None:
        """What is not kept as it was, in words."""
        if self.matrix in UNREAD_MATRICES:
            return f"its colour matrix (code {self.matrix}) is not known, so that its colours may be wrong"
        if self.transfer in (PQ, HLG):
            return f"its HDR ({'PQ' if self.transfer == PQ else 'HLG'}) is tone-mapped to standard range"
        return None


def light_of(frame: "VideoFrame", context: "VideoCodecContext", peak: float | None = None) -> Light:
    """What the numbers of a decoded frame mean, by its own marks and, in older PyAV, by its decoder's.

    peak: that of an earlier frame of the file.
    """
    matrix = frame.colorspace
    if matrix == UNSPECIFIED:
        matrix = BT709 if frame.height >= 720 else BT601
    name = frame.format.name
    full = frame.color_range == FULL or name.startswith("yuvj") or frame.format.is_rgb or frame.format.has_palette
    transfer = getattr(frame, "color_trc", context.color_trc)
    primaries = getattr(frame, "color_primaries", context.color_primaries)
    if transfer not in (PQ, HLG):
        return Light(matrix, full, transfer, primaries)
    return Light(matrix, full, transfer, primaries, peak or _peak(frame))


def _peak(frame: "VideoFrame") -> float:
    """The brightest light of an HDR frame by its marks, in units of 100 nits; 10 without marks, as FFmpeg's tonemap."""
    kinds = {entry.type.name: bytes(entry) for entry in side_data(frame)}
    peak = 0.0
    if level := kinds.get("CONTENT_LIGHT_LEVEL"):
        peak = struct.unpack_from("I", level)[0] / REFERENCE_WHITE
    if not peak and (mastering := kinds.get("MASTERING_DISPLAY_METADATA")):
        *_, numerator, denominator, _, has_luminance = struct.unpack_from("22i", mastering)[:22]
        if has_luminance and denominator:
            peak = numerator / denominator / REFERENCE_WHITE
    return peak if 1 <= peak <= 100 else 10.0


def to_rgb(frame: "VideoFrame", width: int, height: int, light: Light) -> Tensor:
    """A decoded frame scaled to width x height, as uint8 RGB (H,W,3); transparency is composited over white.

    InputError: a pixel format that libswscale cannot read.
    """
    has_alpha = any(component.is_alpha for component in frame.format.components) or frame.format.has_palette
    if light.plain:
        pixels = torch.from_numpy(_converted(frame, width, height, "rgba" if has_alpha else "rgb24", light))
        return _over_white(pixels) if has_alpha else pixels
    # Not libswscale's RGB: it errs by 4 of 1023, which shows after such curves, and FFmpeg 8 gets rgb48 wrong.
    has_matrix = not frame.format.is_rgb and light.matrix in LUMA and frame.format.name[:4] != "gray"
    pixels = _converted(frame, width, height, "yuv444p16le" if has_matrix else "gbrp16le", light)
    alpha = torch.from_numpy(_converted(frame, width, height, "rgba", light)[..., 3:]) if has_alpha else None
    show = _toned(light)
    shown = torch.empty(height, width, 3, dtype=torch.uint8)
    rows = max(1, BAND // width)
    for row in range(0, height, rows):
        band = pixels[row : row + rows]
        band = show(_exact_rgb(band, light) if has_matrix else band)
        if alpha is not None:
            cover = alpha[row : row + rows].float() / 255
            band = band * cover + (1 - cover)
        shown[row : row + rows] = (band * 255).round().to(torch.uint8)
    return shown


def _converted(frame: "VideoFrame", width: int, height: int, kind: str, light: Light) -> np.ndarray:
    from av import FFmpegError

    matrix = BT601 if light.matrix in UNREAD_MATRICES else light.matrix
    # The result has no matrix, but older PyAV ignores the source's matrix unless the two differ.
    other = BT601 if matrix == BT709 else BT709
    target = FULL
    if frame.format.is_rgb:  # and older libswscale takes some RGB through the two matrices
        matrix = other = BT709
    elif kind.startswith("yuv"):
        other, target = matrix, FULL if light.full else LIMITED
    try:
        return frame.reformat(
            width,
            height,
            kind,
            src_colorspace=matrix,
            dst_colorspace=other,
            src_color_range=FULL if light.full else LIMITED,
            dst_color_range=target,
            interpolation=ACCURATE,
        ).to_ndarray()
    except (FFmpegError, ValueError) as problem:
        raise InputError(
            f"The video has pixels of the format {frame.format.name}, which cannot be read: convert it to H.264 first."
        ) from problem


def _exact_rgb(pixels: np.ndarray, light: Light) -> np.ndarray:
    """16-bit Y, Cb, Cr (h,w,3) to 16-bit RGB by the matrix of the frame, H.273."""
    red, blue = LUMA[light.matrix]
    green = 1 - red - blue
    across = np.array(
        [[1, 0, 2 - 2 * red], [1, (2 * blue - 2) * blue / green, (2 * red - 2) * red / green], [1, 2 - 2 * blue, 0]]
    )
    # 8-bit code values, which 16 bits hold 256 or 257 times
    black, luma, chroma, unit = (0, 255, 255, 257) if light.full else (16, 219, 224, 256)
    centred = (pixels.astype(np.float32) / unit - (black, 128, 128)) / (luma, chroma, chroma)
    rgb = centred.astype(np.float32) @ across.T.astype(np.float32)
    return (rgb.clip(0, 1) * 65535 + 0.5).astype(np.uint16)


def _over_white(pixels: Tensor) -> Tensor:
    alpha = pixels[..., 3:].to(torch.int32)
    if bool((alpha == 255).all()):
        return pixels[..., :3].contiguous()
    return ((pixels[..., :3] * alpha + (255 - alpha) * 255 + 127) // 255).to(torch.uint8)


@lru_cache(maxsize=8)
def _toned(light: Light) -> Callable[[np.ndarray], Tensor]:
    """A function from uint16 RGB (h,w,3) to what a BT.709 screen shows, float in 0..1."""
    table = _linear(light.transfer).astype(np.float32)
    gamut = None if light.primaries in (1, UNSPECIFIED) else gamut_matrix(light.primaries).float()

    def show(pixels: np.ndarray) -> Tensor:
        linear = torch.from_numpy(table[pixels])
        if gamut is not None:
            linear = linear @ gamut.T
        if light.transfer in (PQ, HLG):
            brightest = linear.amax(dim=-1, keepdim=True).clamp(min=1e-6)
            linear *= _hable(brightest) / _hable(torch.tensor(light.peak)) / brightest
        return _encoded(linear.clamp(0, 1), light.transfer)

    return show


def _linear(transfer: int) -> np.ndarray:
    """Linear light of each of 65536 code values; 1 is white, or 100 nits of HDR."""
    x = np.arange(65536) / 65535
    if transfer == PQ:
        power = x ** (32 / 2523)
        return 100 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (8192 / 1305)
    if transfer == HLG:
        # of a screen of 1000 nits, whose gamma of 1.2 zscale applies to each channel
        scene = np.where(x <= 0.5, x * x / 3, (np.exp((x - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        return 10 * scene**1.2
    if transfer == SRGB:
        return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return x ** {LINEAR: 1.0, GAMMA22: 2.2, GAMMA28: 2.8}.get(transfer, 2.4)


def _encoded(linear: Tensor, transfer: int) -> Tensor:
    if transfer == SRGB:
        return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.pow(1 / 2.4) - 0.055)
    return linear.pow(1 / {GAMMA22: 2.2, GAMMA28: 2.8}.get(transfer, 2.4))


def _hable(x: Tensor) -> Tensor:
    a, b, c, d, e, f = 0.15, 0.50, 0.10, 0.20, 0.02, 0.30
    return (x * (x * a + b * c) + d * e) / (x * (x * a + b) + d * f) - e / f


def gamut_matrix(primaries: int) -> Tensor:
    """(3,3) float64: linear RGB of other primaries to BT.709, white to white (Bradford)."""
    source, target = (_to_xyz(CHROMATICITIES[code]) for code in (primaries, BT709))
    bradford = torch.tensor(BRADFORD, dtype=torch.float64)
    white = bradford @ source.sum(dim=1), bradford @ target.sum(dim=1)
    adapt = torch.linalg.inv(bradford) @ torch.diag(white[1] / white[0]) @ bradford
    return torch.linalg.inv(target) @ adapt @ source


def _to_xyz(chromaticities: tuple) -> Tensor:
    """(3,3): linear RGB to XYZ, from the chromaticities of the primaries and white."""
    columns = torch.tensor([[x / y, 1, (1 - x - y) / y] for x, y in chromaticities], dtype=torch.float64).T
    return columns[:, :3] * torch.linalg.solve(columns[:, :3], columns[:, 3])
