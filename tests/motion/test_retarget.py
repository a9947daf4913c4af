"""Relative motion: what stays the portrait's, and what comes from the driver."""

import pytest
import torch
from test_editing import sway

from imtalker import InputError
from imtalker.motion.retarget import reference_latent, relative, retarget

OWN = torch.tensor([[1.0, -2, 0.5, 3]])


@pytest.mark.parametrize("reference", ["first", "mean", "neutral", 7])
def test_the_reference_becomes_the_portraits_own_and_changes_stay(reference):
    driver = sway(120)
    there = reference_latent(driver, reference)
    moved = retarget(driver, OWN, reference)
    torch.testing.assert_close(moved.latents - OWN, driver.latents - there)
    assert (moved.fps, moved.generation, len(moved)) == (driver.fps, driver.generation, 120)
    doubled = retarget(driver, OWN, reference, 2.0)
    torch.testing.assert_close(doubled.latents - OWN, 2 * (driver.latents - there))
    assert torch.equal(retarget(driver, OWN, reference, 0.0).latents, OWN.expand(120, -1))


def test_a_drivers_own_pose_does_not_matter():
    driver = sway(50)
    elsewhere = sway(50)
    elsewhere = type(elsewhere)(elsewhere.latents + 5)
    for reference in ("first", "mean", "neutral", 30):
        torch.testing.assert_close(
            retarget(elsewhere, OWN, reference).latents, retarget(driver, OWN, reference).latents
        )


def test_neutral_is_the_frame_at_rest():
    latents = torch.zeros(60, 4)
    latents[:15] = torch.randn(15, 4, generator=torch.Generator().manual_seed(0))
    latents[40:] = 1 + torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    driver = type(sway())(latents)
    assert torch.equal(reference_latent(driver, "neutral"), torch.zeros(1, 4))


def test_blocks_give_the_same_as_the_whole():
    driver = sway(50)
    pieces = [type(driver)(part) for part in driver.latents.split(7)]
    moved = torch.cat([block.latents for block in relative(pieces, OWN, reference_latent(driver, "mean"), 0.7)])
    torch.testing.assert_close(moved, retarget(driver, OWN, "mean", 0.7).latents)


@pytest.mark.parametrize("reference", [50, -1, "last"])
def test_a_reference_that_is_not_there_is_refused(reference):
    with pytest.raises(InputError, match="frame"):
        retarget(sway(50), OWN, reference)


def test_another_size_is_refused():
    with pytest.raises(InputError, match="5 values"):
        retarget(sway(50), torch.zeros(1, 5))
