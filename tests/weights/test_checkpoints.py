"""Weight files: what is accepted, what is refused, and that nothing in a file can run."""

import argparse
import json
import pathlib
import pickle
from pathlib import Path

import pytest
import torch
from tiny import generator_config, renderer_config, tiny_generator, tiny_renderer

from imtalker import InputError, load_generator, load_renderer, save_weights
from imtalker.media.tensors import read_pickle
from imtalker.models import config as configs
from imtalker.models.generator import Generator
from imtalker.models.names import UNUSED, to_ours, to_published
from imtalker.models.renderer import Renderer
from imtalker.weights.checkpoints import convert, find_weights, inspect
from imtalker.weights.reading import kind_of_file

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(params=["v1", "v2"])
def generation(request, monkeypatch):
    """A generation, with the published sizes replaced by tiny ones, so that files without metadata are tiny too."""
    monkeypatch.setitem(configs.PUBLISHED["renderer"], request.param, renderer_config(request.param))
    monkeypatch.setitem(configs.PUBLISHED["generator"], request.param, generator_config(request.param))
    return request.param


def published(model, prefix=""):
    kind = "renderer" if isinstance(model, Renderer) else "generator"
    return {prefix + to_published(kind, name): tensor.contiguous() for name, tensor in model.state_dict().items()}


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("generation", ["v1", "v2"])
@pytest.mark.parametrize(("kind", "model"), [("renderer", Renderer), ("generator", Generator)])
def test_full_size_models_have_the_published_keys_and_shapes(generation, kind, model):
    listed = json.loads((GOLDEN / f"state_dict_{generation}.json").read_text())[kind]
    with torch.device("meta"):
        ours = published(model(configs.PUBLISHED[kind][generation]))
    wanted = {name: tuple(shape) for name, shape in listed.items() if not UNUSED.search(name)}
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == wanted
    for name in wanted:
        assert to_published(kind, to_ours(kind, name)) == name


def test_no_weight_stays_without_memory(generation):
    for model in (tiny_renderer(generation), tiny_generator(generation)):
        assert not [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]


def test_lightning_renderer_checkpoint(generation, tmp_path):
    model = tiny_renderer(generation)
    state = published(model, "gen.") | {
        "disc.conv.weight": torch.zeros(3),
        "gen.latent_token_encoder.res_blocks.0.conv2.0.kernel": torch.zeros(4, 4),
        "gen.dense_feature_encoder.equalconv.weight": torch.zeros(2, 2, 3, 3),
        "gen.frame_decoder.upconv_blocks.0.norm.norm.num_batches_tracked": torch.tensor(5),
    }
    torch.save({"state_dict": state, "epoch": 3, "optimizer_states": [{"step": torch.zeros(2)}]}, tmp_path / "r.ckpt")
    loaded = load_renderer(tmp_path / "r.ckpt")
    assert loaded.generation == generation
    assert same_weights(loaded, model)


