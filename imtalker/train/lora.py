"""Low-rank adaptation (LoRA) of the flow transformer: trains a few per cent of the weights and freezes the rest.

The change is added whenever a layer's weight is read, so it also reaches the modulations, which FlowTransformer reads
all together. `merge` then leaves ordinary weights that save, fold and load like any others.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..models.flow import FlowTransformer


class LowRank(nn.Module):
    """W + up @ down, with up initialised to 0."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        outputs, inputs = weight.shape
        rank = min(rank, outputs, inputs)
        self.down = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).to(weight.dtype)


def adapt(flow: FlowTransformer, rank: int, seed: int = 0) -> nn.ModuleList:
    """Adds low-rank parts to every linear layer of the blocks, freezes the rest and returns the parts."""
    flow.requires_grad_(False).train()  # training mode unfolds it
    parts = nn.ModuleList()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in list(flow.blocks.modules()):
            if isinstance(layer, nn.Linear):
                parts.append(LowRank(layer.weight, rank).to(layer.weight.device))
                parametrize.register_parametrization(layer, "weight", parts[-1])
    return parts


def merge(flow: FlowTransformer) -> None:
    """Adds the low-rank parts to the weights for good."""
    for layer in list(flow.blocks.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
