"""The optimiser that trains the avatar."""

import copy

import pytest
import torch
from torch import nn

from imtalker.avatar.muon import Muon, orthogonalised
from imtalker.models.layers import EqualLinear

pytestmark = pytest.mark.recipe


@pytest.mark.parametrize("shape", [(40, 60), (16, 90), (90, 16), (1, 30)])
def test_singular_values_come_close_to_1_and_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, 1, shape[1])
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.T @ orthogonalised(matrix) @ right.T
    values = found.diagonal()
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert (found - torch.diag(values)).abs().max() < 0.02


def test_weak_inputs_are_learned_beside_strong_ones():
    """A linear layer whose inputs have deviations from 30 to 0.3: Adam is slower to use the weakest."""
    inputs = torch.randn(512, 8, generator=torch.Generator().manual_seed(1)) * torch.logspace(1.5, -0.5, 8)
    inputs = inputs @ torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2)))[0]
    target = torch.linalg.svd(inputs, full_matrices=False)[0] * 512**0.5

    def remaining_loss(make) -> float:
        torch.manual_seed(3)
        layer = nn.Linear(8, 8)
        optimizer = make(layer)
        for step in range(200):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 200)
            loss = (layer(inputs) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    adam = remaining_loss(lambda layer: torch.optim.Adam(layer.parameters(), 0.05))
    assert remaining_loss(lambda layer: Muon(layer, 0.05)) < 0.5 * adam


def test_equalised_layers_learn_faster_and_all_but_matrices_by_adam():
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), EqualLinear(6, 6))
    nn.init.normal_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    before = copy.deepcopy(model)
    optimizer = Muon(model, 1e-3, equalised=5)
    model(torch.randn(32, 6)).square().sum().backward()
    optimizer.step()
    moved = [(a - b).detach() for a, b in zip(model.parameters(), before.parameters())]
    plain, bias, _, _, equalised, _ = moved
    assert equalised.square().mean().sqrt() == pytest.approx(5 * plain.square().mean().sqrt().item(), rel=0.3)
    torch.testing.assert_close(bias.abs(), torch.full_like(bias, 1e-3), rtol=1e-3, atol=0)


def test_it_resumes_from_its_state():
    torch.manual_seed(0)
    whole = nn.Linear(5, 3)
    stopped = copy.deepcopy(whole)
    x, y = torch.randn(16, 5), torch.randn(16, 3)

    def train(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()

    train(whole, Muon(whole, 1e-2), 6)
    first = Muon(stopped, 1e-2)
    train(stopped, first, 3)
    second = Muon(stopped, 1e-2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(stopped, second, 3)
    torch.testing.assert_close(stopped.weight, whole.weight, rtol=0, atol=0)
    torch.testing.assert_close(stopped.bias, whole.bias, rtol=0, atol=0)
