"""L2CS-Net (Abdelrahman et al. 2022, arXiv 2203.03339): gaze direction.

A ResNet-50 (arXiv 1512.03385, with the stride in the middle convolution) with two linear heads, each of which chooses
among 90 angles. Attributes have the published names.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import BatchNorm2d

L2CS_SIDE = 448
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which the trunk was pretrained on
BINS, BIN_DEGREES, FIRST_BIN = 90, 4.0, -180.0
# inner channels, blocks, stride
LAYERS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
WIDENING = 4


class GazeEncoder(nn.Module):
    """Faces (B,3,448,448), RGB in 0..1 -> two angles (B,2) in radians, in the order of the published model's outputs.

    The first comes from `fc_yaw_gaze` (+ is image left), the second from `fc_pitch_gaze` (+ is up), although the
    published pipeline calls them pitch and yaw.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(64)
        inputs = 64
        for number, (channels, blocks, stride) in enumerate(LAYERS, 1):
            first, inputs = Bottleneck(inputs, channels, stride), channels * WIDENING
            rest = (Bottleneck(inputs, channels) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
        self.fc_yaw_gaze = nn.Linear(inputs, BINS)
        self.fc_pitch_gaze = nn.Linear(inputs, BINS)

    def forward(self, images: Tensor) -> Tensor:
        mean, spread = (images.new_tensor(values)[:, None, None] for values in (MEAN, SPREAD))
        x = F.relu(self.bn1(self.conv1((images - mean) / spread)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = x.mean(dim=(2, 3))
        scores = torch.stack([self.fc_yaw_gaze(x), self.fc_pitch_gaze(x)], dim=1)
        degrees = torch.arange(BINS, device=x.device) * BIN_DEGREES + FIRST_BIN
        return (scores.float().softmax(dim=2) * degrees).sum(dim=2) * (math.pi / 180)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int = 1):
        super().__init__()
        outputs = channels * WIDENING
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = BatchNorm2d(outputs)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (self.downsample(x) if self.downsample else x))
