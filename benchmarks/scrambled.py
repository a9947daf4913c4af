"""A motion space without names: the avatar's, mixed by a matrix that is folded into the weights of its models."""

import copy

import torch
from torch import Tensor

from imtalker.drawn.head import MOTION_SIZE
from imtalker.models.folding import fold
from imtalker.models.generator import Generator
from imtalker.models.renderer import Renderer


def mixing(seed: int = 0, condition: float = 4.0) -> Tensor:
    """A random well-conditioned matrix (16,16): mixed latents are latents @ mixing."""
    random = torch.Generator().manual_seed(seed)
    one, other = (torch.linalg.qr(torch.randn(MOTION_SIZE, MOTION_SIZE, generator=random)).Q for _ in range(2))
    return one @ torch.logspace(0, torch.tensor(condition).log10().item(), MOTION_SIZE).diag() @ other


def mixed(generator: Generator, matrix: Tensor) -> Generator:
    """A copy of the generator whose motion is that of the original @ matrix, but for its noise."""
    mixed, back = copy.deepcopy(generator), torch.linalg.inv(matrix)
    with torch.no_grad():
        for half in mixed.flow.input.weight.chunk(2, dim=1):
            half.copy_(half @ back.T)
        head = mixed.flow.head.linear
        head.weight.copy_(matrix.T @ head.weight)
        head.bias.copy_(head.bias @ matrix)
    return fold(mixed)


def mixed_renderer(renderer: Renderer, matrix: Tensor) -> Renderer:
    """A copy of the renderer that reads motion @ matrix off pictures, and renders such motion."""
    mixed, back = copy.deepcopy(renderer), torch.linalg.inv(matrix)
    with torch.no_grad():
        last, first = mixed.motion_encoder.mlp.last, mixed.adapter.in_layer
        last.weight.copy_(matrix.T @ last.weight)
        last.bias.copy_(last.bias @ matrix)
        first.weight[:, : len(matrix)] = first.weight[:, : len(matrix)] @ back.T
    return fold(mixed)
