"""Colours of a pasted face and of what is around it, brought together.

Pictures are (H,W,3), RGB in 0..1; `weight` (H,W) says where the two are compared: along the soft edge.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

SEAM_CELLS = 32  # cells per side in which the difference along the edge is averaged
LIKE_COLOUR = 0.08  # larger differences, of RGB in 0..1, are another thing and not another colour
SEAM_DEPTH = 0.35  # share of the square's side over which the difference fades towards the middle


def join_seam(face: Tensor, background: Tensor, weight: Tensor, depth: Tensor) -> Tensor:
    """Adds to `face` its difference to the background along the edge, less and less towards the middle.

    depth (H,W): the distance to the edge over the square's side. What has moved at the edge counts for nothing.
    """
    difference = background - face
    alike = weight / (1 + (difference.norm(dim=-1) / LIKE_COLOUR) ** 4)
    total = alike + 0.01 * weight  # where nothing is alike, nothing is added
    cells = torch.cat([difference * alike[..., None], total[..., None]], dim=-1).permute(2, 0, 1)
    sums = F.adaptive_avg_pool2d(cells, SEAM_CELLS).flatten(1) @ _nearness().to(cells.device)
    smooth = (sums[:3] / sums[3].clamp_min(1e-9)).view(1, 3, SEAM_CELLS, SEAM_CELLS)
    smooth = F.interpolate(smooth, face.shape[:2], mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    fade = (1 - depth / SEAM_DEPTH).clamp(0, 1)
    return (face + smooth * (fade * fade * (3 - 2 * fade))[..., None]).clamp(0, 1)


@functools.cache
def _nearness() -> Tensor:
    """How much each cell counts for each other one: less with the square of the distance."""
    line = torch.arange(SEAM_CELLS, dtype=torch.float32)
    place = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).view(-1, 2)
    return 1 / (torch.cdist(place, place) ** 2 + 0.5)


# Oklab, a perceptual colour space with nearly independent axes (B. Ottosson, 2020)
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
    return (linear @ RGB_TO_LMS.T.to(rgb.device)) ** (1 / 3) @ LMS_TO_LAB.T.to(rgb.device)


def _from_lab(lab: Tensor) -> Tensor:
    to_lms, to_rgb = LMS_TO_LAB.inverse().T.to(lab.device), RGB_TO_LMS.inverse().T.to(lab.device)
    linear = ((lab @ to_lms) ** 3 @ to_rgb).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def match_colour(face: Tensor, background: Tensor, weight: Tensor) -> Tensor:
    """Gives `face` the weighted mean and spread of `background`'s colours, in each frame independently."""
    lab, target = _to_lab(face), _to_lab(background)
    # Large differences mean that the head has moved there: at full weight they would make the colours pulse.
    distance = (lab - target).norm(dim=-1)
    usual = (distance * weight).sum() / weight.sum().clamp_min(1e-6)
    weight = weight / (1 + (distance / usual.clamp_min(1e-3)) ** 4)
    total = weight.sum().clamp_min(1e-6)

    def statistics(lab: Tensor) -> tuple[Tensor, Tensor]:
        mean = (lab * weight[..., None]).sum((0, 1)) / total
        return mean, (((lab - mean) ** 2 * weight[..., None]).sum((0, 1)) / total).sqrt()

    (mean, spread), (target_mean, target_spread) = statistics(lab), statistics(target)
    # A flat wall has no contrast to match: 0.01 keeps the ratio of two tiny spreads near 1.
    gain = ((target_spread + 0.01) / (spread + 0.01)).clamp(0.5, 2)
    return _from_lab((lab - mean) * gain + target_mean)
