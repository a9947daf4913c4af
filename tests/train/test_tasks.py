"""Both tasks on toy data: losses fall, frozen parts stay frozen, and the results load like any other file."""

import math

import pytest
import torch
from tiny import generator_config, renderer_config, tiny_generator, tiny_renderer

from imtalker import load_generator, load_renderer, save_weights
from imtalker.train.data import FramePairs, MotionWindows, batches, find_clips
from imtalker.train.generator import GeneratorTask
from imtalker.train.initialise import new_generator, new_renderer
from imtalker.train.loop import Settings, Training
from imtalker.train.lora import adapt, merge
from imtalker.train.renderer import LossWeights, RendererTask, reenactment_psnr
from imtalker.train.runtime import make_fabric


def trained(task, samples, steps, file, size=2, **settings):
    lines = []
    training = Training(
        task,
        batches(samples, size),
        file,
        Settings(steps, log_seconds=0, **settings),
        watch=lambda _, means: lines.append(means),
    )
    training.run()
    return training, lines


def task_of(kind):
    return {
        "new renderer": lambda: RendererTask(new_renderer(renderer_config()), 1e-3, False),
        "renderer": lambda: RendererTask(tiny_renderer(), 1e-3, True, weights=LossWeights(adversarial=0)),
        "generator": lambda: GeneratorTask(tiny_generator(), 1e-3),
        "low rank": lambda: GeneratorTask(tiny_generator("v1"), 1e-3, lora=2),
    }[kind]()