def test_the_kind_of_a_file_is_known_by_its_names_alone(generation, tmp_path):
    renderer, generator = published(tiny_renderer(generation), "gen."), published(tiny_generator(generation), "model.")
    torch.save({"state_dict": renderer, "epoch": 3}, tmp_path / "renderer.ckpt")
    torch.save({"state_dict": {"model": generator}}, tmp_path / "generator.ckpt")
    save_weights(tiny_generator(generation), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    header = int.from_bytes(whole[:8], "little")
    (tmp_path / "cut.safetensors").write_bytes(whole[: 8 + header])  # all names, no numbers
    (tmp_path / "damaged.safetensors").write_bytes(whole[: header // 2])
    torch.save(renderer, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"something": torch.zeros(3)}, tmp_path / "other.pt")
    kinds = {path.name: kind_of_file(path) for path in tmp_path.iterdir()}
    known = {"renderer.ckpt": "renderer"} | dict.fromkeys(
        ("generator.ckpt", "whole.safetensors", "cut.safetensors"), "generator"
    )
    assert kinds == known | dict.fromkeys(("damaged.safetensors", "old.pth", "other.pt"))


@pytest.mark.parametrize("nested", [False, True])
def test_lightning_generator_checkpoint(generation, nested, tmp_path):
    model = tiny_generator(generation)
    state = published(model, "model.")
    torch.save({"state_dict": {"model": state} if nested else state}, tmp_path / "g.ckpt")
    loaded = load_generator(tmp_path / "g.ckpt")
    assert loaded.generation == generation
    assert same_weights(loaded, model)


def test_averaged_weights_are_preferred_and_complete_the_rest(generation, tmp_path):
    model = tiny_generator(generation)
    averaged = {name: tensor + 1 for name, tensor in published(model).items() if name.startswith("fmt.")}
    torch.save({"state_dict": published(model, "model."), "ema_state_dict": averaged}, tmp_path / "g.ckpt")
    loaded = load_generator(tmp_path / "g.ckpt")
    assert torch.equal(loaded.flow.input.weight, model.flow.input.weight + 1)
    assert torch.equal(loaded.audio_projection[0].weight, model.audio_projection[0].weight)


def test_both_spellings_of_weight_norm(generation):
    model = tiny_generator(generation)
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in published(model).items()
    }
    assert old.keys() != published(model).keys()
    assert same_weights(load_generator(old), model)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_wav2vec2_beside_the_generator(generation, file, tmp_path):
    model = tiny_generator(generation)
    inside = "audio_encoder."
    alone = {name: tensor for name, tensor in published(model).items() if not name.startswith(inside)}
    audio = {name.removeprefix(inside): t for name, t in published(model).items() if name.startswith(inside)}
    audio |= {"lm_head.weight": torch.zeros(2, 2), "wav2vec2.masked_spec_embed": torch.zeros(16)}
    (tmp_path / "wav2vec").mkdir()
    if file.endswith(".bin"):
        torch.save(audio, tmp_path / "wav2vec" / file)
    else:
        from safetensors.torch import save_file

        save_file(audio, tmp_path / "wav2vec" / file)
    with pytest.raises(InputError, match="holds no wav2vec2 weights"):
        load_generator(alone)
    assert same_weights(load_generator(alone, wav2vec=tmp_path / "wav2vec"), model)
    with pytest.raises(InputError, match=r"a motion generator .*: choose a wav2vec2 audio encoder"):
        load_generator(alone, wav2vec=alone)


def test_our_files_carry_their_sizes(generation, tmp_path):
    for model, load in ((tiny_renderer(generation), load_renderer), (tiny_generator(generation), load_generator)):
        save_weights(model, tmp_path / "m.safetensors", torch.float16)
        loaded = load(tmp_path / "m.safetensors")
        assert loaded.config == model.config
        assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
        for a, b in zip(loaded.state_dict().values(), model.state_dict().values()):
            assert torch.equal(a, b.half().float())


def test_loaded_weights_outlive_their_file(generation, tmp_path):
    model = tiny_renderer(generation)
    torch.save(published(model), tmp_path / "r.ckpt")
    loaded = load_renderer(tmp_path / "r.ckpt")
    (tmp_path / "r.ckpt").write_bytes(b"\0" * (tmp_path / "r.ckpt").stat().st_size)
    assert same_weights(loaded, model)


@pytest.mark.parametrize("split", [False, True])
def test_convert_round_trip(generation, split, tmp_path):
    model = tiny_generator(generation)
    torch.save({"state_dict": published(model, "model.")}, tmp_path / "g.ckpt")
    written = convert(tmp_path / "g.ckpt", tmp_path / "g.safetensors", split_wav2vec=split)
    assert [path.name for path in written] == ["g.safetensors", "g.wav2vec2.safetensors"][: 1 + split]
    loaded = load_generator(*written)
    assert same_weights(loaded, model)
    again = convert(written[0], tmp_path / "again.safetensors")
    assert load_generator(again[0], *written[1:]).config == loaded.config
    report = inspect(written[0])
    assert bool(report.problems) == split, "a generator without its audio encoder is not complete"


def test_convert_refuses_what_load_would(tmp_path):
    torch.save({"a.b": torch.zeros(1)}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"something else \(its keys start with a\)"):
        convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="must end in"):
        convert(tmp_path / "x.ckpt", tmp_path / "x.ckpt")
    assert not (tmp_path / "x.safetensors").exists()


def test_missing_unexpected_and_misshaped_keys_are_named(generation):
    state = published(tiny_renderer(generation))
    del state["adapt.in_layer.weight"]
    state["adapt.extra.weight"] = torch.zeros(1)
    state["frame_decoder.final_conv.1.bias"] = torch.zeros(5)
    with pytest.raises(InputError) as error:
        load_renderer(state)
    message = str(error.value)
    assert f"a renderer ({generation})" in message
    assert "1 missing: adapt.in_layer.weight" in message
    assert "1 unexpected: adapt.extra.weight" in message
    assert "frame_decoder.final_conv.1.bias (5,) instead of (12,)" in message
    report = inspect(state)
    assert (report.missing, report.unexpected) == (["adapt.in_layer.weight"], ["adapt.extra.weight"])


def test_the_wrong_kind_is_named(generation):
    with pytest.raises(InputError, match=rf"is a motion generator \({generation}\): choose a renderer"):
        load_renderer(published(tiny_generator(generation)))
    with pytest.raises(InputError, match=rf"is a renderer \({generation}\): choose a motion generator"):
        load_generator(published(tiny_renderer(generation)))


