"""Attention inside the windows of a map (Swin), for the levels too large for attention over the whole.

Maps are tokens (B,S*S,C), row-major; heads are contiguous channel slices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backend import working_set
from .folding import Folded


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


def window_order(side: int, window: int, shift: int) -> Tensor:
    """(S*S,): which token comes where when the map is rolled by -shift and read window by window."""
    tokens = torch.arange(side**2, device="cpu").view(1, side, side, 1)
    return to_windows(tokens.roll((-shift, -shift), dims=(1, 2)), window).flatten()


class WindowAttention(nn.Module):
    """Weights of multi-head attention inside windows, with a learned bias by relative position."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)


class SwinBlock(Folded):
    """Window attention and MLP, both residual; with `shifted`, windows straddle those of the block before.

    Heads are as narrow as 4 channels, too few for fused kernels. Where a map's logits are more than the working set, it
    is one head after the other, for as many windows as that holds; keys, values and result then stand channels first,
    since products along rows of four numbers are slow.
    """

    def __init__(self, side: int, width: int, heads: int, window: int, shifted: bool):
        super().__init__()
        self.norm_q = nn.LayerNorm(width)
        self.norm_kv = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.norm_ffn = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.heads, self.rows, self.cells = heads, side // window, window**2
        order = window_order(side, window, window // 2 if shifted else 0)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.register_buffer("index", relative_index(window), persistent=False)
        # the roll tears only the last window of each row and the last row of windows
        mask = shift_mask(side, window).unflatten(0, (self.rows, self.rows))[[0, -1]] if shifted else None
        self.register_buffer("mask", mask, persistent=False)

    def derive(self) -> tuple[Tensor, ...]:
        """Weight and bias of q (scaled), k and v together; bias of the logits, mask included, (1,1,heads,n,n), or with
        `shifted` (2,W,heads,n,n), the second for the last row of windows; weight and bias of the MLP's entry."""
        attn = self.attn
        scale = (attn.q.weight.shape[0] // self.heads) ** -0.5
        q, q_bias = after_norm(self.norm_q, attn.q)
        k, k_bias = after_norm(self.norm_kv, attn.k)
        v, v_bias = after_norm(self.norm_kv, attn.v)
        logit_bias = attn.relative_position_bias_table[self.index].permute(2, 0, 1)[None, None]
        if self.mask is not None:
            logit_bias = logit_bias + self.mask[:, :, None].to(logit_bias)
        qkv = torch.cat([q * scale, k, v]), torch.cat([q_bias * scale, k_bias, v_bias])
        return *qkv, logit_bias, *after_norm(self.norm_ffn, self.mlp[0])

    def forward(self, x: Tensor) -> Tensor:
        """(B,S*S,C) -> (B,S*S,C)"""
        qkv, qkv_bias, logit_bias, mlp, mlp_bias = self.derived()
        normal = F.layer_norm(x, x.shape[-1:])
        windows = F.linear(normal[:, self.order], qkv, qkv_bias).unflatten(1, (self.rows, self.rows, self.cells))
        attended = self._attend(windows, logit_bias)
        x = x + self.attn.proj(attended.flatten(1, 3))[:, self.back]
        hidden = F.gelu(F.linear(F.layer_norm(x, x.shape[-1:]), mlp, mlp_bias))
        return x + self.mlp[2](hidden)

    def _attend(self, qkv: Tensor, logit_bias: Tensor) -> Tensor:
        """q, k, v (B,R,R,n,3C) -> (B,R,R,n,C), without gradients in as little memory as the working set."""
        usual = self.rows - len(logit_bias) + 1
        parts = list(zip((slice(0, usual), slice(usual, None)), logit_bias))
        map_bytes = self.rows**2 * self._window_bytes(qkv)
        at_once = len(qkv) if torch.is_grad_enabled() else working_set(qkv.device) // map_bytes
        if at_once:
            maps = qkv.split(at_once)
            return torch.cat([torch.cat([self._together(x[:, rows], bias) for rows, bias in parts], 1) for x in maps])
        attended = torch.empty_like(qkv[..., : qkv.shape[-1] // 3])
        for rows, bias in parts:
            self._head_by_head(qkv[:, rows], bias, attended[:, rows])
        return attended

    def _window_bytes(self, qkv: Tensor) -> int:
        """Of a window's logits, all heads."""
        return self.heads * self.cells**2 * qkv.element_size()

    def _together(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """q, k, v of rows of windows (B,R,W,n,3C), bias (1 or W,heads,n,n) -> (B,R,W,n,C)"""
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(4, 0, 1, 2, 5, 3, 6)
        x = ((q @ k.transpose(-2, -1)) + bias).softmax(dim=-1) @ v
        return x.transpose(-3, -2).flatten(-2)

    def _head_by_head(self, qkv: Tensor, bias: Tensor, output: Tensor) -> None:
        """The same, written into output (B,R,W,n,C)."""
        batch, rows, windows, cells, width = output.shape
        depth = width // self.heads
        step = max(1, min(rows, working_set(qkv.device) // (windows * self._window_bytes(qkv))))
        bias = bias.repeat(step, 1, 1, 1) if len(bias) > 1 and step > 1 else bias
        logits = qkv.new_empty(step * windows, cells, cells)
        for b in range(batch):
            for start in range(0, rows, step):
                part = slice(start, min(start + step, rows))
                q, kv = qkv[b, part].flatten(0, 1).split([width, 2 * width], dim=-1)
                k, v = kv.transpose(1, 2).contiguous().split(width, dim=1)
                attended = torch.empty_like(v)
                for head in range(self.heads):
                    own = slice(head * depth, (head + 1) * depth)
                    x = torch.baddbmm(bias[: len(q), head], q[:, :, own], k[:, own], out=logits[: len(q)])
                    attended[:, own] = v[:, own] @ x.softmax(dim=-1).transpose(1, 2)
                output[b, part] = attended.transpose(1, 2).view(-1, windows, cells, width)


def after_norm(norm: nn.LayerNorm, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that takes what the norm's affine part would have changed."""
    return layer.weight * norm.weight, layer.bias + layer.weight @ norm.bias
