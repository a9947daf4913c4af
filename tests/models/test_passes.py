"""Passes after a convolution: the one kernel, in Triton's interpreter, gives what PyTorch's several operations give."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from imtalker.models import passes
from imtalker.models.resample import nearest, phases

TOLERANCES = {torch.float32: 5e-6, torch.float16: 1e-2, torch.bfloat16: 8e-2}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


def test_the_definition():
    """With a batch, an odd side and every part given."""
    x, weight, bias, scale = random(2, 5, 7, 9), random(6, 5, 3, 3), random(6), random(2, 6).abs()
    before, after, then = random(2, 6, 7, 9, seed=1), random(2, 6, 7, 9, seed=2), random(2, 6, seed=3)
    kept = [part.clone() for part in (x, weight, bias, scale, after, then)]
    y = F.conv2d(x, weight, padding=1)
    shifted = y * scale[:, :, None, None] + bias[:, None, None] + before
    expected = (torch.where(shifted > 0, shifted, 0.2 * shifted) + after) * then[:, :, None, None]
    for context in (torch.enable_grad(), torch.no_grad()):
        with context:
            parts = {"scale": scale, "before": before, "after": after, "then": then}
            found = passes.convolve(x, weight, bias, 0.2, padding=1, **parts)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert all(map(torch.equal, kept, (x, weight, bias, scale, after, then)))


def test_the_blur():
    """Each pixel of a delta spreads over [1,3,3,1] x [1,3,3,1] / 64; a border is 0, not the activation of 0."""
    x = torch.zeros(1, 2, 5, 5)
    x[0, 1, 2, 2] = 1
    taps = torch.tensor([1.0, 3, 3, 1])
    found = passes.blur(x, 2, gain=2.0)
    assert found.shape == (1, 2, 6, 6)
    torch.testing.assert_close(found[0, 1, 1:5, 1:5], 2 * torch.outer(taps, taps) / 64)
    assert not found[0, 0].any()
    weight, bias = torch.zeros(2, 2, 3, 3), torch.tensor([1.0, -1.0])
    border = passes.convolve_and_blur(x, weight, bias, 0.2, padding=1, blur_padding=2)[0, :, 0, 0]
    # the corner sees 2 x 2 pixels of ones, by taps 3 and 1
    torch.testing.assert_close(border, torch.tensor([1.0, -0.2]) * 16 / 64)


@pytest.mark.parametrize("add", [False, True])
def test_doubling(add):
    x, weight, bias, to = random(2, 4, 6, 6), random(8, 4, 3, 3), random(8), random(2, 8, 12, 12)
    expected = F.conv2d(nearest(x, 2), weight, bias, padding=1) + (to if add else 0)
    found = passes.convolve_doubled(x, phases(weight), bias, 0.01, to.clone() if add else None)
    torch.testing.assert_close(found, F.leaky_relu(expected, 0.01), rtol=1e-5, atol=1e-5)


def test_kernels_equal_pytorch():
    """In Triton's interpreter, which is chosen once for a process."""
    pytest.importorskip("triton", reason="triton is not installed")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def calls(dtype):
    """Every way in which layers call the passes, by name; maps of more than one block and of odd sides."""

    def some(*shape, seed=0):
        x = random(*shape, seed=seed).to(dtype)
        return last(x) if x.ndim == 4 else x

    x, weight, bias, scale = some(2, 4, 13, 11), some(12, 4, 3, 3) / 6, some(12), some(2, 12).abs()
    then = some(2, 12, seed=3)
    before, after = some(2, 12, 13, 11, seed=1), some(2, 12, 13, 11, seed=2)
    square, doubled = some(2, 4, 7, 7), some(2, 16, 14, 14)
    kernels = last(phases(some(16, 4, 3, 3).float() / 6).to(dtype))
    return {
        "bias": lambda: passes.convolve(x, weight, bias, padding=1),
        "activation": lambda: passes.convolve(x, weight, bias, 0.2, padding=1),
        "no bias": lambda: passes.convolve(x, weight, None, 0.0, padding=1),
        "scale": lambda: passes.convolve(x, weight, bias, 0.2, padding=1, scale=scale),
        "scale, then factors": lambda: passes.convolve(x, weight, bias, 0.2, padding=1, scale=scale, then=then),
        "before": lambda: passes.convolve(x, weight, bias, 0.01, padding=1, before=before),
        "before, not channels last": lambda: passes.convolve(
            x, weight, bias, 0.01, padding=1, before=before.contiguous()
        ),
        "after": lambda: passes.convolve(x, weight, bias, 0.2, padding=1, after=after),
        "stride": lambda: passes.convolve(x, weight, bias, 0.2, stride=2),
        "blur": lambda: passes.blur(x, 2),
        "blur, then activation": lambda: passes.blur(x, 1, 4.0, scale[:, :4], bias[:4], 0.2),
        "blur, activation, factors": lambda: passes.blur(x, 1, 4.0, scale[:, :4], bias[:4], 0.2, then[:, :4]),
        "activation, then blur": lambda: passes.convolve_and_blur(x, weight, bias, 0.2, padding=1, blur_padding=2),
        "doubled": lambda: passes.convolve_doubled(square, kernels, some(16), 0.01),
        "doubled and added": lambda: passes.convolve_doubled(square, kernels, some(16), 0.01, add_to=doubled.clone()),
    }


def main():
    def in_triton(name, shape, x, kernel, plain):
        return kernel()

    with torch.no_grad():
        for dtype, tolerance in TOLERANCES.items():
            for name, call in calls(dtype).items():
                with mock.patch.object(passes, "with_kernel", in_triton):
                    found = call()
                assert found.dtype == dtype, name
                assert found.is_contiguous(memory_format=torch.channels_last), name
                difference = (found.float() - call().float()).abs().max().item()
                assert difference < tolerance, f"{name} in {dtype}: {difference}"


if __name__ == "__main__":
    main()