def test_damaged_files_are_refused(generation, tmp_path):
    torch.save(published(tiny_renderer(generation)), tmp_path / "r.ckpt")
    save_weights(tiny_renderer(generation), tmp_path / "r.safetensors")
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name, content in whole.items():
        for size in (0, 1, 100, len(content) // 2, len(content) - 30):
            (tmp_path / name).write_bytes(content[:size])
            with pytest.raises(InputError, match=name):
                load_renderer(tmp_path / name)
        (tmp_path / name).write_text("<html>404</html>")
        with pytest.raises(InputError, match=name):
            load_renderer(tmp_path / name)
        (tmp_path / name).unlink()
        with pytest.raises(InputError, match="no file"):
            load_renderer(tmp_path / name)


def test_a_configuration_from_the_future_is_refused(generation, tmp_path):
    from safetensors.torch import save_file

    metadata = {"config": json.dumps({"generation": "v9", "input_size": 64, "telepathy": True})}
    save_file(published(tiny_renderer(generation)), tmp_path / "r.safetensors", metadata)
    with pytest.raises(InputError, match=r"does not know .*telepathy"):
        load_renderer(tmp_path / "r.safetensors")


class Touch:
    """Pickles as a call that creates a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = [
    lambda path: Touch(__import__("os").system, f"touch {path}"),
    lambda path: Touch(eval, f"open({str(path)!r}, 'w')"),
    lambda path: Touch(pathlib.Path.touch, pathlib.PurePosixPath(path)),
    lambda path: Touch(__import__("subprocess").check_call, ["touch", str(path)]),
]


@pytest.mark.parametrize("generation", ["v2"], indirect=True)
@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("place", ["weights", "hyper_parameters", "whole"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_does_nothing(hostile, place, zipped, generation, tmp_path):
    victim = tmp_path / "victim"
    state = published(tiny_renderer(generation), "gen.")
    bomb = hostile(victim)
    content = {
        "weights": {"state_dict": {**state, "gen.adapt.in_layer.weight": bomb}},
        "hyper_parameters": {"state_dict": state, "hyper_parameters": {"a": bomb}},
        "whole": bomb,
    }[place]
    torch.save(content, tmp_path / "r.ckpt", _use_new_zipfile_serialization=zipped)
    try:
        load_renderer(tmp_path / "r.ckpt")
        assert place == "hyper_parameters", "weights that are no tensors are missing"
    except InputError:
        pass
    assert not victim.exists()
    # the bomb is live: an ordinary unpickler sets it off
    pickle.loads(pickle.dumps(bomb))
    assert victim.exists()


class Unheard(dict):
    """A class that no longer exists when the file is read."""


def test_harmless_unknown_classes_are_skipped(generation, tmp_path, monkeypatch):
    model = tiny_renderer(generation)
    hyper = {
        "args": argparse.Namespace(lr=1e-4, inner=argparse.Namespace(a=1)),
        "path": pathlib.PurePosixPath("data"),
        "kind": Unheard,
    }
    torch.save({"state_dict": published(model, "gen."), "hyper_parameters": hyper}, tmp_path / "r.ckpt")
    monkeypatch.delattr(f"{__name__}.Unheard")
    assert same_weights(load_renderer(tmp_path / "r.ckpt"), model)


def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "p.pt").write_bytes(pickle.dumps({"a": Touch(print, "run")}))
    with pytest.raises(InputError):
        read_pickle(tmp_path / "p.pt")


def test_safetensors_come_before_ckpt(tmp_path):
    with pytest.raises(InputError, match="python -m imtalker download"):
        find_weights(tmp_path, "renderer")
    (tmp_path / "renderer.ckpt").touch()
    assert find_weights(tmp_path, "renderer").suffix == ".ckpt"
    (tmp_path / "renderer.safetensors").touch()
    assert find_weights(tmp_path, "renderer").suffix == ".safetensors"


def test_what_float16_cannot_hold_is_stored_as_it_is(tmp_path):
    renderer = tiny_renderer()
    with torch.no_grad():
        renderer.synthesis.merge[0].norm.running_var[0] = 70_000
    save_weights(renderer, tmp_path / "r.safetensors", torch.float16)
    again = load_renderer(tmp_path / "r.safetensors").state_dict()
    assert again["synthesis.merge.0.norm.running_var"][0] == 70_000
    assert all(value.isfinite().all() for value in again.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused_by_name(generation, value, tmp_path):
    for make, load in ((tiny_renderer, load_renderer), (tiny_generator, load_generator)):
        state = published(make(generation))
        name = next(name for name in reversed(state) if state[name].is_floating_point())
        state[name] = state[name].clone()
        state[name].view(-1)[-1] = value
        torch.save({"state_dict": state}, tmp_path / "spoiled.ckpt")
        with pytest.raises(InputError, match=f"spoiled.ckpt holds NaN or infinite numbers in {name}: it is damaged"):
            load(tmp_path / "spoiled.ckpt")
        with pytest.raises(InputError, match="holds NaN or infinite numbers"):
            convert(tmp_path / "spoiled.ckpt", tmp_path / "converted.safetensors")
    assert not (tmp_path / "converted.safetensors").exists()


def test_large_weights_are_numbers(generation):
    """Their sum is not."""
    state = published(tiny_renderer(generation))
    name = next(name for name in state if name.endswith("running_var"))
    state[name] = torch.full_like(state[name], 3e38)
    assert load_renderer(state)
