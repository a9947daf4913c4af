"""The training of the avatar's renderer, at tiny sizes."""

import copy
import dataclasses
import functools
import logging
import shutil

import pytest
import torch

import imtalker
from benchmarks import avatar as benchmark
from imtalker.avatar import readback, renderer_tasks
from imtalker.avatar import renderer as avatar_renderer
from imtalker.avatar import train as avatar
from imtalker.avatar.batches import SourceCells, draw_batch
from imtalker.avatar.renderer import RendererRecipe
from imtalker.avatar.renderer_tasks import (
    AttentionTask,
    MotionTask,
    PictureTask,
    attention_nll,
    folded_copy,
    freeze_norms,
    held_out_psnr,
    render_batch,
)
from imtalker.drawn.head import MOTION_SIZE
from imtalker.errors import InputError
from imtalker.models.config import RendererConfig
from imtalker.train.initialise import new_renderer, standardise_layers
from imtalker.train.runtime import make_fabric

pytestmark = pytest.mark.recipe

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
    """A recipe that has run to its end, and its log: not to be written to."""
    whole = recipe(tmp_path_factory.mktemp("finished"), gated=False)
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("imtalker").addHandler(handler)
    whole.path = whole.run()
    logging.getLogger("imtalker").removeHandler(handler)
    whole.warnings = " ".join(messages)
    return whole


@pytest.fixture(scope="module")
def calibrated():
    """A new renderer with frozen norms: not to be written to."""
    renderer = new_renderer(CONFIG)
    freeze_norms(renderer, people=4, batches=2)
    return renderer


def recipe(folder, **more):
    return RendererRecipe(folder, 0.005, make_fabric("cpu"), people=2, drivers=2, config=CONFIG, **more)


def test_the_whole_recipe_makes_a_file_that_the_loader_takes(finished):
    renderer = imtalker.load_renderer(finished.path)
    assert renderer.config == CONFIG
    assert renderer.motion_decoder.const.isfinite().all()
    # trained for a moment, it fails its gates, which warn
    assert "explains too little" in finished.warnings
    assert "does not follow the driver" in finished.warnings


def test_a_dead_run_stops_at_its_gate(finished, tmp_path):
    shutil.copy(finished.folder / "motion.ckpt", tmp_path)
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


def test_one_stage_of_a_finished_avatar_has_all_the_minutes(finished, tmp_path):
    alone = recipe(tmp_path, gated=False, start=finished.path, stages=("pictures",))
    starting = alone._starting_renderer()
    assert starting.training
    assert all(parameter.requires_grad for parameter in starting.parameters())
    assert torch.equal(starting.motion_decoder.const, imtalker.load_renderer(finished.path).motion_decoder.const)
    assert alone.run().is_file()
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["pictures.ckpt"]
    training = alone._training("pictures", PictureTask(alone.renderer, 2, 2), None)
    assert training.settings.minutes == alone.minutes


def test_a_renderer_of_another_size_is_refused(tmp_path):
    other = new_renderer(dataclasses.replace(CONFIG, identity_size=4))
    imtalker.save_weights(other, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not of the avatar's size"):
        recipe(tmp_path, start=tmp_path / "other.safetensors").run()


def test_other_settings_do_not_resume(finished):
    other = dataclasses.replace(recipe(finished.folder, gated=False), drivers=3)
    with pytest.raises(InputError, match="drivers"):
        other.run()


def test_attention_has_no_loss_where_it_finds_the_true_cell():
    queries, index = torch.arange(3), torch.tensor([[2, 0, 1]])
    true = SourceCells(queries, index, torch.ones(1, 3), torch.ones(1, 3), torch.zeros(1, 3))
    right = torch.nn.functional.one_hot(index, 3).float()
    assert attention_nll(right, true) == pytest.approx(0, abs=1e-5)
    assert attention_nll(right.roll(1, 1), true) > 5
    hidden = SourceCells(queries, index, torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 3))
    assert attention_nll(right.roll(1, 1), hidden) == 0


def test_attention_learns_where_cells_come_from(monkeypatch):
    monkeypatch.setattr(renderer_tasks, "RATE", 1e-2)
    task = AttentionTask(new_renderer(CONFIG), people=2, drivers=2)
    batch = draw_batch(12345, 2, 2, 64)
    optimizer = task.optimizers()["muon"]
    torch.manual_seed(0)
    losses = []
    for _ in range(12):
        maps, true = task.attention(batch)
        loss = sum(attention_nll(a, c) for a, c in zip(maps, true))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_a_standardised_encoder_tells_images_apart():
    renderer = new_renderer(CONFIG)
    images, _ = MotionTask(renderer, people=4).examples(5, 24)
    deviation = torch.linspace(0.1, 1, MOTION_SIZE)
    standardise_layers(renderer.motion_encoder, lambda: renderer.motion_encoder(images), deviation)
    latents = renderer.motion_encoder(images)
    torch.testing.assert_close(latents.std(0), deviation, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(latents.mean(0), torch.zeros(MOTION_SIZE), atol=1e-3, rtol=0)


def test_a_renderer_that_ignores_its_driver_has_no_lead(calibrated):
    own, others, own_face, others_face = held_out_psnr(folded_copy(calibrated), people=3, drivers=2)
    assert abs(own - others) < 0.5
    assert abs(own_face - others_face) < 0.5


def test_frozen_norms_have_the_statistics_of_the_current_weights():
    renderer = new_renderer(CONFIG)
    with torch.no_grad():
        for parameter in renderer.synthesis.up[0].conv1.parameters():
            parameter.mul_(10)
    before = renderer.synthesis.up[0].norm.running_var.mean().item()
    freeze_norms(renderer, people=4, batches=8)
    assert renderer.synthesis.up[0].norm.running_var.mean() > 5 * before
    statistics = {name: value.clone() for name, value in renderer.named_buffers() if "running" in name}
    # alone or among others, an image's colours stay its own
    sources = draw_batch(99, 3, 1, 64).sources
    torch.testing.assert_close(
        renderer.identity_encoder(sources[:1])[1], renderer.identity_encoder(sources)[1][:1], rtol=0, atol=1e-4
    )
    assert all(torch.equal(value, statistics[name]) for name, value in renderer.named_buffers() if "running" in name)


def test_training_renders_the_frames_of_the_finished_renderer(calibrated):
    """In a batch, with frozen norms: the same frames as from the folded renderer."""
    renderer, batch = copy.deepcopy(calibrated), draw_batch(99, 2, 2, 64)
    loss = sum(next(PictureTask(renderer, 2, 2).losses(99))[1].values())
    loss.backward()
    assert renderer.synthesis.up[0].conv1.weight.grad.abs().sum() > 0
    with torch.no_grad():
        folded = render_batch(folded_copy(renderer), batch)
        torch.testing.assert_close(folded, render_batch(renderer, batch), rtol=0, atol=1e-4)


def test_the_benchmark_fails_an_untrained_renderer(calibrated, tmp_path, monkeypatch, capsys):
    imtalker.save_weights(calibrated, tmp_path / "renderer.safetensors")
    monkeypatch.setattr(
        benchmark, "measure_renderer", functools.partial(benchmark.measure_renderer, people=1, frames=2)
    )
    monkeypatch.setattr(readback, "COARSE", (24, 2, 0.1, 0.3))
    monkeypatch.setattr(readback, "FINE", (48, 2, 0.04, 0.1))
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
