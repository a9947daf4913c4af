"""What holds of the training of the avatar's renderer, at tiny sizes."""

import dataclasses
import functools
import logging
import shutil

import pytest
import torch

import imtalker
from benchmarks import avatar as benchmark
from imtalker.avatar import renderer as avatar_renderer
from imtalker.avatar import train as avatar
from imtalker.avatar.batches import Cells, drawn
from imtalker.avatar.renderer import RendererRecipe
from imtalker.avatar.tasks import (
    AttentionTask,
    MotionTask,
    PictureTask,
    distances,
    frames_of,
    freeze_norms,
    missed,
    ready,
)
from imtalker.drawn.portraits import MOTION_SIZE
from imtalker.errors import InputError
from imtalker.models.config import RendererConfig
from imtalker.train.initialise import new_renderer, settle
from imtalker.train.runtime import make_fabric

CONFIG = RendererConfig(
    "v2",
    input_size=64,
    channels=(8, 8, 8),
    attention_levels=2,
    motion_size=MOTION_SIZE,
    identity_size=8,
    motion_channels=(4, 8, 8),
    heads=2,
)


@pytest.fixture(autouse=True, scope="module")
def _short():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(avatar_renderer, "CALIBRATION", 2)
        patch.setattr(avatar_renderer, "CALIBRATED_ON", 4)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A recipe that has run to its end: not to be written to."""
    whole = recipe(tmp_path_factory.mktemp("finished"), gated=False)
    whole.run()
    return whole


def frozen(renderer):
    freeze_norms(renderer, people=4, batches=2)
    return renderer


def recipe(folder, **more):
    return RendererRecipe(folder, 0.01, make_fabric("cpu"), people=2, drivers=2, config=CONFIG, **more)


def test_the_whole_recipe_makes_a_file_that_the_loader_takes(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "imtalker"):
        path = recipe(tmp_path, gated=False).run()
    renderer = imtalker.load_renderer(path)
    assert renderer.config == CONFIG
    assert renderer.motion_decoder.const.isfinite().all()
    # untrained as it is, every gate said so
    assert "does not follow the driver" in caplog.text


def test_a_dead_run_stops_at_its_gate(tmp_path):
    with pytest.raises(InputError, match="explains too little of yaw"):
        recipe(tmp_path).run()


def test_a_finished_stage_is_not_trained_again(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    checkpoint = (tmp_path / "pictures.ckpt").read_bytes()
    again = recipe(tmp_path, gated=False)
    again.run()
    assert (tmp_path / "pictures.ckpt").read_bytes() == checkpoint
    for name, tensor in finished.renderer.state_dict().items():
        assert torch.equal(tensor, again.renderer.state_dict()[name]), name


def test_it_goes_on_from_a_finished_avatar(finished, tmp_path):
    path = finished.folder / "renderer.safetensors"
    again = recipe(tmp_path, gated=False, start=path)
    begun = again._begin()
    assert begun.training
    assert all(parameter.requires_grad for parameter in begun.parameters())
    assert torch.equal(begun.motion_decoder.const, imtalker.load_renderer(path).motion_decoder.const)
    assert again.run().is_file()


def test_a_stage_alone_has_all_the_minutes(finished, tmp_path):
    path = finished.folder / "renderer.safetensors"
    alone = recipe(tmp_path, gated=False, start=path, stages=("pictures",))
    assert alone.run().is_file()
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["pictures.ckpt"]
    assert alone._training("pictures", PictureTask(alone.renderer, 2, 2), None).settings.minutes == 0.01


def test_it_goes_on_from_no_other_renderer(tmp_path):
    other = new_renderer(dataclasses.replace(CONFIG, identity_size=4))
    imtalker.weights.checkpoints.save_weights(other, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="another size"):
        recipe(tmp_path, start=tmp_path / "other.safetensors").run()


def test_other_settings_do_not_go_on(finished):
    other = dataclasses.replace(recipe(finished.folder, gated=False), drivers=3)
    with pytest.raises(InputError, match="drivers"):
        other.run()


def test_attention_is_right_where_it_looks_at_the_true_cell():
    asked, index = torch.arange(3), torch.tensor([[2, 0, 1]])
    true = Cells(asked, index, torch.ones(1, 3), torch.ones(1, 3), torch.zeros(1, 3))
    right = torch.nn.functional.one_hot(index, 3).float()
    assert missed(right, true) == pytest.approx(0, abs=1e-5)
    assert missed(right.roll(1, 1), true) > 5
    hidden = Cells(asked, index, torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 3))
    assert missed(right.roll(1, 1), hidden) == 0


def test_attention_learns_where_cells_come_from():
    task = AttentionTask(new_renderer(CONFIG), people=2, drivers=4)
    optimizer = task.optimizers()["muon"]
    losses = []
    for _ in range(30):
        for _, parts in task.losses(12345):
            loss = sum(parts.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_a_settled_encoder_tells_pictures_apart():
    renderer = new_renderer(CONFIG)
    task = MotionTask(renderer, people=4)
    pictures, _ = task.drawn(5, 24)
    wanted = torch.linspace(0.1, 1, MOTION_SIZE)
    settle(renderer.motion_encoder, lambda: renderer.motion_encoder(pictures), wanted)
    latents = renderer.motion_encoder(pictures)
    torch.testing.assert_close(latents.std(0), wanted, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(latents.mean(0), torch.zeros(MOTION_SIZE), atol=1e-3, rtol=0)


def test_a_renderer_that_ignores_its_driver_is_told_by_shuffling():
    own, others, features, misled = distances(ready(frozen(new_renderer(CONFIG))), people=3, drivers=2)
    assert abs(own - others) < 0.5
    assert abs(features - misled) < 0.5


def test_frozen_norms_have_the_statistics_of_the_weights_as_they_are():
    renderer = new_renderer(CONFIG)
    with torch.no_grad():
        for parameter in renderer.synthesis.up[0].conv1.parameters():
            parameter.mul_(10)
    before = renderer.synthesis.up[0].norm.running_var.mean().item()
    freeze_norms(renderer, people=4, batches=30)
    assert renderer.synthesis.up[0].norm.running_var.mean() > 5 * before
    statistics = {name: value.clone() for name, value in renderer.named_buffers() if "running" in name}
    # a picture alone, or among others: its colours are its own
    sources = drawn(99, 3, 1, 64).sources
    torch.testing.assert_close(
        renderer.identity_encoder(sources[:1])[1], renderer.identity_encoder(sources)[1][:1], rtol=0, atol=1e-4
    )
    assert all(torch.equal(value, statistics[name]) for name, value in renderer.named_buffers() if "running" in name)


def test_pictures_are_learned_as_they_are_used():
    """With a batch, and with frozen norms: the same frames as from the finished renderer."""
    renderer = frozen(new_renderer(CONFIG))
    batch = drawn(99, 2, 2, 64)
    loss = sum(next(PictureTask(renderer, 2, 2).losses(99))[1].values())
    loss.backward()
    assert renderer.synthesis.up[0].conv1.weight.grad.abs().sum() > 0
    with torch.no_grad():
        torch.testing.assert_close(frames_of(ready(renderer), batch), frames_of(renderer, batch), rtol=0, atol=1e-4)


def test_the_benchmark_fails_an_untrained_renderer(tmp_path, monkeypatch, capsys):
    imtalker.weights.checkpoints.save_weights(frozen(new_renderer(CONFIG)), tmp_path / "renderer.safetensors")
    monkeypatch.setattr(
        benchmark, "measure_renderer", functools.partial(benchmark.measure_renderer, people=1, frames=4)
    )
    assert benchmark.main([str(tmp_path)]) == 1
    assert "MISSED" in capsys.readouterr().out


def test_a_number_meets_its_target_or_not():
    assert benchmark.Number("a", 27.1, "at least 27").missed is False
    assert benchmark.Number("a", 26.9, "at least 27").missed is True
    assert benchmark.Number("a", 0.2, "at most 0.1").missed is True
    assert benchmark.Number("a", 0.2, "").missed is False


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(avatar.speech, "available", lambda: False)
    assert avatar.main([str(tmp_path), "--minutes", "1", "--only", "generator", "--device", "cpu"]) == 1
    assert "install espeak-ng" in caplog.text