@pytest.mark.parametrize("kind", ["new renderer", "renderer", "generator", "low rank"])
def test_mixed_precision_gives_nearly_the_same_losses(clips, tmp_path, kind):
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        task = task_of(kind)
        model = getattr(task, "renderer", None) or task.generator
        samples = FramePairs(clips, model.config) if hasattr(task, "renderer") else MotionWindows(clips, model.config)
        fabric = make_fabric("cpu", precision=precision)
        training = Training(task, batches(samples, 2), tmp_path / f"{precision}.pt", Settings(1), fabric)
        losses.append(training.run().losses)
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    exact, mixed = losses
    assert exact.keys() == mixed.keys()
    for name, value in exact.items():
        assert math.isfinite(mixed[name]), name
        # a new renderer's frames are so flat that the discriminator's norms amplify rounding: see test_losses.py
        if name not in ("adversarial", "discrimination"):
            assert mixed[name] == pytest.approx(value, rel=0.1, abs=0.02), name


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model, before):
    return {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.fixture(scope="module")
def clips(data):
    return find_clips(data)


def test_a_fine_tuned_renderer_improves_and_keeps_its_motion(clips, tmp_path):
    renderer = tiny_renderer()
    pairs = FramePairs(clips, renderer.config, 0.1)
    unseen, before, was = pairs.unseen(4), reenactment_psnr(renderer, pairs.unseen(4)), snapshot(renderer)
    task = RendererTask(renderer, 3e-3, True, weights=LossWeights(adversarial=0, masked=0))
    _, lines = trained(task, pairs, 12, tmp_path / "a.pt")
    assert lines[-1]["l1"] < lines[0]["l1"]
    assert reenactment_psnr(renderer, unseen) > before + 0.5
    assert changed(renderer, was) == {"identity_encoder", "adapter", "motion_decoder", "transfer", "synthesis"}
    assert not [
        name for name, v in renderer.state_dict().items() if "running" in name and not torch.equal(v, was[name])
    ]
    save_weights(renderer, tmp_path / "renderer.safetensors")
    assert reenactment_psnr(load_renderer(tmp_path / "renderer.safetensors"), unseen) == pytest.approx(
        reenactment_psnr(renderer, unseen), abs=0.01
    )


def test_every_part_of_a_new_renderer_learns_with_its_discriminator(clips, tmp_path):
    renderer = new_renderer(renderer_config())
    task = RendererTask(renderer, 2e-3, False, weights=LossWeights(adversarial=0.1))
    was = snapshot(renderer), snapshot(task.discriminator)
    _, lines = trained(task, FramePairs(clips, renderer.config), 4, tmp_path / "a.pt")
    parts = {"identity_encoder", "motion_encoder", "adapter", "motion_decoder", "transfer", "synthesis"}
    assert changed(renderer, was[0]) == parts
    assert changed(task.discriminator, was[1]) == {"scales"}
    assert [name for name, v in renderer.state_dict().items() if "running" in name and not torch.equal(v, was[0][name])]
    assert set(lines[0]) == {"l1", "masked", "identity", "adversarial", "discrimination"}
    # resumed, with the discriminator
    again = RendererTask(new_renderer(renderer_config(), 5), 2e-3, False, weights=LossWeights(adversarial=0.1), seed=5)
    Training(again, batches(FramePairs(clips, renderer.config), 2), tmp_path / "a.pt", Settings(4))
    assert not changed(task.discriminator, again.discriminator.state_dict())
    assert not changed(renderer, again.renderer.state_dict())


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_a_new_generator_learns(clips, tmp_path, generation):
    generator = new_generator(generator_config(generation))
    was = snapshot(generator)
    windows = MotionWindows(clips, generator.config)
    _, lines = trained(GeneratorTask(generator, 3e-3), windows, 40, tmp_path / "a.pt", 4)
    first, last = (sum(line["velocity"] for line in part) for part in (lines[:8], lines[-8:]))
    assert last < 0.95 * first
    # the data has neither pose nor gaze for the other projections to learn from
    assert changed(generator, was) == {"flow", "audio_projection"}


def test_conditions_are_projected_as_in_sampling():
    """A dropped condition adds nothing, not the projection of zeros."""
    generator = tiny_generator()
    task = GeneratorTask(generator, 1e-3)
    batch = {
        "audio": torch.randn(2, 60, 16),
        "pose": torch.randn(2, 60, 3),
        "cam": torch.randn(2, 60, 3),
        "gaze": torch.randn(2, 60, 2),
        "keep": torch.zeros(2, 60, 4),
    }
    assert not task.conditions(batch).any()
    batch["keep"][:, 10:, 0] = 1
    batch["keep"][:, :, 3] = 1
    found = task.conditions(batch)
    gaze = generator.gaze_projection(batch["gaze"])
    torch.testing.assert_close(found[:, :10], gaze[:, :10])
    torch.testing.assert_close(found[:, 10:], gaze[:, 10:] + generator.audio_projection(batch["audio"])[:, 10:])


def test_the_target_velocity_leads_from_noise_to_motion(clips):
    """A transformer that knows the answer has no loss, so x_t and the target match."""
    generator = tiny_generator()
    task = GeneratorTask(generator, 1e-3)
    batch = next(batches(MotionWindows(clips, generator.config), 16)(0, 0, 1))
    inputs = {}

    def knows(x, time, reference, condition):
        inputs.update(x=x, time=time)
        # along the straight path: the remaining distance over the remaining time
        motion = batch["motion"][:, 10:]
        return (motion - x[:, 10:]) / (1 - time[:, None, None])

    generator.flow.forward = knows
    ((_, losses),) = task.losses(batch)
    assert losses["velocity"] < 1e-3
    assert losses["change"] < 1e-3
    dropped = batch["context"][:, 0] == 0
    assert batch["motion"][dropped, :10].any()
    assert not inputs["x"][dropped, :10].any()
    assert torch.equal(inputs["x"][~dropped, :10], batch["motion"][~dropped, :10])


def test_low_rank_parts_change_nothing_at_first_and_everything_once_merged():
    generator = tiny_generator()
    flow = generator.flow
    inputs = torch.randn(2, 60, 8), torch.rand(2), torch.randn(2, 8), torch.randn(2, 60, 8)
    before, names = flow(*inputs), set(flow.state_dict())
    parts = adapt(flow, 3)
    torch.testing.assert_close(flow(*inputs), before, rtol=0, atol=1e-5)
    flow(*inputs).sum().backward()
    assert all(part.up.grad.any() for part in parts), "the modulations too, which are read all together"
    with torch.no_grad():
        for part in parts:
            part.up.normal_(std=0.1)
        adapted = flow(*inputs)
        assert (adapted - before).abs().max() > 1e-3
        merge(flow)
        torch.testing.assert_close(flow(*inputs), adapted, rtol=0, atol=1e-5)
    assert set(flow.state_dict()) == names


def test_a_generator_fine_tuned_by_low_rank_loads_and_differs_by_that_rank(clips, tmp_path):
    generator = tiny_generator()
    was = snapshot(generator)
    task = GeneratorTask(generator, 1e-2, lora=2)
    training, _ = trained(
        task, MotionWindows(clips, generator.config), 4, tmp_path / "a.pt", ema=0.99, averaged=("lora",)
    )
    with training.averaged():
        save_weights(task.finish(), tmp_path / "generator.safetensors")
    loaded = load_generator(tmp_path / "generator.safetensors")
    for name, value in loaded.state_dict().items():
        change = value - was[name]
        if name.startswith("flow.blocks.") and name.endswith(".weight"):
            assert torch.linalg.matrix_rank(change, rtol=1e-3) == 2, name
        else:
            assert not change.any(), name
    assert (tmp_path / "a.pt").stat().st_size < (tmp_path / "generator.safetensors").stat().st_size
