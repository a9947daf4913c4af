"""Muon (Jordan et al., 2024): orthogonal update steps for weight matrices, Adam for everything else.

Small but important details, such as a pupil of a few pixels, contribute little to the gradients next to large areas of
colour. Adam scales each weight separately and keeps that imbalance; an orthogonal step moves equally far in all
directions.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..models.layers import EqualConv2d, EqualLinear, ModulatedConv2d

MOMENTUM = 0.95
BETAS, TINY = (0.9, 0.99), 1e-8
POLYNOMIAL, ITERATIONS = (
    (3.4445, -4.7750, 2.0315),
    5,
)  # Jordan's Newton-Schulz coefficients: singular values converge to about 1
SIZE = 0.2  # root mean square of a step at rate 1, to match Adam's


class Muon(Optimizer):
    """Optimises the trainable parameters of a module at `rate`.

    Matrices are the weights of linear and convolution layers, the latter reshaped to (outputs, everything else).
    Equalised layers store their weights at unit variance, so their rate is multiplied by `equalised`.
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
        groups = [{"params": members, "kind": kind, "lr": rates[kind]} for kind, members in groups.items() if members]
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
    ahead = gradient.lerp(mean, MOMENTUM)  # Nesterov momentum
    matrix = ahead.flatten(1) if ahead.ndim < 5 else ahead[0].flatten(1)  # a modulated weight has a 1 in front
    return SIZE * max(matrix.shape) ** 0.5 * orthogonalised(matrix).view_as(gradient)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Moves the singular values of a matrix U S V' close to 1, by Newton-Schulz iteration: about U V'.

    Singular values below a thousandth of the norm stay smaller.
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
