"""Muon: weight matrices change equally much in all directions, everything else as by Adam (Jordan et al., 2024).

What a network should learn early, a pupil of a few pixels, is drowned in its gradients by what pictures have more of,
their colours. Adam scales each number by itself and leaves that so; a step whose matrix is orthogonal does not.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..models.layers import EqualConv2d, EqualLinear, ModulatedConv2d

MOMENTUM = 0.95
BETAS, TINY = (0.9, 0.99), 1e-8
POLYNOMIAL, ITERATIONS = (3.4445, -4.7750, 2.0315), 5  # Jordan's: singular values to about 1, from above and below
SIZE = 0.2  # root mean square of a step at rate 1, as Adam's is


class Muon(Optimizer):
    """Of all parameters of a module that learn, at `rate`.

    Matrices are weights of linear and convolution layers, the latter as (outputs, everything else). Those of equalised
    layers, which are stored at unit variance, go `equalised` times as fast.
    """

    def __init__(self, module: nn.Module, rate: float, equalised: float = 1.0):
        unit = {id(each.weight) for each in module.modules() if isinstance(each, EqualLinear | EqualConv2d)}
        unit |= {id(each.weight) for each in module.modules() if isinstance(each, ModulatedConv2d)}
        groups = {"matrices": [], "equalised": [], "others": []}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                matrix = name.rpartition(".")[2] == "weight" and parameter.ndim > 1
                kind = "others" if not matrix else "equalised" if id(parameter) in unit else "matrices"
                groups[kind].append(parameter)
        rates = {"matrices": rate, "equalised": equalised * rate, "others": rate}
        groups = [{"params": some, "kind": kind, "lr": rates[kind]} for kind, some in groups.items() if some]
        super().__init__(groups, {"lr": rate})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            update = _adam if group["kind"] == "others" else _orthogonal
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(update(parameter.grad, self.state[parameter]), alpha=group["lr"])


def _orthogonal(gradient: Tensor, state: dict) -> Tensor:
    mean = state.setdefault("mean", torch.zeros_like(gradient)).lerp_(gradient, 1 - MOMENTUM)
    ahead = gradient.lerp(mean, MOMENTUM)  # Nesterov's
    matrix = ahead.flatten(1) if ahead.ndim < 5 else ahead[0].flatten(1)  # a modulated weight has a 1 in front
    return SIZE * max(matrix.shape) ** 0.5 * orthogonalised(matrix).view_as(gradient)


def orthogonalised(matrix: Tensor) -> Tensor:
    """The matrix with singular values near 1, by Newton-Schulz iteration: about U V' of its U S V'.

    Those below a thousandth of its norm stay smaller.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(1e-7)
    a, b, c = POLYNOMIAL
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def _adam(gradient: Tensor, state: dict) -> Tensor:
    mean, square = (state.setdefault(name, torch.zeros_like(gradient)) for name in ("mean", "square"))
    state["step"] = step = state.get("step", 0) + 1
    mean.lerp_(gradient, 1 - BETAS[0])
    square.lerp_(gradient.square(), 1 - BETAS[1])
    return mean / (1 - BETAS[0] ** step) / ((square / (1 - BETAS[1] ** step)).sqrt() + TINY)
