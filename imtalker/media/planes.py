"""Frames as H.264 stores them: 8 bits of brightness for each pixel, of colour for each 2x2 pixels (YUV 4:2:0)."""

from dataclasses import dataclass

import torch
from torch import Tensor

# BT.709: the share of red and of blue in the brightness; limited range: brightness 16..235, colour 16..240.
RED, BLUE = 0.2126, 0.0722
BRIGHTNESS, COLOUR = (16, 219), (128, 224)


@dataclass(frozen=True)
class Planes:
    """A block of frames (n,H*3/2,W), uint8: H rows of Y, then U and V with a quarter of the pixels each."""

    values: Tensor


def to_planes(frames: Tensor) -> Tensor:
    """RGB frames (n,H,W,3) in 0..1 -> the values of `Planes`, on the same device; odd sides repeat their last pixels.

    Within 1/255 of libswscale's conversion of the same frames in 8 bits: colour is the mean of two pixels in a row, and
    [1,3,3,1]/8 of four rows.
    """
    rgb = frames.permute(0, 3, 1, 2).float().clamp(0, 1)
    if rgb.shape[2] % 2:
        rgb = torch.cat([rgb, rgb[:, :, -1:]], dim=2)
    if rgb.shape[3] % 2:
        rgb = torch.cat([rgb, rgb[:, :, :, -1:]], dim=3)
    count, _, height, width = rgb.shape
    output = torch.empty(count, height * 3 // 2, width, dtype=torch.uint8, device=rgb.device)
    output[:, :height] = _quantised(_brightness(rgb), *BRIGHTNESS)
    pairs = (rgb[..., 0::2] + rgb[..., 1::2]) / 2
    rows = torch.cat([pairs[:, :, :1], pairs, pairs[:, :, -1:]], dim=2)
    small = 0.375 * (pairs[:, :, 0::2] + pairs[:, :, 1::2]) + 0.125 * (rows[:, :, :-2:2] + rows[:, :, 3::2])
    brightness = _brightness(small)
    colours = output[:, height:].unflatten(1, (1, -1)).flatten(2).unflatten(2, (2, -1))[:, 0]
    for number, (channel, share) in enumerate(((2, BLUE), (0, RED))):
        colour = (small[:, channel] - brightness) / (2 * (1 - share))
        colours[:, number] = _quantised(colour, *COLOUR).flatten(1)
    return output


def _brightness(rgb: Tensor) -> Tensor:
    return RED * rgb[:, 0] + (1 - RED - BLUE) * rgb[:, 1] + BLUE * rgb[:, 2]


def _quantised(x: Tensor, zero: int, span: int) -> Tensor:
    return (x * span + zero).round_().to(torch.uint8)
