"""Swin blocks where Triton is absent: PyTorch's attention with padded heads equals the plain way."""

import pytest
import torch
import torch.nn.functional as F
from test_in_cache import plainly, swin

from imtalker.models import backend


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("width", "heads"), [(32, 8), (64, 8), (24, 2)], ids=["padded to 8", "8", "padded to 16"])
@torch.inference_mode()
def test_padded_heads(monkeypatch, shifted, width, heads):
    block = swin(16, width, heads, 8, shifted)
    x = torch.randn(3, 256, width, generator=torch.Generator().manual_seed(1))
    expected = plainly(block, x)
    seen = []

    def attention(q, k, v, attn_mask, scale):
        seen.append((q.shape, attn_mask.stride(0)))
        return attend(q, k, v, attn_mask=attn_mask, scale=scale)

    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    monkeypatch.setattr("imtalker.models.windows.attends_fused", lambda x: True)
    torch.testing.assert_close(plainly(block, x), expected, rtol=1e-5, atol=5e-5)
    assert sum(shape[0] for shape, _ in seen) == 3 * 4, "each window of each image once"
    assert all(shape[3] % 8 == 0 for shape, _ in seen), "PyTorch's kernel refuses other heads"
    assert all(step == 0 for _, step in seen), "windows share their mask"


def test_where_it_is_used():
    """On a CPU the plain way is faster."""
    assert not backend.attends_fused(torch.zeros(1))
