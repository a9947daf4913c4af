"""The batched forward is the renderer's own, and can be trained through."""

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_renderer

from imtalker.models.folding import fold
from imtalker.train.forward import render


@pytest.fixture(scope="module", params=["v1", "v2"])
def renderer(request):
    """With identities far apart, so that a mixed one would show."""
    model = tiny_renderer(request.param)
    model.identity_encoder.mlp.last.weight *= 1000
    return fold(model)


def pictures(renderer, count, seed=1):
    """Patches of colour: unlike noise, one picture's is not another's mean."""
    side = renderer.config.input_size
    patches = torch.rand(count, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(patches, (side, side), mode="bilinear")


def every_cell(renderer):
    config = renderer.config
    return [torch.arange(config.side(level) ** 2) for level in range(config.attention_levels)]


def asked_or_not(renderer, asking):
    return every_cell(renderer) if asking else None


def encoded(renderer, sources, drivers):
    features, identity = renderer.identity_encoder(sources)
    return features, identity, renderer.motion_encoder(sources), renderer.motion_encoder(drivers)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("asking", [False, True])
def test_it_is_the_forward_of_rendering_for_each_source(renderer, count, asking):
    sources, drivers = pictures(renderer, count), pictures(renderer, count, seed=2)
    with torch.no_grad():
        *source, latents = encoded(renderer, sources, drivers)
        frames = render(renderer, *source, latents, asked_or_not(renderer, asking))
        frames = frames[0] if asking else frames
        for number in range(count):
            alone = renderer.encode_source(sources[number : number + 1].movedim(1, -1))
            expected = renderer(alone, latents[number : number + 1])
            torch.testing.assert_close(frames[number : number + 1], expected, rtol=0, atol=1e-5)
    assert count == 1 or (frames[0] - frames[1]).abs().max() > 1e-3, "samples differ, so that mixing them would show"


def test_it_tells_where_the_asked_cells_look(renderer):
    inputs = pictures(renderer, 2), pictures(renderer, 2, seed=2)
    every = every_cell(renderer)
    some = [each[[5, 0, 3]] for each in every]
    with torch.no_grad():
        _, maps = render(renderer, *encoded(renderer, *inputs), every)
        _, rows = render(renderer, *encoded(renderer, *inputs), some)
    assert [tuple(each.shape) for each in maps] == [(2, len(n), len(n)) for n in every]
    for each, asked in zip(maps, rows):
        torch.testing.assert_close(each.sum(dim=-1), torch.ones(each.shape[:2]))
        torch.testing.assert_close(asked, each[:, [5, 0, 3]])
        assert (asked[:, 0] - asked[:, 1]).abs().max() > 1e-4, "cells look to different places"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("asking", [False, True])
def test_gradients_reach_every_weight(renderer, training, asking):
    model = tiny_renderer(renderer.generation).requires_grad_(True).train().train(training)
    frames = render(model, *encoded(model, pictures(model, 2), pictures(model, 2, 2)), asked_or_not(model, asking))
    frames = frames[0] if asking else frames
    frames.square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("asking", [False, True])
def test_gradients_are_those_of_the_forward_of_rendering(renderer, asking):
    model = tiny_renderer(renderer.generation).train().eval()
    sources, drivers = pictures(model, 2), pictures(model, 2, 2)
    weights = [
        model.identity_encoder.stem.get_parameter("0.weight").requires_grad_(True),
        model.synthesis.head[1].weight.requires_grad_(True),
        model.identity_encoder.mlp.last.weight.requires_grad_(True),
        model.identity_encoder.down[0].conv2.weight.requires_grad_(True),
        model.motion_encoder.conv1.weight.requires_grad_(True),
        model.transfer.levels[-1].cross.q_proj.weight.requires_grad_(True),
    ]
    frames = render(model, *encoded(model, sources, drivers), asked_or_not(model, asking))
    found = torch.autograd.grad((frames[0] if asking else frames).square().sum(), weights)
    total = 0
    for number in range(2):
        features, identity, own, latents = encoded(model, *(x[number : number + 1] for x in (sources, drivers)))
        reference = model.transfer.prepare(features, model.motion_decoder(model.adapter(own, identity)))
        maps = model.motion_decoder(model.adapter(latents, identity))
        total = total + model.synthesis(model.transfer(maps, reference)).square().sum()
    for ours, theirs in zip(found, torch.autograd.grad(total, weights)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
