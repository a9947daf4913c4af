"""Attention inside the windows of a map (Swin), for levels too large for global attention.

Maps are tokens (B,S*S,C), row-major; heads are contiguous channel slices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import in_cache
from .backend import attends_fused, keeps_in_cache, swin_block, working_set
from .folding import Folded

# Added to the logits between unrelated cells. The published -100 leaves weights of 1e-44: lost in a float32 sum, but
# slow on a CPU, as all numbers below 1e-38 are. With -120 they are exactly 0.
APART = -120.0
PART = 1 / 16  # share of the working set for one head's logits: fits the L2 cache


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B,S,S,C) -> (B, windows, window**2, C), windows row-major"""
    batch, side, _, channels = x.shape
    x = x.view(batch, side // window, window, side // window, window, channels)
    return x.transpose(2, 3).reshape(batch, -1, window**2, channels)


def shift_mask(side: int, window: int) -> Tensor:
    """(windows, window**2, window**2): APART between cells that only the roll brought together, else 0."""
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
    """(S*S,): the order of tokens when the map is rolled by -shift and read window by window."""
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
    """Window attention and MLP, both residual; with `shifted`, windows straddle those of the previous block.

    Heads are as narrow as 4 channels, too few for fused kernels. If a map's logits exceed the working set, heads are
    computed one at a time, over as many windows as fit; keys, values and result are then stored channels first, because
    products along rows of four numbers are slow. In float32 on a CPU, `in_cache` computes the whole block in parts; on
    CUDA one Triton kernel does.
    """

    only_derived = ("norm_q", "norm_kv", "norm_ffn", "attn.q", "attn.k", "attn.v", "mlp.0", "index", "mask")
    only_derived += ("attn.relative_position_bias_table",)

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
        # windows grouped by their mask: inside, in the last column, in the last row, in the corner
        masks, group, counts = mask.flatten(1).unique(dim=0, return_inverse=True, return_counts=True)
        self.groups = counts.tolist()
        order = order[group.argsort()].flatten()
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.register_buffer("group", group.sort().values.int(), persistent=False)
        self.register_buffer("index", relative_index(window), persistent=False)
        self.register_buffer("mask", masks.view(-1, 1, *mask.shape[1:]), persistent=False)

    def derive(self) -> tuple[Tensor, ...]:
        """Weight and bias of q (scaled), k and v as one layer; logit bias with mask for each group of windows,
        (groups,heads,n*n); weight and bias of the MLP's first layer."""
        attn = self.attn
        scale = (attn.q.weight.shape[0] // self.heads) ** -0.5
        q, q_bias = after_norm(self.norm_q, attn.q)
        k, k_bias = after_norm(self.norm_kv, attn.k)
        v, v_bias = after_norm(self.norm_kv, attn.v)
        position = attn.relative_position_bias_table[self.index].permute(2, 0, 1)
        logit_bias = (position + self.mask.to(position)).flatten(2).contiguous()
        qkv = torch.cat([q * scale, k, v]), torch.cat([q_bias * scale, k_bias, v_bias])
        return *qkv, logit_bias, *after_norm(self.norm_ffn, self.mlp[0])

    def forward(self, x: Tensor) -> Tensor:
        """(B,S*S,C) -> (B,S*S,C)"""
        weights = self._weights()
        return swin_block(x, weights, self.order, self.group, lambda: self._plain(x, weights))

    def _weights(self) -> in_cache.Swin:
        qkv, qkv_bias, logit_bias, mlp, mlp_bias = self.derived()
        logit_bias = logit_bias.unflatten(2, (self.cells, self.cells))
        proj, out = self.attn.proj, self.mlp[2]
        layers = (proj.weight, proj.bias), (mlp, mlp_bias), (out.weight, out.bias)
        return in_cache.Swin(self.heads, (qkv, qkv_bias), logit_bias, *layers)

    def _in_cache(self, x: Tensor, weights: in_cache.Swin) -> Tensor | None:
        """The same on a CPU, for most weights (see in_cache)."""
        return in_cache.swin_block(x, weights, self.order.view(-1, self.cells), self.groups, APART / 2)

    def _plain(self, x: Tensor, weights: in_cache.Swin) -> Tensor:
        if keeps_in_cache(x) and (result := self._in_cache(x, weights)) is not None:
            return result
        normal = F.layer_norm(x, x.shape[-1:])
        if attends_fused(x):
            attended = self._fused(normal, weights)
        else:
            windows = F.linear(normal[:, self.order], *weights.qkv).unflatten(1, (-1, self.cells))
            attended = self._attend(windows, weights.logit_bias).flatten(1, 2)
        x = x + F.linear(attended, *weights.proj)[:, self.back]
        hidden = F.gelu(F.linear(F.layer_norm(x, x.shape[-1:]), *weights.mlp))
        return x + F.linear(hidden, *weights.mlp_out)

    def _fused(self, normal: Tensor, weights: in_cache.Swin) -> Tensor:
        """Normalised tokens (B,S*S,C) -> attended tokens, window by window, through PyTorch's own kernel.

        That takes heads of a multiple of 8 channels: the layer before makes the missing ones, as zeros.
        """
        width = normal.shape[-1]
        missing = -(width // self.heads) % 8
        weight, bias = (tensor.unflatten(0, (3 * self.heads, -1)) for tensor in weights.qkv)
        qkv = F.pad(weight, (0, 0, 0, missing)).flatten(0, 1), F.pad(bias, (0, missing)).flatten()
        parts = []
        for tokens, logit_bias in zip(self.order.split([n * self.cells for n in self.groups]), weights.logit_bias):
            x = F.linear(normal[:, tokens], *qkv).view(-1, self.cells, 3, self.heads, width // self.heads + missing)
            q, k, v = x.permute(2, 0, 3, 1, 4)
            mask = logit_bias.expand(len(q), -1, -1, -1)
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
            parts.append(x[..., : width // self.heads].transpose(1, 2).reshape(len(normal), -1, width))
        return torch.cat(parts, dim=1)

    def _attend(self, qkv: Tensor, logit_bias: Tensor) -> Tensor:
        """q, k, v (B,W,n,3C) -> (B,W,n,C), within the working set unless gradients are needed."""
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
        """The same as `_together`, written into output (B,W,n,C)."""
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
    """Weight and bias of the layer with the affine part of the norm before it folded in."""
    return layer.weight * norm.weight, layer.bias + layer.weight @ norm.bias
