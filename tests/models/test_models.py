"""Properties of the models at tiny size; exact values are in test_golden.py."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tiny import generator_config, renderer_config, tiny_generator, tiny_renderer

from imtalker import AudioFeatures, InputError, Motion
from imtalker.models.config import PUBLISHED, from_dict, to_dict
from imtalker.models.folding import fold
from imtalker.models.layers import StyledConv
from imtalker.models.passes import interleave
from imtalker.models.resample import nearest, phases
from imtalker.models.windows import SwinBlock, relative_index, shift_mask, to_windows
from imtalker.weights.checkpoints import save_weights
from imtalker.weights.reading import CLASSES


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


def test_out_of_memory_halves_the_batch(renderer, source, caplog, monkeypatch):
    motion = some_motion(renderer)
    expected = renderer.render(source, motion)
    forward, sizes = type(renderer).forward, []

    def small_device(self, source, latents):
        sizes.append(len(latents))
        if len(latents) > 2:
            raise torch.cuda.OutOfMemoryError("as a small device would")
        return forward(self, source, latents)

    monkeypatch.setattr(type(renderer), "forward", small_device)
    with caplog.at_level("WARNING", logger="imtalker"):
        frames = renderer.render(source, motion, batch_size=5)
    assert sizes == [5, 2, 2, 1]
    assert "continuing with 2 frames at a time" in caplog.text
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-5)
    monkeypatch.setattr(type(renderer), "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        renderer.render(source, motion, batch_size=5)


def test_folding_changes_nothing_and_training_undoes_it(renderer, source):
    motion = some_motion(renderer)
    folded = renderer.render(source, motion)
    names = set(renderer.state_dict())
    try:
        renderer.train()
        assert not any(name.rsplit(".", 1)[-1].startswith("derived") for name, _ in renderer.named_buffers())
        renderer.eval()
        torch.testing.assert_close(renderer.render(source, motion), folded, rtol=0, atol=1e-5)
    finally:
        fold(renderer.eval())
    assert set(renderer.state_dict()) == names, "what is folded is not saved"
    assert torch.equal(renderer.render(source, motion), folded)


def test_training_finds_every_parameter_laid_out_as_in_files():
    model = fold(tiny_renderer("v2"))
    assert not all(parameter.is_contiguous() for parameter in model.parameters()), "one kernel is channels last"
    assert all(parameter.is_contiguous() for parameter in model.train().parameters())


def test_loading_other_weights_drops_what_was_folded(renderer):
    changed = tiny_renderer(renderer.generation)
    state = {name: tensor * 1.01 for name, tensor in changed.state_dict().items()}
    changed.load_state_dict(state)
    fresh = tiny_renderer(renderer.generation)
    for name, parameter in (*fresh.named_parameters(), *fresh.named_buffers()):
        if name in state:
            parameter.data.copy_(state[name])
    picture = torch.rand(1, 64, 64, 3)
    torch.testing.assert_close(changed.encode_source(picture).motion, fold(fresh).encode_source(picture).motion)


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_gradients_reach_every_weight(generation):
    """In evaluation and in training: nothing computed in place or kept folded stands in the way."""
    renderer = tiny_renderer(generation)
    picture, driving = torch.rand(2, 1, 3, renderer.config.input_size, renderer.config.input_size)
    for training in (False, True):
        renderer.requires_grad_(True).train(True).train(training)
        renderer.zero_grad()
        features, identity = renderer.identity_encoder(picture)
        reference_maps = renderer.motion_decoder(renderer.adapter(renderer.motion_encoder(picture), identity))
        reference = renderer.transfer.prepare(features, reference_maps)
        maps = renderer.motion_decoder(renderer.adapter(renderer.motion_encoder(driving), identity))
        renderer.synthesis(renderer.transfer(maps, reference)).square().sum().backward()
        without = [name for name, parameter in renderer.named_parameters() if parameter.grad is None]
        assert not without, f"training={training}: {without}"


@pytest.mark.parametrize("side", [1, 4, 7])
def test_a_doubled_map_is_convolved_without_doubling_it(side):
    x, weight, bias = torch.randn(2, 5, side, side), torch.randn(6, 5, 3, 3), torch.randn(6)
    expected = F.conv2d(nearest(x, 2), weight, bias, padding=1)
    parts = F.conv2d(x, phases(weight), bias.repeat(4), padding=1)
    torch.testing.assert_close(interleave(parts), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(interleave(parts, add_to=expected.clone()), 2 * expected, rtol=1e-5, atol=1e-5)


def from_windows(x, window, side):
    """The inverse of `to_windows`."""
    x = x.unflatten(2, (window, window)).unflatten(1, (side // window, side // window))
    return x.transpose(2, 3).reshape(x.shape[0], side, side, -1)


@pytest.mark.parametrize("shifted", [False, True])
def test_windows_attend_as_defined(shifted, monkeypatch):
    """Against attention window by window with bias and mask, for working sets of all sizes."""
    side, width, heads, window = 24, 16, 4, 8
    block = SwinBlock(side, width, heads, window, shifted).requires_grad_(False).eval()
    for name, parameter in block.named_parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.3)
    x = torch.randn(2, side**2, width)
    shift = window // 2 if shifted else 0
    attn, bias = block.attn, block.attn.relative_position_bias_table[relative_index(window)].permute(2, 0, 1)

    def heads_of(norm, layer):
        rolled = norm(x).unflatten(1, (side, side)).roll((-shift, -shift), (1, 2))
        return layer(to_windows(rolled, window)).unflatten(3, (heads, -1)).transpose(2, 3)

    q, k, v = (heads_of(*pair) for pair in ((block.norm_q, attn.q), (block.norm_kv, attn.k), (block.norm_kv, attn.v)))
    logits = q @ k.transpose(3, 4) / (width // heads) ** 0.5 + bias
    if shifted:
        logits = logits + torch.where(shift_mask(side, window)[:, None] == 0, 0.0, -100.0)  # as published
    attended = attn.proj((logits.softmax(-1) @ v).transpose(2, 3).flatten(3))
    attended = x + from_windows(attended, window, side).roll((shift, shift), (1, 2)).flatten(1, 2)
    expected = attended + block.mlp(block.norm_ffn(attended))
    # one window and two, head by head; one map, and both
    for size in (1, 530_000, 1 << 20, 1 << 30):
        monkeypatch.setattr("imtalker.models.windows.working_set", lambda _, size=size: size)
        with torch.inference_mode():
            torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    # with gradients, all heads together
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


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


def test_a_frame_with_a_source_of_its_own_is_as_if_it_were_alone(renderer):
    """N pictures encoded together, at any batch size, are the sources of N frames."""
    pictures = torch.rand(5, 64, 64, 3, generator=torch.Generator().manual_seed(5))
    motion = some_motion(renderer)
    alone = [
        renderer.render(renderer.encode_source(pictures[[i]]), dataclasses.replace(motion, latents=motion.latents[[i]]))
        for i in range(5)
    ]
    for batch in (1, 2, 5):
        sources = renderer.encode_source(pictures, batch_size=batch)
        assert len(sources) == 5
        assert all(len(tensor) == 5 for tensor in sources.tensors())
        frames = renderer.render(sources, motion, batch_size=batch)
        torch.testing.assert_close(frames, torch.cat(alone), rtol=0, atol=1e-5)
    backwards = renderer.render(sources.rows(slice(3, 5)), dataclasses.replace(motion, latents=motion.latents[3:]))
    torch.testing.assert_close(backwards, torch.cat(alone[3:]), rtol=0, atol=1e-5)


def test_sources_halve_their_batch_when_memory_runs_out(renderer, monkeypatch, caplog):
    pictures = torch.rand(5, 64, 64, 3, generator=torch.Generator().manual_seed(5))
    expected = renderer.encode_source(pictures)
    encode, sizes = type(renderer)._encode, []

    def small_device(self, images):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.cuda.OutOfMemoryError("as a small device would")
        return encode(self, images)

    monkeypatch.setattr(type(renderer), "_encode", small_device)
    with caplog.at_level("WARNING", logger="imtalker"):
        sources = renderer.encode_source(pictures, batch_size=4)
    assert sizes == [4, 2, 2, 1]
    torch.testing.assert_close(sources.motion, expected.motion, rtol=0, atol=1e-5)


def test_pictures_and_frames_must_be_as_many(renderer):
    sources = renderer.encode_source(torch.rand(2, 64, 64, 3))
    with pytest.raises(InputError, match="2 pictures and the motion 5 frames"):
        renderer.render(sources, some_motion(renderer))
    with pytest.raises(InputError, match="one picture, not 2"):
        tiny_generator(renderer.generation).check_source(sources)


def test_generations_do_not_mix(renderer, source):
    other = {"v1": "v2", "v2": "v1"}[renderer.generation]
    motion = dataclasses.replace(some_motion(renderer), generation=other)
    with pytest.raises(InputError, match=f"The renderer is {renderer.generation} but the motion is {other}"):
        renderer.stream(source, motion)


def test_motion_of_another_size_is_refused(renderer, source):
    with pytest.raises(InputError, match="renderer has 8 values per frame but the motion has 32"):
        renderer.stream(source, Motion(torch.zeros(3, 32), generation=renderer.generation))


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
    assert torch.equal(mask[2] < -104, apart), "whose weights are 0 in float32"


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


def held_bytes(model):
    """Bytes of the memory behind a model's tensors."""
    storages = (tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers()))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_a_final_model_gives_the_same_in_less_memory(renderer):
    final = fold(copy.deepcopy(renderer), final=True)
    motion, picture = some_motion(renderer), torch.rand(1, 64, 64, 3)
    frames, expected = (model.render(model.encode_source(picture), motion) for model in (final, renderer))
    assert torch.equal(frames, expected)
    assert torch.equal(final.encode_motion(picture).latents, renderer.encode_motion(picture).latents)
    assert held_bytes(final) < 0.7 * held_bytes(renderer)


