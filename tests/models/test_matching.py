"""The attention that also says where it looked: every backend against the definition, and against each other."""

import pytest
import torch

from imtalker.models.matching import attend_and_match

SHAPES = [(2, 4, 30, 40, 8), (1, 8, 64, 64, 16), (1, 2, 5, 129, 4), (2, 3, 17, 1, 8)]


def cases(scales=(0.0, 1e-3, 1.0, 30.0, 1e3)):
    """Random inputs, tiny to huge, and such where many keys tie."""
    random = torch.Generator().manual_seed(3)
    for batch, heads, count, keys, width in SHAPES:
        for scale in scales:
            q = torch.randn(batch, heads, count, width, generator=random) * scale
            k, v = torch.randn(2, 1, heads, keys, width, generator=random)
            yield q, k, v
            # every key three times over: the first of the three must be chosen
            repeated = k[:, :, : (keys + 2) // 3].repeat(1, 1, 3, 1)[:, :, :keys]
            yield q, repeated, v
    for batch, heads, count, keys, width in SHAPES:  # an image each has keys of its own
        yield (
            torch.randn(batch, heads, count, width, generator=random),
            *torch.randn(2, batch, heads, keys, width, generator=random),
        )


def check(q, k, v, output, match):
    q, k, v = q.double(), k.double(), v.double()
    logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    weights = logits.softmax(-1)
    # float32 rounds large logits, and a weight's relative error is its logit's absolute one
    tolerance = 1e-5 + 1e-6 * logits.abs().max().item()
    torch.testing.assert_close(output.double(), weights @ v, rtol=tolerance, atol=tolerance)
    averaged = weights.mean(1)
    chosen = averaged.gather(2, match.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(chosen, averaged.amax(2), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("working_set", [1, 10_000, 1 << 30])
def test_in_blocks(working_set):
    for q, k, v in cases():
        check(q, k, v, *attend_and_match(q, k, v, working_set))


def test_where_gradients_flow():
    for q, k, v in cases(scales=(1.0,)):
        output, match = attend_and_match(q.requires_grad_(), k, v, 1)
        check(q.detach(), k, v, output.detach(), match)
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
        for ours, theirs in zip(*(torch.autograd.grad(x.square().sum(), q) for x in (output, weights @ v))):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("working_set", [1, 1 << 30])
def test_ties_go_to_the_first_key(working_set):
    for q, k, v in cases():
        _, match = attend_and_match(torch.zeros_like(q), k, v, working_set)
        assert (match == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_chooses_the_keys_that_float32_does(dtype, autocast):
    """As the Triton kernel does: only the inputs and the output are rounded, not what decides."""
    random = torch.Generator().manual_seed(4)
    q = 5 * torch.randn(2, 8, 200, 16, generator=random)
    k, v = torch.randn(2, 1, 8, 300, 16, generator=random)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    expected, chosen = attend_and_match(q.float(), k.float(), v.float(), 1 << 30)
    with torch.autocast("cpu", dtype, enabled=autocast):
        output, match = attend_and_match(q, k, v, 1 << 16)
    assert torch.equal(match, chosen)
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_no_more_than_the_working_set_is_held():
    q, k, v = torch.randn(1, 8, 512, 16), torch.randn(1, 8, 512, 16), torch.randn(1, 8, 512, 16)
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel() * result.element_size())
            return result

    with Watch():
        attend_and_match(q, k, v, 1 << 18)
    assert max(sizes) <= 1 << 18
