"""Attention between feature maps: global and windowed.

Maps (B,C,S,S) become tokens (B,S*S,C), row-major; heads are contiguous channel slices.
"""

import torch
from torch import Tensor, nn

from .backend import attend


def to_tokens(x: Tensor) -> Tensor:
    """(B,C,S,S) -> (B,S*S,C)"""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor) -> Tensor:
    """(B,S*S,C) -> (B,C,S,S)"""
    side = round(x.shape[1] ** 0.5)
    return x.transpose(1, 2).unflatten(2, (side, side))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B,N,C) -> (B,heads,N,C/heads)"""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B,heads,N,C/heads) -> (B,N,C)"""
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention with biased projections of queries, keys, values and output."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.heads = heads

    def queries(self, x: Tensor) -> Tensor:
        return split_heads(self.q_proj(x), self.heads)

    def keys(self, x: Tensor) -> Tensor:
        return split_heads(self.k_proj(x), self.heads)

    def values(self, x: Tensor) -> Tensor:
        return split_heads(self.v_proj(x), self.heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Tokens (B,N,C), (B,M,C), (B,M,C) -> (B,N,C)"""
        return self.proj(join_heads(attend(self.queries(q), self.keys(k), self.values(v))))


class SelfAttentionBlock(nn.Module):
    """Pre-norm self attention with learned positions on queries and keys, then an MLP; both residual."""

    def __init__(self, side: int, width: int, heads: int):
        super().__init__()
        self.q_pos_embedding = nn.Parameter(torch.empty(1, side**2, width))
        self.k_pos_embedding = nn.Parameter(torch.empty(1, side**2, width))
        self.norm_q = nn.LayerNorm(width)
        self.norm_kv = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm_ffn = nn.LayerNorm(width)
        # the published file counts a dropout between the two linear layers
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Identity(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q = self.norm_q(x + self.q_pos_embedding)
        k = self.norm_kv(x + self.k_pos_embedding)
        x = x + self.attn(q, k, self.norm_kv(x))
        return x + self.mlp(self.norm_ffn(x))
