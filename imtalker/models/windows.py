"""Attention inside the windows of a map (Swin), for the levels too large for attention over the whole.

Maps are tokens (B,S*S,C), row-major; heads are contiguous channel slices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backend import working_set
from .folding import Folded

# Added to the logits of cells that do not belong together. Published -100, which leaves weights of 1e-44: no sum shows
# them in float32, but a CPU is slow with numbers below 1e-38. These are 0.
APART = -120.0
PART = 1 / 16  # of the working set is what one head's logits take at a time: these stay nearest to the cores


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
    """(windows, window**2, window**2): APART between cells that only the roll brought into one window, else 0."""
    shift = window // 2
    position = torch.arange(side, device="cpu")
    region = (position >= side - window).long() + (position >= side - shift).long()
    label = to_windows((3 * region[:, None] + region[None, :]).view(1, side, side, 1), window)[0, :, :, 0]
    return torch.where(label[:, :, None] == label[:, None, :], 0.0, APART)


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
        self.heads, self.cells = heads, window**2
        order = window_order(side, window, window // 2 if shifted else 0).view(-1, self.cells)
        mask = shift_mask(side, window) if shifted else torch.zeros(len(order), 1, 1, device="cpu")
        # windows with the same mask one after another: inside, in the last column, in the last row, in the corner
        masks, kind, counts = mask.flatten(1).unique(dim=0, return_inverse=True, return_counts=True)
        self.groups = counts.tolist()
        order = order[kind.argsort()].flatten()
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.register_buffer("index", relative_index(window), persistent=False)
        self.register_buffer("mask", masks.view(-1, 1, *mask.shape[1:]), persistent=False)

    def derive(self) -> tuple[Tensor, ...]:
        """Weight and bias of q (scaled), k and v together; bias of the logits for each group of windows, mask included,
        (groups,heads,n,n); weight and bias of the MLP's entry."""
        attn = self.attn
        scale = (attn.q.weight.shape[0] // self.heads) ** -0.5
        q, q_bias = after_norm(self.norm_q, attn.q)
        k, k_bias = after_norm(self.norm_kv, attn.k)
        v, v_bias = after_norm(self.norm_kv, attn.v)
        position = attn.relative_position_bias_table[self.index].permute(2, 0, 1)
        logit_bias = position + self.mask.to(position)
        qkv = torch.cat([q * scale, k, v]), torch.cat([q_bias * scale, k_bias, v_bias])
        return *qkv, logit_bias, *after_norm(self.norm_ffn, self.mlp[0])

    def forward(self, x: Tensor) -> Tensor:
        """(B,S*S,C) -> (B,S*S,C)"""
        qkv, qkv_bias, logit_bias, mlp, mlp_bias = self.derived()
        normal = F.layer_norm(x, x.shape[-1:])
        windows = F.linear(normal[:, self.order], qkv, qkv_bias).unflatten(1, (-1, self.cells))
        x = x + self.attn.proj(self._attend(windows, logit_bias).flatten(1, 2))[:, self.back]
        hidden = F.gelu(F.linear(F.layer_norm(x, x.shape[-1:]), mlp, mlp_bias))
        return x + self.mlp[2](hidden)

    def _attend(self, qkv: Tensor, logit_bias: Tensor) -> Tensor:
        """q, k, v (B,W,n,3C) -> (B,W,n,C), without gradients in as little memory as the working set."""
        map_bytes = qkv.shape[1] * self.heads * self.cells**2 * qkv.element_size()
        at_once = len(qkv) if torch.is_grad_enabled() else working_set(qkv.device) // map_bytes
        if at_once:
            parts = ((maps.split(self.groups, dim=1), logit_bias) for maps in qkv.split(at_once))
            return torch.cat([torch.cat(list(map(self._together, *part)), dim=1) for part in parts])
        attended = torch.empty_like(qkv[..., : qkv.shape[-1] // 3])
        for x, bias, result in zip(qkv.split(self.groups, dim=1), logit_bias, attended.split(self.groups, dim=1)):
            self._head_by_head(x, bias, result)
        return attended

    def _together(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """q, k, v of windows (B,W,n,3C), bias (heads,n,n) -> (B,W,n,C)"""
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        x = ((q @ k.transpose(-2, -1)) + bias).softmax(dim=-1) @ v
        return x.transpose(-3, -2).flatten(-2)

    def _head_by_head(self, qkv: Tensor, bias: Tensor, output: Tensor) -> None:
        """The same, written into output (B,W,n,C)."""
        _, count, cells, width = output.shape
        depth = width // self.heads
        step = max(1, min(count, int(PART * working_set(qkv.device)) // (cells**2 * qkv.element_size())))
        for maps, results in zip(qkv, output):
            for part, result in zip(maps.split(step), results.split(step)):
                q, kv = part.split([width, 2 * width], dim=-1)
                k, v = kv.transpose(1, 2).contiguous().split(width, dim=1)
                attended = torch.empty_like(v)
                for head in range(self.heads):
                    own = slice(head * depth, (head + 1) * depth)
                    weights = torch.baddbmm(bias[head], q[:, :, own], k[:, own]).softmax(dim=-1)
                    attended[:, own] = v[:, own] @ weights.transpose(1, 2)
                result.copy_(attended.transpose(1, 2))


def after_norm(norm: nn.LayerNorm, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that takes what the norm's affine part would have changed."""
    return layer.weight * norm.weight, layer.bias + layer.weight @ norm.bias
