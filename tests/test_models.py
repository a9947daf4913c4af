"""Properties of the models at tiny size; exact values are in test_golden.py."""

import dataclasses

import pytest
import torch
from tiny import generator_config, renderer_config, tiny_generator, tiny_renderer

from imtalker import InputError, Motion
from imtalker.models.attention import from_windows, relative_index, shift_mask, to_windows
from imtalker.models.config import PUBLISHED, from_dict, to_dict


@pytest.fixture(scope="module", params=["v1", "v2"])
def renderer(request):
    return tiny_renderer(request.param)


@pytest.fixture(scope="module")
def source(renderer):
    return renderer.encode_source(torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1)))


def some_motion(renderer, frames=5):
    latents = torch.randn(frames, renderer.config.motion_size, generator=torch.Generator().manual_seed(2))
    return Motion(latents, generation=renderer.generation)


def test_frames_depend_on_motion_and_source(renderer, source):
    motion = some_motion(renderer)
    frames = renderer.render(source, motion)
    assert frames.shape == (5, 64, 64, 3)
    assert frames.dtype == torch.float32
    assert 0 <= frames.min() < frames.max() <= 1
    assert (frames[0] - frames[1]).abs().max() > 1e-3
    other = renderer.encode_source(torch.rand(1, 64, 64, 3))
    assert (renderer.render(other, motion) - frames).abs().max() > 1e-3


def test_batch_size_changes_nothing(renderer, source):
    motion = some_motion(renderer)
    one, five = (renderer.render(source, motion, batch_size=size) for size in (1, 5))
    torch.testing.assert_close(one, five, rtol=0, atol=1e-5)


def test_stream_is_render_in_blocks(renderer, source):
    motion = some_motion(renderer)
    blocks = list(renderer.stream(source, motion, batch_size=2))
    assert [len(block) for block in blocks] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(blocks), renderer.render(source, motion, batch_size=2), rtol=0, atol=0)


def test_stream_leaves_its_caller_out_of_inference_mode(renderer, source):
    for _ in renderer.stream(source, some_motion(renderer), batch_size=2):
        assert not torch.is_inference_mode_enabled()


def test_rendering_leaves_the_source_as_it_was(renderer, source):
    before = [tensor.clone() for tensor in (*source.features, *source.reference.keys, source.motion)]
    renderer.render(source, some_motion(renderer))
    for old, new in zip(before, (*source.features, *source.reference.keys, source.motion)):
        assert torch.equal(old, new)
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.motion = None


def test_motion_encoding_in_batches_is_the_same(renderer):
    pictures = torch.rand(5, 64, 64, 3)
    one, five = (renderer.encode_motion(pictures, 30, batch_size=size) for size in (1, 5))
    assert (len(one), one.fps, one.generation) == (5, 30, renderer.generation)
    torch.testing.assert_close(one.latents, five.latents, rtol=0, atol=1e-5)


def test_half_precision_stays_close(renderer, source):
    motion = some_motion(renderer)
    half = tiny_renderer(renderer.generation).to(torch.bfloat16)
    frames = half.render(source, motion)
    assert frames.dtype == torch.float32
    assert (frames - renderer.render(source, motion)).abs().mean() < 0.02


def test_source_must_be_one_picture(renderer):
    with pytest.raises(InputError, match="batch of 2"):
        renderer.encode_source(torch.rand(2, 64, 64, 3))


def test_generations_do_not_mix(renderer, source):
    other = {"v1": "v2", "v2": "v1"}[renderer.generation]
    motion = dataclasses.replace(some_motion(renderer), generation=other)
    with pytest.raises(InputError, match=f"weights are {renderer.generation} but the motion was made with {other}"):
        renderer.stream(source, motion)


def test_motion_of_another_size_is_refused(renderer, source):
    with pytest.raises(InputError, match="different models"):
        renderer.stream(source, Motion(torch.zeros(3, 32), generation=renderer.generation))


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_attend_and_match_is_attention_and_its_argmax(scale, chunk):
    random = torch.Generator().manual_seed(3)
    q = torch.randn(2, 4, 30, 8, generator=random) * scale
    k, v = torch.randn(2, 1, 4, 40, 8, generator=random)
    output, match = attend_and_match(q, k, v, chunk)
    weights = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1)
    torch.testing.assert_close(output, weights @ v, rtol=1e-4, atol=1e-5)
    averaged = weights.mean(1)
    chosen = averaged.gather(2, match.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(chosen, averaged.amax(2), rtol=1e-5, atol=0)
    if scale == 0:
        assert (match == 0).all(), "ties go to the first key, as torch.argmax breaks them"


def test_windows_come_apart_and_together():
    x = torch.arange(2 * 16 * 16 * 3.0).view(2, 16, 16, 3)
    windows = to_windows(x, 8)
    assert windows.shape == (2, 4, 64, 3)
    assert torch.equal(windows[0, 1].view(8, 8, 3), x[0, :8, 8:])
    assert torch.equal(from_windows(windows, 8, 16), x)


def test_shift_mask_keeps_apart_what_the_roll_brought_together():
    mask = shift_mask(24, 8)
    assert mask.shape == (9, 64, 64)
    assert (mask[0] == 0).all(), "a window away from the far edges is whole"
    # last window of the first row: its left half is the picture's right edge, its right half came from the left
    columns = torch.arange(64) % 8
    apart = (columns[:, None] < 4) != (columns[None, :] < 4)
    assert torch.equal(mask[2] == -100, apart)


def test_relative_index_is_query_minus_key():
    index = relative_index(8)
    query, key = 3 * 8 + 5, 1 * 8 + 7
    assert index[query, key] == (3 - 1 + 7) * 15 + (5 - 7 + 7)


@pytest.mark.parametrize("config", [renderer_config("v1"), PUBLISHED["renderer"]["v2"]])
def test_renderer_config_survives_json(config):
    assert from_dict("renderer", to_dict(config)) == config
    assert from_dict("renderer", {**to_dict(config), "channels": list(config.channels)}) == config


def test_generator_config_survives_json_and_refuses_unknown_names():
    config = generator_config()
    assert from_dict("generator", to_dict(config)) == config
    with pytest.raises(TypeError, match="colour"):
        from_dict("generator", {**to_dict(config), "colour": 3})


def test_published_sizes():
    v1, v2 = (PUBLISHED["renderer"][name] for name in ("v1", "v2"))
    assert (v1.output_size, v2.output_size) == (512, 512)
    assert (v1.halvings, v2.halvings) == (0, 1)


def test_wav2vec2_attends_without_a_map_of_the_whole_clip():
    transformers = pytest.importorskip("transformers", minversion="4.57")
    wav2vec2 = tiny_generator().audio_encoder.wav2vec2
    assert wav2vec2.config._attn_implementation == "sdpa", transformers.__version__
