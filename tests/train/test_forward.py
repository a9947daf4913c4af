"""The batched forward pass equals the renderer's own, and gradients flow through it."""

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_renderer

from imtalker.models.folding import fold
from imtalker.train.forward import render


@pytest.fixture(scope="module", params=["v1", "v2"])
def renderer(request):
    """With identities far apart, so mixing them up would show."""
    model = tiny_renderer(request.param)
    model.identity_encoder.mlp.last.weight *= 1000
    return fold(model)


def patches(renderer, count, seed=1):
    """Patches of colour: unlike noise, different images have different means."""
    side = renderer.config.input_size
    coarse = torch.rand(count, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (side, side), mode="bilinear")


def every_cell(renderer):
    config = renderer.config
    return [torch.arange(config.side(level) ** 2) for level in range(config.attention_levels)]


def queries_or_none(renderer, with_queries):
    return every_cell(renderer) if with_queries else None


def encoded(renderer, sources, drivers):
    features, identity = renderer.identity_encoder(sources)
    return features, identity, renderer.motion_encoder(sources), renderer.motion_encoder(drivers)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("with_queries", [False, True])
def test_it_renders_each_source_as_the_renderer_does(renderer, count, with_queries):
    sources, drivers = patches(renderer, count), patches(renderer, count, seed=2)
    with torch.no_grad():
        *source, latents = encoded(renderer, sources, drivers)
        frames = render(renderer, *source, latents, queries_or_none(renderer, with_queries))
        frames = frames[0] if with_queries else frames
        for number in range(count):
            alone = renderer.encode_source(sources[number : number + 1].movedim(1, -1))
            expected = renderer(alone, latents[number : number + 1])
            torch.testing.assert_close(frames[number : number + 1], expected, rtol=0, atol=1e-5)
    assert count == 1 or (frames[0] - frames[1]).abs().max() > 1e-3, "samples differ, so mixing them up would show"


def test_it_returns_the_attention_of_the_query_cells(renderer):
    inputs = patches(renderer, 2), patches(renderer, 2, seed=2)
    every = every_cell(renderer)
    three = [each[[5, 0, 3]] for each in every]
    with torch.no_grad():
        _, maps = render(renderer, *encoded(renderer, *inputs), every)
        _, rows = render(renderer, *encoded(renderer, *inputs), three)
    assert [tuple(each.shape) for each in maps] == [(2, len(n), len(n)) for n in every]
    for each, chosen in zip(maps, rows):
        torch.testing.assert_close(each.sum(dim=-1), torch.ones(each.shape[:2]))
        torch.testing.assert_close(chosen, each[:, [5, 0, 3]])
        assert (chosen[:, 0] - chosen[:, 1]).abs().max() > 1e-4, "cells attend to different places"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("with_queries", [False, True])
def test_gradients_reach_every_weight(renderer, training, with_queries):
    model = tiny_renderer(renderer.generation).requires_grad_(True).train().train(training)
    frames = render(
        model, *encoded(model, patches(model, 2), patches(model, 2, 2)), queries_or_none(model, with_queries)
    )
    frames = frames[0] if with_queries else frames
    frames.square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("with_queries", [False, True])
def test_gradients_are_those_of_the_renderer(renderer, with_queries):
    model = tiny_renderer(renderer.generation).train().eval()
    sources, drivers = patches(model, 2), patches(model, 2, 2)
    weights = [
        model.identity_encoder.stem.get_parameter("0.weight").requires_grad_(True),
        model.synthesis.head[1].weight.requires_grad_(True),
        model.identity_encoder.mlp.last.weight.requires_grad_(True),
        model.identity_encoder.down[0].conv2.weight.requires_grad_(True),
        model.motion_encoder.conv1.weight.requires_grad_(True),
        model.transfer.levels[-1].cross.q_proj.weight.requires_grad_(True),
    ]
    frames = render(model, *encoded(model, sources, drivers), queries_or_none(model, with_queries))
    found = torch.autograd.grad((frames[0] if with_queries else frames).square().sum(), weights)
    total = 0
    for number in range(2):
        features, identity, own, latents = encoded(model, *(x[number : number + 1] for x in (sources, drivers)))
        reference = model.transfer.prepare(features, model.motion_decoder(model.adapter(own, identity)))
        maps = model.motion_decoder(model.adapter(latents, identity))
        total = total + model.synthesis(model.transfer(maps, reference)).square().sum()
    for ours, theirs in zip(found, torch.autograd.grad(total, weights)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
