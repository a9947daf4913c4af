"""SMIRK's encoders (Retsinas et al. 2024, arXiv 2404.04104): head rotation and camera; expression, eyelids and jaw.

Each is a MobileNetV3 "minimalistic" (arXiv 1905.02244) in TensorFlow's variant, small for the pose and large for the
expression, averaged over its last map, and one linear layer. Attributes have the published names, so files load without
renaming.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import BatchNorm2d

SMIRK_SIDE = 224
EPS = 1e-3  # TensorFlow's

STEM = 16


class Sizes(NamedTuple):
    """Of a MobileNet."""

    first_stride: int
    stages: tuple[tuple[tuple[int, int, int], ...], ...]  # each block's inner channels, output channels, stride
    features: int


SMALL = Sizes(
    2,
    (
        ((72, 24, 2), (88, 24, 1)),
        ((96, 40, 2), (240, 40, 1), (240, 40, 1)),
        ((120, 48, 1), (144, 48, 1)),
        ((288, 96, 2), (576, 96, 1), (576, 96, 1)),
    ),
    576,
)
LARGE = Sizes(
    1,
    (
        ((64, 24, 2), (72, 24, 1)),
        ((72, 40, 2), (120, 40, 1), (120, 40, 1)),
        ((240, 80, 2), (200, 80, 1), (184, 80, 1), (184, 80, 1)),
        ((480, 112, 1), (672, 112, 1)),
        ((672, 160, 2), (960, 160, 1), (960, 160, 1)),
    ),
    960,
)
EXPRESSIONS, EYELIDS, JAW = 50, 2, 3
JAW_SIDEWAYS = 0.2  # radians, the most that the network says


class PoseEncoder(nn.Module):
    """Face crops (B,3,224,224), RGB in 0..1 -> pose (B,3), axis-angle in radians, and camera (B,3): scale, x, y."""

    def __init__(self):
        super().__init__()
        self.encoder = MobileNet(SMALL)
        self.pose_cam_layers = nn.Sequential(nn.Linear(SMALL.features, 6))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(images).mean(dim=(2, 3))
        pose, cam = self.pose_cam_layers(features).split(3, dim=1)
        return pose, cam


class ExpressionEncoder(nn.Module):
    """Face crops (B,3,224,224), RGB in 0..1 -> FLAME's expression (B,50), eyelids (B,2) and jaw (B,3).

    Eyelids: left and right, 0 open to 1 shut. Jaw: axis-angle in radians, opening, then turns sideways.
    """

    def __init__(self):
        super().__init__()
        self.encoder = MobileNet(LARGE)
        self.expression_layers = nn.Sequential(nn.Linear(LARGE.features, EXPRESSIONS + EYELIDS + JAW))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.encoder(images).mean(dim=(2, 3))
        expression, eyelids, jaw = self.expression_layers(features).split([EXPRESSIONS, EYELIDS, JAW], dim=1)
        opening, sideways = F.relu(jaw[:, :1]), jaw[:, 1:].clamp(-JAW_SIDEWAYS, JAW_SIDEWAYS)
        return expression, eyelids.clamp(0, 1), torch.cat([opening, sideways], dim=1)


class MobileNet(nn.Module):
    """Images (B,3,H,W) -> the last map (B,features,H/32,W/32)."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.conv_stem = SameConv2d(3, STEM, 3, stride=2)
        self.bn1 = BatchNorm2d(STEM, EPS)
        stages, inputs = [[Separable(STEM, STEM, sizes.first_stride)]], STEM
        for blocks in sizes.stages:
            stage = []
            for inside, outputs, stride in blocks:
                stage.append(InvertedResidual(inputs, inside, outputs, stride))
                inputs = outputs
            stages.append(stage)
        stages.append([Pointwise(inputs, sizes.features)])
        self.blocks = nn.Sequential(*(nn.Sequential(*stage) for stage in stages))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(self.bn1(self.conv_stem(x))))


class Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv_dw = depthwise(inputs, stride)
        self.bn1 = BatchNorm2d(inputs, EPS)
        self.conv_pw = conv1(inputs, outputs)
        self.bn2 = BatchNorm2d(outputs, EPS)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv_pw(F.relu(self.bn1(self.conv_dw(x)))))
        return x + y if self.residual else y


class InvertedResidual(nn.Module):
    """1x1 up to `inside` channels, 3x3 depthwise, 1x1 down; residual if the shape stays the same."""

    def __init__(self, inputs: int, inside: int, outputs: int, stride: int):
        super().__init__()
        self.conv_pw = conv1(inputs, inside)
        self.bn1 = BatchNorm2d(inside, EPS)
        self.conv_dw = depthwise(inside, stride)
        self.bn2 = BatchNorm2d(inside, EPS)
        self.conv_pwl = conv1(inside, outputs)
        self.bn3 = BatchNorm2d(outputs, EPS)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv_pw(x)))
        y = F.relu(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.residual else y


class Pointwise(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = conv1(inputs, outputs)
        self.bn1 = BatchNorm2d(outputs, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv(x)))


class SameConv2d(nn.Conv2d):
    """Convolution without bias, padded like TensorFlow's "SAME": odd padding puts the larger half right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max(kernel - (side % stride or stride), 0) for side in x.shape[2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


def depthwise(channels: int, stride: int) -> SameConv2d:
    return SameConv2d(channels, channels, 3, stride, groups=channels)


def conv1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)
