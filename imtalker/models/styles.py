"""What a latent makes of a modulated convolution: in Triton one launch, in PyTorch a dozen of tiny ones."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import backend

SMALLEST = 1e-18  # largest number of a style that is divided by: its square is a normal float32


def style_and_scale(
    latent: Tensor, weight: Tensor, bias: Tensor, energy: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The factors of a convolution's inputs, of which the largest is 1, and those that normalise its outputs.

    latent (B,n); weight (C,n) and bias (C,) of the linear layer that makes styles of it; energy (O,C): squares of the
    convolution's weights, summed over its cells; epsilon: added to the energy of each output. Returns (B,C) and (B,O)
    in the latent's precision, computed in float32.
    """

    def kernel() -> tuple[Tensor, Tensor]:
        from .kernels import styles

        return styles.style_and_scale(latent, weight, bias, energy, epsilon, SMALLEST)

    def plain() -> tuple[Tensor, Tensor]:
        style = F.linear(latent, weight, bias).float()
        # divided by the largest, or input times style overflows half precision; the normalisation cancels it
        largest = torch.linalg.vector_norm(style, math.inf, dim=1, keepdim=True).clamp(min=SMALLEST)
        style = style / largest
        # in float32: small squares and their inverse are outside half precision
        squares = F.linear(style.square(), energy.float()).add(largest.pow(-2), alpha=epsilon)
        scale = torch.rsqrt(squares).clamp(max=torch.finfo(latent.dtype).max)
        return style.to(latent.dtype), scale.to(latent.dtype)

    return backend.with_kernel("styles", (*energy.shape, latent.shape[1]), latent, kernel, plain)
