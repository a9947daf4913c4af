"""Attention in a CPU's caches equals the plain way, or says that it cannot; the plain way is then taken."""

import pytest
import torch
from test_matching import cases, check

from imtalker.models import backend, in_cache
from imtalker.models.folding import fold
from imtalker.models.windows import SwinBlock


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("part", [1 << 10, 1 << 14, 1 << 22])
def test_matches_in_parts(monkeypatch, part):
    monkeypatch.setattr(in_cache, "PART", part)
    for q, k, v in cases(scales=(0.0, 1e-3, 1.0, 3.0)):
        check(q, k, v, *in_cache.attend_and_match(q, k, v))


def test_ties_go_to_the_first_key():
    for q, k, v in cases(scales=(1.0,)):
        _, match = in_cache.attend_and_match(torch.zeros_like(q), k, v)
        assert (match == 0).all()


def test_a_mean_far_from_zero_costs_nothing():
    """Logits of 300 for every key: what counts is how they differ."""
    q, k, v = next(cases(scales=(1.0,)))
    k = k + 100 * torch.eye(k.shape[-1])[0]
    q = q + 10 * torch.eye(k.shape[-1])[0]
    check(q, k, v, *in_cache.attend_and_match(q, k, v))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e3, 1e30])
def test_weights_out_of_range_go_the_plain_way(scale):
    """No input gives wrong frames: where exp leaves float32's range the backend's result is the plain one."""
    for q, k, v in cases(scales=(scale,)):
        check(q.clamp(-1e10, 1e10), k, v, *backend.attend_and_match(q.clamp(-1e10, 1e10), k, v))
    large = 1e3 * q
    assert in_cache.attend_and_match(large, k, v) is None or k.shape[2] == 1


def test_numbers_that_are_none_stay_none():
    q, k, v = next(cases(scales=(1.0,)))
    q = torch.full_like(q, float("nan"))
    assert in_cache.attend_and_match(q, k, v) is None
    assert backend.attend_and_match(q, k, v)[0].isnan().all()


def swin(side, width, heads, window, shifted, scale=0.5):
    block = SwinBlock(side, width, heads, window, shifted)
    random = torch.Generator().manual_seed(side + shifted)
    for parameter in block.parameters():
        parameter.copy_(scale * torch.randn(parameter.shape, generator=random))
    return fold(block.eval())


def plainly(block, x):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imtalker.models.windows.keeps_in_cache", lambda x: False)
        return block(x)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("side", "width", "heads", "window"), [(16, 8, 2, 4), (24, 32, 8, 8), (8, 6, 1, 8)])
@pytest.mark.parametrize("part", [1 << 10, 1 << 15, 1 << 22])
def test_swin_blocks(monkeypatch, shifted, side, width, heads, window, part):
    monkeypatch.setattr(in_cache, "PART", part)
    block = swin(side, width, heads, window, shifted)
    x = torch.randn(2, side**2, width, generator=torch.Generator().manual_seed(1))
    kept = x.clone()
    found = block._in_cache(x)
    torch.testing.assert_close(found, plainly(block, x), rtol=1e-5, atol=1e-5)
    assert torch.equal(x, kept)


def test_a_swin_block_of_large_weights_goes_the_plain_way():
    block = swin(16, 8, 2, 4, True, scale=20.0)
    x = torch.randn(1, 256, 8)
    assert block._in_cache(x) is None
    assert torch.equal(block(x), plainly(block, x))
    assert not block(x).isnan().any()


def test_where_it_is_used():
    x = torch.zeros(1)
    assert backend.keeps_in_cache(x)
    assert not backend.keeps_in_cache(x.half())
    assert not backend.keeps_in_cache(x.to("meta"))
    with torch.inference_mode(False), torch.enable_grad():
        assert not backend.keeps_in_cache(x)
