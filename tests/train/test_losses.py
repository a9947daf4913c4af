"""What each loss reacts to, and what it ignores."""

import pytest
import torch
import torch.nn.functional as F

from imtalker import InputError
from imtalker.avatar.batches import HELD_OUT, draw_batch
from imtalker.train import discriminator as discriminators
from imtalker.train import losses
from imtalker.train.discriminator import Discriminator

RANDOM = torch.Generator().manual_seed(0)


def patches(count=2, side=64):
    return torch.rand(count, 3, side, side, generator=RANDOM)


def test_psnr_is_the_mean_over_images_and_inside_the_mask():
    target = torch.full((2, 3, 8, 8), 0.5)
    frames = target + torch.tensor([0.1, 0.01])[:, None, None, None]
    assert losses.psnr(frames, target) == pytest.approx(30, abs=1e-3), "20 and 40 dB"
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1
    outside = torch.where(mask > 0, frames, 1 - frames)
    assert losses.psnr(outside, target, mask) == pytest.approx(30, abs=1e-3)
    assert losses.psnr(target, target) == float("inf")


def test_masked_l1_sees_the_mask_alone():
    target = patches()
    mask = torch.zeros(2, 1, 64, 64)
    mask[:, :, 10:20, 10:30] = 1
    outside = torch.where(mask > 0, target, 1 - target)
    assert losses.masked_l1(outside, target, mask) == 0
    inside = target + 0.25 * mask
    assert losses.masked_l1(inside, target, mask).item() == pytest.approx(0.25, abs=1e-6), "whatever the mask's size"
    assert losses.masked_l1(outside, target, torch.zeros_like(mask)) == 0


def test_identity_distance_is_about_lengths_not_directions():
    motion, step = torch.randn(2, 8, generator=RANDOM), torch.rand(2, 8, generator=RANDOM)
    assert losses.identity_distance(motion, motion + step, motion - step) == pytest.approx(0, abs=1e-6)
    assert losses.identity_distance(motion, motion + step, motion + 2 * step) == pytest.approx(step.mean().item())
    assert losses.identity_distance(motion, motion + 2 * step, motion + step) == pytest.approx(step.mean().item())


def test_frame_differences_do_not_see_an_offset():
    motion = torch.randn(2, 50, 8, generator=RANDOM)
    assert losses.difference_l1(motion + 3, motion) == pytest.approx(0, abs=1e-6)
    ramp = torch.arange(50.0)[None, :, None]
    assert losses.difference_l1(motion + 0.5 * ramp, motion) == pytest.approx(0.5, abs=1e-5)


def test_adversaries_are_nearly_the_same_in_mixed_precision():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        discriminator = Discriminator().requires_grad_(False)
    batch = draw_batch(HELD_OUT, people=2, drivers=1, size=128)
    found = []
    for mixed in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            real, fake = discriminator(batch.frames), discriminator(batch.sources)
            found.append([losses.adversarial(fake).item(), losses.discrimination(real, fake).item()])
    assert found[1] == pytest.approx(found[0], rel=0.02)
    assert found[1] != found[0]


def test_adversaries_have_opposite_gradients():
    fake = [torch.zeros(2, 1, 6, 6, requires_grad=True), torch.zeros(2, 1, 3, 3, requires_grad=True)]
    real = [torch.zeros(2, 1, 6, 6), torch.zeros(2, 1, 3, 3)]
    assert losses.adversarial(fake).item() == pytest.approx(0.6931, abs=1e-4)
    assert losses.discrimination(real, fake).item() == pytest.approx(2 * 0.6931, abs=1e-4)
    ours = torch.autograd.grad(losses.adversarial(fake), fake)
    theirs = torch.autograd.grad(losses.discrimination(real, fake), fake)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, -b)


def test_a_discriminator_learns_to_tell_two_kinds_apart(monkeypatch):
    monkeypatch.setattr(discriminators, "WIDTHS", (8, 8, 8, 8))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Discriminator()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, (0.5, 0.999))
    for _ in range(15):
        real = patches(2)
        fake = F.avg_pool2d(patches(2), 5, 1, 2)  # blurred, as a weak renderer's frames are
        loss = losses.discrimination(model(real), model(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1.0, "2 log 2 = 1.39 where they are not told apart"
    assert [len(set(scores.shape[2:])) for scores in model(real)] == [1, 1]
    assert model(real)[0].shape[-1] > model(real)[1].shape[-1]


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """torchvision's names and shapes, the layers after relu5_1 and the classifier among them."""
    layout = [64, 64, None, 128, 128, None, *[256] * 4, None, *[512] * 4, None, *[512] * 4, None]
    state, index, inputs = {"classifier.6.bias": torch.zeros(10)}, 0, 3
    for width in layout:
        if width:
            fan = 9 * inputs
            state[f"features.{index}.weight"] = torch.randn(width, inputs, 3, 3, generator=RANDOM) * (2 / fan) ** 0.5
            state[f"features.{index}.bias"] = torch.zeros(width)
            inputs = width
        index += 2 if width else 1
    assert "features.28.weight" in state, "relu5_1 follows features.28 in torchvision's vgg19"
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(state, path)
    return path


def test_perceptual_loss_sees_content_rather_than_pixels(vgg_file):
    vgg = losses.Perceptual.load(vgg_file)
    target = patches(1, 32)
    assert vgg(target, target) == 0
    noisy = target + 0.1 * (2 * patches(1, 32) - 1)
    assert 0 < vgg(noisy, target) < vgg(patches(1, 32), target)
    frames = noisy.requires_grad_(True)
    vgg(frames, target).backward()
    assert frames.grad.norm() > 0
    assert not any(parameter.requires_grad for parameter in vgg.parameters())


def test_vgg_is_read_layer_by_layer(vgg_file):
    """Against the layers written out by torchvision's numbers."""
    state = torch.load(vgg_file)
    x = patches(1, 32)
    found = losses.Perceptual.load(vgg_file).features(x)
    y = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected = []
    for index in range(30):
        if f"features.{index}.weight" in state:
            y = F.conv2d(y, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        else:
            y = F.max_pool2d(y, 2) if index in (4, 9, 18, 27) else F.relu(y)
        if index in (1, 6, 11, 20, 29):
            expected.append(y)
    assert len(found) == len(expected) == 5
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_other_files_are_not_taken_for_vgg(tmp_path, caplog):
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="is not VGG-19"):
        losses.Perceptual.load(tmp_path / "other.pth")
    assert losses.load_perceptual(None) is None
    assert caplog.text.count("There is no perceptual loss") == 1
