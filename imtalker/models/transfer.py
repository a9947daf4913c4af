"""Implicit motion transfer: motion is decoded to maps, and attention between maps moves the source's features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention, join_heads, to_map, to_tokens
from .backend import attend_and_match
from .config import RendererConfig
from .folding import channels_last
from .layers import EqualLinear, EqualMLP, StyledConv, styled


class IdentityAdapter(nn.Module):
    """Motion latents (B,motion_size) and identities (1 or B,identity_size) -> latents in that person's motion space."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        self.in_layer = EqualLinear(config.motion_size + config.identity_size, config.identity_size)
        self.mlp = EqualMLP(config.identity_size, config.motion_size)

    def forward(self, motion: Tensor, identity: Tensor) -> Tensor:
        joined = torch.cat([motion, identity.expand(len(motion), -1)], dim=1)
        return self.mlp(self.in_layer(joined))


class MotionDecoder(nn.Module):
    """Adapted latents (B,motion_size) -> one map per attention level, coarse to fine."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        latent, channels = config.motion_size, config.channels[: config.attention_levels]
        side = config.coarsest // 2
        self.const = nn.Parameter(torch.empty(1, latent, side, side))
        self.layers = nn.ModuleList([StyledConv(latent, channels[0], latent)])
        for inputs, outputs in zip((channels[0], *channels), channels):
            self.layers.append(StyledConv(inputs, outputs, latent, upsample=True))
            self.layers.append(StyledConv(outputs, outputs, latent))
            self.layers.append(StyledConv(outputs, outputs, latent))

    def forward(self, latent: Tensor) -> list[Tensor]:
        styles, scales = zip(*(layer.styles(latent) for layer in self.layers))
        maps = []
        x = styled(channels_last(self.const).expand(len(latent), -1, -1, -1), styles[0])
        for number, (layer, scale, then) in enumerate(zip(self.layers, scales, (*styles[1:], None))):
            if number % 3 or not number:
                x = layer.styled(x, scale, then)
                continue
            maps.append(layer.styled(x, scale))
            x = maps[-1] if then is None else styled(maps[-1], then)
        return maps


@dataclass(frozen=True)
class Reference:
    """What the transfer needs from N sources: computed once, never changed afterwards."""

    keys: tuple[Tensor, ...]  # (N,heads,S*S,C/heads) per attention level
    values: tuple[Tensor, ...]  # the same shapes
    pooled: tuple[Tensor, ...]  # finer levels averaged over the cells of the last attention level, (N,S*S,C)

    def tensors(self) -> list[Tensor]:
        return [*self.keys, *self.values, *self.pooled]


class CrossAttention(nn.Module):
    """Holds one level's attention under its published name; MotionTransfer runs it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.cross = Attention(width, heads)


class MotionTransfer(nn.Module):
    """Rearranges a source's feature maps to follow driving maps.

    Attention levels attend to the whole map. On finer levels, each cell of the last attention level gets the mean over
    the cell with its largest head-averaged attention.
    """

    def __init__(self, config: RendererConfig):
        super().__init__()
        channels = config.channels[: config.attention_levels]
        self.levels = nn.ModuleList(CrossAttention(width, config.heads) for width in channels)

    def prepare(self, features: tuple[Tensor, ...], maps: list[Tensor]) -> Reference:
        """From the sources' `features` (N,C,S,S) and the `maps` decoded from their own motion."""
        attentions = [level.cross for level in self.levels]
        side = maps[-1].shape[-1]
        return Reference(
            keys=tuple(attn.keys(to_tokens(m)) for attn, m in zip(attentions, maps)),
            values=tuple(attn.values(to_tokens(f)) for attn, f in zip(attentions, features)),
            pooled=tuple(to_tokens(F.avg_pool2d(f, f.shape[-1] // side)) for f in features[len(attentions) :]),
        )

    def forward(self, maps: list[Tensor], reference: Reference) -> list[Tensor]:
        """Driving maps (B,C,S,S) -> the source's features in the driver's pose, coarse to fine, (B,C,S,S) each.

        reference: of one source for all maps, or of B, one each.
        Finer levels are constant over each cell of the last attention level and are returned at that level's side.
        """
        aligned = []
        batch = len(maps[0])
        for level, driving, k, v in zip(self.levels[:-1], maps, reference.keys, reference.values):
            q = level.cross.queries(to_tokens(driving))
            x = F.scaled_dot_product_attention(q, k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1))
            aligned.append(to_map(level.cross.proj(join_heads(x))))
        attention = self.levels[-1].cross
        q = attention.queries(to_tokens(maps[-1]))
        x, match = attend_and_match(q, reference.keys[-1], reference.values[-1])
        aligned.append(to_map(attention.proj(join_heads(x))))
        return aligned + [to_map(_chosen(pooled, match)) for pooled in reference.pooled]


def _chosen(cells: Tensor, match: Tensor) -> Tensor:
    """Cells (1 or B,M,C) at indices (B,N) -> (B,N,C)."""
    if len(cells) == 1:
        return cells[0][match]
    return cells.gather(1, match[..., None].expand(-1, -1, cells.shape[2]))
