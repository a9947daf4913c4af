"""Attention between feature maps: global and windowed.

Maps (B,C,S,S) become tokens (B,S*S,C), row-major; heads are contiguous channel slices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backend import working_set
from .folding import Folded


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


class WindowAttention(Folded):
    """Multi-head attention inside windows, with a learned bias by relative position; with `shifted`, the map is rolled
    by half a window first and cells that only the roll brought together do not see each other.

    Heads are as narrow as 4 channels, too few for fused kernels. Here the keys of all heads of a window stand in one
    block-diagonal matrix, likewise the values: two well-formed products and one softmax for as many windows as fit the
    device's working set, and the heads are side by side again at the end.
    """

    def __init__(self, side: int, width: int, heads: int, window: int, shifted: bool):
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.heads, self.window = heads, window
        self.register_buffer("index", relative_index(window), persistent=False)
        # only the last window of a row and the last row of windows are torn by the roll
        mask = shift_mask(side, window).unflatten(0, (side // window, -1))[[0, -1]] if shifted else None
        self.register_buffer("mask", mask, persistent=False)

    def derive(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight and bias of q, k, v together, q scaled; bias and mask of the logits (1 or 2,windows,n,heads*n), the
        second for the last row of windows."""
        scale = (self.q.weight.shape[0] // self.heads) ** -0.5
        weight = torch.cat([self.q.weight * scale, self.k.weight, self.v.weight])
        bias = torch.cat([self.q.bias * scale, self.k.bias, self.v.bias])
        position = self.relative_position_bias_table[self.index].transpose(1, 2)[None, None]
        if self.mask is not None:
            position = position + self.mask[..., None, :].to(position.dtype)
        return weight, bias, position.flatten(3)

    def forward(self, q: Tensor, kv: Tensor) -> Tensor:
        """q, kv (B,R,W,n,C), R rows of W windows -> (B,R,W,n,C)"""
        weight, bias, logit_bias = self.derived()
        width = q.shape[-1]
        q = F.linear(q, weight[:width], bias[:width])
        k, v = F.linear(kv, weight[width:], bias[width:]).chunk(2, dim=-1)
        output = torch.empty_like(q)
        rows = q.shape[1] - len(logit_bias) + 1
        for part, extra in zip((slice(0, rows), slice(rows, None)), logit_bias):
            self._attend(q[:, part], k[:, part], v[:, part], extra, output[:, part])
        return self.proj(output)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, output: Tensor) -> None:
        """(B,R,W,n,C) each, bias (1 or W,n,heads*n); writes into output."""
        batch, rows, windows, cells, width = q.shape
        heads, depth = self.heads, width // self.heads
        per_row = windows * cells * heads * cells * q.element_size()
        training = torch.is_grad_enabled()
        step = rows if training else max(1, min(rows, working_set(q.device) // per_row))
        # the zeros outside the blocks are written once
        all_keys = q.new_zeros(step, windows, heads, depth, heads, cells)
        all_values = q.new_zeros(step, windows, heads, cells, heads, depth)
        logits = None if training else q.new_empty(step * windows, cells, heads * cells)
        for b in range(batch):
            for start in range(0, rows, step):
                part = slice(start, min(start + step, rows))
                count = part.stop - part.start
                keys, values = (x[:count] if not training else x.clone() for x in (all_keys, all_values))
                split = (x[b, part].unflatten(-1, (heads, depth)) for x in (k, v))
                # diagonals come last: (R,W,depth,n,heads) and (R,W,n,depth,heads)
                for block, x, order in zip((keys, values), split, ((0, 1, 4, 2, 3), (0, 1, 2, 4, 3))):
                    block.diagonal(dim1=2, dim2=4).copy_(x.permute(order))
                x = torch.baddbmm(
                    bias.repeat(count, 1, 1) if len(bias) > 1 else bias,
                    q[b, part].flatten(0, 1),
                    keys.view(count * windows, width, heads * cells),
                    out=None if training else logits[: count * windows],
                )
                x = x.unflatten(-1, (heads, cells)).softmax(dim=-1).flatten(2)
                x = x @ values.view(count * windows, heads * cells, width)
                output[b, part] = x.view(count, windows, cells, width)


class SwinBlock(nn.Module):
    """Window attention and MLP, both residual; with `shifted`, windows straddle those of the block before."""

    def __init__(self, side: int, width: int, heads: int, window: int, shifted: bool):
        super().__init__()
        self.norm_q = nn.LayerNorm(width)
        self.norm_kv = nn.LayerNorm(width)
        self.attn = WindowAttention(side, width, heads, window, shifted)
        self.norm_ffn = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.side, self.window, self.shift = side, window, window // 2 if shifted else 0

    def forward(self, x: Tensor) -> Tensor:
        """(B,S*S,C) -> (B,S*S,C)"""
        q, kv = (self._windows(norm(x)) for norm in (self.norm_q, self.norm_kv))
        attended = from_windows(self.attn(q, kv).flatten(1, 2), self.window, self.side)
        x = x + attended.roll((self.shift, self.shift), dims=(1, 2)).flatten(1, 2)
        return x + self.mlp(self.norm_ffn(x))

    def _windows(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (self.side, self.side)).roll((-self.shift, -self.shift), dims=(1, 2))
        return to_windows(x, self.window).unflatten(1, (self.side // self.window, -1))
