"""From the transferred features of a source to frames."""

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import SelfAttentionBlock, to_map, to_tokens
from .config import RendererConfig
from .layers import conv3
from .resample import Merge, Up
from .windows import SwinBlock


class Refine(nn.Module):
    """Self attention over one level: global on the coarse levels, in windows on the fine ones."""

    def __init__(self, config: RendererConfig, level: int):
        super().__init__()
        side, width, heads = config.side(level), config.channels[level], config.heads
        if level < config.attention_levels:
            self.blocks = nn.Sequential(SelfAttentionBlock(side, width, heads))
        else:
            self.blocks = nn.Sequential(
                *(SwinBlock(side, width, heads, config.window, shifted) for shifted in (False, True))
            )

    def forward(self, x: Tensor) -> Tensor:
        return to_map(self.blocks(to_tokens(x)))


class Synthesis(nn.Module):
    """Transferred maps, coarse to fine -> frames (B,3,output_size,output_size) in 0..1."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        channels = config.channels
        self.up = nn.ModuleList(Up(i, o) for i, o in zip(channels, channels[1:]))
        self.merge = nn.ModuleList(
            Merge(channels[level], coarse=level >= config.attention_levels) for level in range(1, config.levels)
        )
        self.attention = nn.ModuleList(Refine(config, level) for level in range(1, config.levels))
        self.head = nn.Sequential(nn.LeakyReLU(0.2), conv3(channels[-1], 12, bias=True), nn.PixelShuffle(2))

    def forward(self, aligned: list[Tensor]) -> Tensor:
        x = aligned[0]
        for up, merge, attention, features in zip(self.up, self.merge, self.attention, aligned[1:]):
            x = attention(merge(up(x), features))
        return F.sigmoid(self.head(x))
