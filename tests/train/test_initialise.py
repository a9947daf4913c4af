"""The weights that training starts from."""

import pytest
import torch
from tiny import generator_config, renderer_config

from imtalker import load_generator, load_renderer, save_weights
from imtalker.train.forward import render
from imtalker.train.initialise import new_generator, new_renderer, standardise
from imtalker.weights.checkpoints import convert

GENERATIONS = pytest.mark.parametrize("generation", ["v1", "v2"])


def patches(count, side=64, seed=0):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")


@GENERATIONS
def test_every_weight_is_set(generation):
    """On memory full of NaN, so a missing one shows."""
    real = torch.empty
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", lambda *size, **how: real(*size, **how).fill_(float("nan")))
        models = new_renderer(renderer_config(generation)), new_generator(generator_config(generation))
    for model in models:
        assert model.training
        assert not [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]


def test_a_seed_gives_one_model_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (new_renderer(renderer_config(), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["synthesis.head.1.weight"], other["synthesis.head.1.weight"])


@GENERATIONS
def test_frames_are_neither_flat_nor_saturated(generation):
    renderer = new_renderer(renderer_config(generation))
    side = renderer.config.input_size
    sources, drivers = patches(4, side), patches(4, side, 1)
    with torch.no_grad():
        features, identity = renderer.identity_encoder(sources)
        frames = render(
            renderer, features, identity, renderer.motion_encoder(sources), renderer.motion_encoder(drivers)
        )
    for each in (*features, identity):
        assert 0.05 < each.std() < 20
    assert 0.02 < frames.std() < 0.4


@GENERATIONS
def test_standardised_latents_tell_images_apart(generation):
    renderer = new_renderer(renderer_config(generation))
    images = patches(24, renderer.config.input_size)
    with torch.no_grad():
        before = renderer.motion_encoder(images).std(dim=0)
        latents = standardise(renderer.motion_encoder.mlp.last, lambda: renderer.motion_encoder(images))
        identity = renderer.identity_encoder(images)[1]
        adapted = standardise(renderer.adapter.mlp.last, lambda: renderer.adapter(latents, identity))
    assert before.max() < 0.5
    for each in (latents, adapted):
        torch.testing.assert_close(each.std(dim=0), torch.ones(8), rtol=0, atol=1e-3)
        torch.testing.assert_close(each.mean(dim=0), torch.zeros(8), rtol=0, atol=1e-3)


@GENERATIONS
def test_a_new_generator_predicts_no_velocity_yet(generation):
    generator = new_generator(generator_config(generation))
    x, condition = torch.randn(2, 60, 8), torch.randn(2, 60, 8)
    assert not generator.flow(x, torch.rand(2), torch.randn(2, 8), condition).any()


def test_positions_of_v1_are_different_everywhere():
    table = new_generator(generator_config("v1")).flow.pos_embed[0]
    near = torch.cdist(table, table) + 9 * torch.eye(len(table))
    assert near.min() > 0.5


def test_new_models_load_as_files(tmp_path):
    save_weights(new_renderer(renderer_config()), tmp_path / "renderer.safetensors")
    save_weights(new_generator(generator_config()), tmp_path / "generator.safetensors")
    assert load_renderer(tmp_path / "renderer.safetensors").config == renderer_config()
    generator = load_generator(tmp_path / "generator.safetensors")
    # the audio encoder of another file, and nothing else of it
    taken = new_generator(generator_config(), seed=5, wav2vec=wav2vec_file(generator, tmp_path))
    for name, tensor in taken.state_dict().items():
        same = torch.equal(tensor, generator.state_dict()[name])
        assert same or not name.startswith("audio_encoder.")
    assert not torch.equal(taken.flow.input.weight, generator.flow.input.weight)


def wav2vec_file(generator, folder):
    save_weights(generator, folder / "whole.safetensors")
    return convert(folder / "whole.safetensors", folder / "split.safetensors", split_wav2vec=True)[1]
