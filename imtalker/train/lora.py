"""Low-rank adaptation (LoRA) of the flow transformer: a few per cent of the weights learn, the rest stays.

The change is added where a layer's weight is read, so it also reaches the modulations that FlowTransformer reads all
at once; `merge` then leaves ordinary weights behind, which save, fold and load like any other.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..models.flow import FlowTransformer


class LowRank(nn.Module):
    """W + up @ down, with up 0 at first."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        outputs, inputs = weight.shape
        rank = min(rank, outputs, inputs)
        self.down = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).to(weight.dtype)


def adapt(flow: FlowTransformer, rank: int, seed: int = 0) -> nn.ModuleList:
    """Adds the low-rank parts to every linear layer of the blocks, freezes the rest, returns what is trained."""
    flow.requires_grad_(False).train()  # nothing stays folded
    parts = nn.ModuleList()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in list(flow.blocks.modules()):
            if isinstance(layer, nn.Linear):
                parts.append(LowRank(layer.weight, rank).to(layer.weight.device))
                parametrize.register_parametrization(layer, "weight", parts[-1])
    return parts


def merge(flow: FlowTransformer) -> None:
    """Puts the low-rank parts into the weights."""
    for layer in list(flow.blocks.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
