"""The flow-matching transformer: from noisy motion and conditions to a velocity, one token per frame."""

import itertools
import math
from collections.abc import Callable, Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import join_heads
from .config import GeneratorConfig
from .folding import Folded
from .recording import Recording

TIME_FREQUENCIES = 128


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def rotary_table(length: int, width: int) -> Tensor:
    """(2,length,width): cosines and sines of the rotary angles, each frequency twice (RoPE)."""
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, device="cpu").float() / width)
    angles = torch.outer(torch.arange(length, device="cpu").float(), frequencies).repeat(1, 2)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Applies rotary positions to (B,heads,length,width)."""
    cos, sin = table.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class TimeEmbedding(nn.Module):
    """Time in 0..1, shape (B,) -> (B,width)."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        steps = torch.arange(TIME_FREQUENCIES, device=time.device) / TIME_FREQUENCIES
        angles = time[:, None].float() * torch.exp(-math.log(10000) * steps)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(time.dtype))


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor, rotary: Tensor | None, mask: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return self.proj(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """DiT block: the condition shifts, scales and gates its norms frame by frame (adaLN)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = SelfAttention(width, heads)
        self.mlp = FeedForward(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, modulation: Tensor, rotary: Tensor | None, mask: Tensor | None) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=-1)
        x = x + gate_a * self.attn(modulate(self.norm(x), shift_a, scale_a), rotary, mask)
        return x + gate_m * self.mlp(modulate(self.norm(x), shift_m, scale_m))


class Head(nn.Module):
    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, outputs)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = modulation.chunk(2, dim=-1)
        return self.linear(modulate(self.norm(x), shift, scale))


class FlowTransformer(Folded):
    """Velocity of the motion at time t (spec: Motion generator 3)."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        width, length = config.width, config.context + config.window
        self.input = nn.Linear(2 * config.motion_size, width)
        self.condition = nn.Linear(config.condition_size, width)
        self.time = TimeEmbedding(width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.head = Head(width, config.motion_size)
        self.context = config.context
        # v1: learned positions, attention to near frames; v2: rotary positions, attention to all
        positions = torch.arange(length, device="cpu")
        v1 = config.generation == "v1"
        self.pos_embed = nn.Parameter(torch.empty(1, length, width)) if v1 else None
        near = (positions[:, None] - positions[None, :]).abs() <= config.neighbours if v1 else None
        self.register_buffer("near", near, persistent=False)
        rotary = None if v1 else rotary_table(length, width // config.heads)
        self.register_buffer("rotary", rotary, persistent=False)
        self.recording = Recording()
        modulated = (*(f"blocks.{number}" for number in range(config.depth)), "head")
        self.only_derived = tuple(f"{module}.adaLN_modulation" for module in modulated)

    def derive(self) -> tuple[Tensor, Tensor]:
        """The linear layers of all adaLN modulations as one layer, head last."""
        layers = [module.adaLN_modulation[1] for module in (*self.blocks, self.head)]
        return torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])

    def forward(self, x: Tensor, time: Tensor, reference: Tensor, condition: Tensor) -> Tensor:
        """x (B,context+window,motion), time (B,), reference (B,motion), condition (B,context+window,condition_size).

        Returns the velocity of the window's frames, (B,window,motion).
        """
        return self.velocity(x, self.fixed_input(reference), self.condition(condition) + self.time(time)[:, None])

    def fixed_input(self, reference: Tensor) -> Tensor:
        """The first layer applied to the reference motion (B,motion), plus the positions; the same in every step."""
        weight = self.input.weight[:, : reference.shape[1]]
        h = F.linear(reference, weight, self.input.bias)[:, None]
        return h if self.pos_embed is None else h + self.pos_embed

    def velocity(self, x: Tensor, fixed: Tensor, condition: Tensor) -> Tensor:
        """x (1 or B,L,motion), `fixed_input`, projected condition and time (B,L,width) -> velocity (B,window,motion)"""
        h = F.linear(x, self.input.weight[:, x.shape[2] :]) + fixed
        *blocks, head = F.linear(F.silu(condition), *self.derived()).split(self._widths(), dim=-1)
        h = h.expand(len(condition), -1, -1)
        for block, modulation in zip(self.blocks, blocks):
            h = block(h, modulation, self.rotary, self.near)
        return self.head(h[:, self.context :], head[:, self.context :])

    def replayed(self, function: Callable[..., Tensor], inputs: Sequence[Tensor], settings: Hashable) -> Tensor:
        """Returns `function(*inputs)`, recorded and replayed where the device allows; the function uses this model."""
        return self.recording.run(function, inputs, itertools.chain(self.parameters(), self.buffers()), settings)

    def _apply(self, *args, **kwargs) -> "FlowTransformer":
        device = self.input.weight.device
        super()._apply(*args, **kwargs)
        if self.input.weight.device != device:
            self.recording.forget()  # frees its memory on the old device
        return self

    def _widths(self) -> list[int]:
        return [module.adaLN_modulation[1].out_features for module in (*self.blocks, self.head)]