@pytest.mark.parametrize("make", [tiny_renderer, tiny_generator])
def test_a_final_model_is_not_trained_saved_or_changed(make, tmp_path):
    model = fold(make("v2"), final=True)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model = copy.deepcopy(model).to(torch.float16).eval()
    for refused in (
        model.train,
        lambda: save_weights(model, tmp_path / "saved.safetensors"),
        lambda: model.load_state_dict(state, strict=False),
        lambda: fold(model),
    ):
        with pytest.raises(RuntimeError, match="final=True"):
            refused()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_what_a_final_model_of_full_size_holds(generation):
    """On 'meta': no more than the weights of its file and the larger kernels of upsampling."""
    for kind, most in (("renderer", 1.05), ("generator", 1.001)):
        with torch.device("meta"):
            model = CLASSES[kind](PUBLISHED[kind][generation]).eval()
        unfolded = sum(tensor.nbytes for tensor in model.state_dict().values())
        fold(model, final=True)
        assert sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) < most * unfolded


def published_styled_conv(layer, x, latent):
    """By its definition, in float64: a kernel for each sample, modulated and then normalised."""
    conv = layer.conv
    style = latent @ (conv.modulation.weight / conv.modulation.weight.shape[1] ** 0.5).T + conv.modulation.bias
    kernel = conv.weight / conv.weight[0, 0].numel() ** 0.5 * style[:, None, :, None, None]
    kernel = kernel * torch.rsqrt(kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    maps = torch.cat([F.conv2d(one[None], weights, padding=1) for one, weights in zip(x, kernel)])
    return 2**0.5 * F.leaky_relu(maps + layer.activate.bias, 0.2)


def styled_conv(channels, bias):
    layer, random = StyledConv(channels, 8, 4), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
        layer.conv.modulation.bias.add_(1).mul_(bias)
        layer.conv.weight[0, 0] = 0  # an output that sees nothing
    return layer.requires_grad_(False)


@pytest.mark.parametrize("size", [0, 1e-30, 1e-6, 1e-3, 1, 1e3, 1e6, 1e18])
def test_styles_of_any_size_give_what_the_definition_says(size):
    layer, random = styled_conv(16, size), torch.Generator().manual_seed(6)
    x, latent = torch.randn(3, 16, 5, 5, generator=random), torch.zeros(3, 4)
    expected = published_styled_conv(copy.deepcopy(layer).double(), x.double(), latent.double())
    torch.testing.assert_close(layer(x, latent).double(), expected, rtol=1e-5, atol=1e-5)
    half = layer.half()(x.half(), latent.half()) if size < 1e4 else None  # the style itself must fit
    if half is not None and size >= 1e-3:
        torch.testing.assert_close(half.double(), expected, rtol=1e-2, atol=1e-2)


def test_large_styles_do_not_overflow_half_precision():
    layer, random = styled_conv(512, 2000), torch.Generator().manual_seed(7)
    x, latent = 30 * torch.randn(2, 512, 8, 8, generator=random), torch.randn(2, 4, generator=random)
    assert (x * layer.conv.modulation(latent)[:, :, None, None]).abs().max() > torch.finfo(torch.float16).max
    expected = layer(x, latent)
    found = fold(copy.deepcopy(layer)).half()(x.half(), latent.half())
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


PRECISIONS = [(torch.float16, "choose bf16 or fp32"), (torch.bfloat16, "choose fp32"), (torch.float32, "are damaged")]


@pytest.mark.parametrize(("precision", "remedy"), PRECISIONS)
def test_nan_is_a_sentence_that_names_the_remedy(renderer, source, precision, remedy):
    model = copy.deepcopy(renderer).to(precision)
    with torch.no_grad():
        model.synthesis.head[1].bias.fill_(float("nan"))
    with pytest.raises(InputError, match=f"Some frames came out as NaN: .*{remedy}"):
        next(model.stream(source, some_motion(renderer)))
    with torch.no_grad():
        model.motion_encoder.mlp.last.bias.fill_(float("inf"))
    for encode, name in ((model.encode_source, "The source"), (model.encode_motion, "The encoded motion")):
        with pytest.raises(InputError, match=f"{name} came out as NaN: .*{remedy}"):
            encode(torch.rand(1, 64, 64, 3))
    generator = tiny_generator(renderer.generation).to(precision)
    with torch.no_grad():
        generator.flow.head.linear.bias.fill_(float("nan"))
    with pytest.raises(InputError, match=f"The sampled motion came out as NaN: .*{remedy}"):
        generator.sample(AudioFeatures(torch.randn(50, 16)), source, nfe=2)
