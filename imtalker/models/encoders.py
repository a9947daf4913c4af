"""Encoders of one image: who is in it (identity) and the pose and expression of the face (motion)."""

import torch.nn.functional as F
from torch import Tensor, nn

from .config import RendererConfig
from .layers import SLOPE, EqualConv2d, EqualMLP, Stem, StyleRes, conv3
from .resample import Down


class IdentityEncoder(nn.Module):
    """Image (B,3,input_size,input_size) -> feature maps, coarse to fine, and identity vector (B,identity_size)."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        fine_to_coarse = config.channels[::-1]
        finest = fine_to_coarse[0]
        self.stem = Stem(finest)
        self.halvings = nn.ModuleList(Down(finest, finest) for _ in range(config.halvings))
        self.down = nn.ModuleList(Down(i, o) for i, o in zip(fine_to_coarse, fine_to_coarse[1:]))
        self.mlp = EqualMLP(config.channels[0], config.identity_size)

    def forward(self, image: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        x = self.stem(image)
        for halve in self.halvings:
            x = halve(x)
        features = [x]
        for down in self.down:
            features.append(down(features[-1]))
        identity = self.mlp(features[-1].mean(dim=(2, 3)))
        return tuple(reversed(features)), identity


class MotionEncoder(nn.Module):
    """Image (B,3,input_size,input_size) -> motion latent (B,motion_size)."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        first, last = config.motion_channels[0], config.motion_channels[-1]
        self.conv1 = conv3(3, first, bias=True)
        self.res_blocks = nn.ModuleList(
            StyleRes(i, o) for i, o in zip(config.motion_channels, config.motion_channels[1:])
        )
        self.equalconv = EqualConv2d(last, last, 3, padding=1, bias=True)
        self.mlp = EqualMLP(last, config.motion_size)

    def forward(self, image: Tensor) -> Tensor:
        x = F.leaky_relu_(self.conv1(image), SLOPE)
        for block in self.res_blocks:
            x = block(x)
        return self.mlp(self.equalconv(x).mean(dim=(2, 3)))
