"""Attention between feature maps: global, windowed, and the one that also says where it looked.

Maps (B,C,S,S) become tokens (B,S*S,C), row-major; heads are contiguous channel slices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def attend_and_match(q: Tensor, k: Tensor, v: Tensor, chunk: int = 512) -> tuple[Tensor, Tensor]:
    """Attention of q (B,h,N,d) over k, v (1,h,M,d), and for each query the key with the largest head-averaged weight.

    Returns the output (B,h,N,d) and indices (B,N). The N x M map exists only `chunk` queries at a time.
    """
    batch, _, count, width = q.shape
    output = torch.empty_like(q)
    match = torch.empty(batch, count, dtype=torch.long, device=q.device)
    keys = k.transpose(2, 3) * width**-0.5
    for b in range(batch):
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            # float32: sums over thousands of keys decide the match
            weights = (q[b, :, part] @ keys[0]).float().softmax(dim=-1)
            match[b, part] = weights.mean(dim=0).argmax(dim=-1)
            output[b, :, part] = weights.to(v.dtype) @ v[0]
    return output, match


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
        x = F.scaled_dot_product_attention(self.queries(q), self.keys(k), self.values(v))
        return self.proj(join_heads(x))


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


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B,S,S,C) -> (B, windows, window**2, C), windows row-major"""
    batch, side, _, channels = x.shape
    x = x.view(batch, side // window, window, side // window, window, channels)
    return x.transpose(2, 3).reshape(batch, -1, window**2, channels)


def from_windows(x: Tensor, window: int, side: int) -> Tensor:
    """The inverse of `to_windows`."""
    x = x.unflatten(2, (window, window)).unflatten(1, (side // window, side // window))
    return x.transpose(2, 3).reshape(x.shape[0], side, side, -1)


def shift_mask(side: int, window: int) -> Tensor:
    """(windows, window**2, window**2): -100 between cells that only the roll brought into one window, else 0."""
    shift = window // 2
    position = torch.arange(side, device="cpu")
    region = (position >= side - window).long() + (position >= side - shift).long()
    label = to_windows((3 * region[:, None] + region[None, :]).view(1, side, side, 1), window)[0, :, :, 0]
    return torch.where(label[:, :, None] == label[:, None, :], 0.0, -100.0)


def relative_index(window: int) -> Tensor:
    """(window**2, window**2): row of the bias table for each query and key cell of a window."""
    y, x = torch.meshgrid(torch.arange(window, device="cpu"), torch.arange(window, device="cpu"), indexing="ij")
    cells = torch.stack([y.flatten(), x.flatten()])
    dy, dx = cells[:, :, None] - cells[:, None, :]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


class WindowAttention(nn.Module):
    """Multi-head attention inside windows with a learned bias by relative position; some windows may be masked."""

    def __init__(self, width: int, heads: int, window: int, mask: Tensor | None):
        """mask: (W,window**2,window**2), added to the logits of each of the W windows."""
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.heads = heads
        self.register_buffer("index", relative_index(window), persistent=False)
        # few windows are masked: they are done again with their mask, so that no map of all windows is needed
        masked = None if mask is None else mask.flatten(1).any(dim=1).nonzero().squeeze(1)
        self.register_buffer("masked", masked, persistent=False)
        self.register_buffer("mask", None if mask is None else mask[masked], persistent=False)

    def forward(self, q: Tensor, kv: Tensor) -> Tensor:
        """q, kv (B,W,n,C) -> (B,W,n,C)"""
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)[None]
        q, k, v = (
            layer(x).unflatten(3, (self.heads, -1)).transpose(2, 3)
            for layer, x in ((self.q, q), (self.k, kv), (self.v, kv))
        )
        x = self._attend(q, k, v, bias)
        if self.mask is not None:
            bias = bias + self.mask[:, None].to(bias.dtype)
            x[:, self.masked] = self._attend(q[:, self.masked], k[:, self.masked], v[:, self.masked], bias)
        return self.proj(x.transpose(2, 3).flatten(3))

    @staticmethod
    def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """(B,W,h,n,d) each, bias (1 or W,h,n,n); in four dimensions, for which there are fused kernels."""
        batch, windows = q.shape[:2]
        bias = bias.expand(batch * windows, -1, -1, -1) if len(bias) == 1 else bias.repeat(batch, 1, 1, 1)
        x = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=bias)
        return x.unflatten(0, (batch, windows))


class SwinBlock(nn.Module):
    """Window attention and MLP, both residual; with `shifted`, windows straddle those of the block before."""

    def __init__(self, side: int, width: int, heads: int, window: int, shifted: bool):
        super().__init__()
        self.norm_q = nn.LayerNorm(width)
        self.norm_kv = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window, shift_mask(side, window) if shifted else None)
        self.norm_ffn = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.side, self.window, self.shift = side, window, window // 2 if shifted else 0

    def forward(self, x: Tensor) -> Tensor:
        """(B,S*S,C) -> (B,S*S,C)"""
        q, kv = (self._windows(norm(x)) for norm in (self.norm_q, self.norm_kv))
        attended = from_windows(self.attn(q, kv), self.window, self.side)
        x = x + attended.roll((self.shift, self.shift), dims=(1, 2)).flatten(1, 2)
        return x + self.mlp(self.norm_ffn(x))

    def _windows(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (self.side, self.side)).roll((-self.shift, -self.shift), dims=(1, 2))
        return to_windows(x, self.window)
