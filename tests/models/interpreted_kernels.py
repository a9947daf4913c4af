"""Run by test_kernels.py in a process of its own: every kernel agrees with the plain way, in every precision."""

import numpy as np
import pytest
import torch
import triton.language as tl
from test_matching import cases
from test_matching import check as check_match
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from imtalker.models import backend
from imtalker.models.folding import fold
from imtalker.models.styles import style_and_scale
from imtalker.models.windows import SwinBlock

PRECISIONS = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def products_as_on_a_gpu(monkeypatch):
    """The interpreter multiplies the bits of bfloat16 as if they were integers, cuts them off where a GPU rounds, and
    knows no tf32x3: float32 as the sum of two numbers with the 10 bits of mantissa that matrix units take."""
    dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def create_dot(self, a, b, total, precision, *options):
        a, b = (cast(self, x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
        if precision.name == "TF32x3":
            (a, a_rest), (b, b_rest) = (in_tf32(x) for x in (a, b))
            for x, y in ((a_rest, b), (a, b_rest)):
                total = dot(self, x, y, total, precision, *options)
        return dot(self, a, b, total, precision, *options)

    def in_tf32(x):
        large = (x.data.view(np.uint32) & 0xFFFFE000).view(np.float32)
        rest = ((x.data - large).view(np.uint32) & 0xFFFFE000).view(np.float32)
        return TensorHandle(large, tl.float32), TensorHandle(rest, tl.float32)

    def cast_impl(self, x, to):
        if (x.dtype.scalar, to.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, x, to)
        bits = torch.as_tensor(x.data).bfloat16().view(torch.int16).numpy().view(np.uint16)
        return TensorHandle(bits, tl.bfloat16)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast_impl)


@pytest.fixture(autouse=True)
def kernels_run_on_the_cpu(monkeypatch):
    monkeypatch.setattr(backend, "with_kernel", lambda name, shape, x, kernel, plain: kernel())
    monkeypatch.setattr(backend, "compute_capability", lambda device: 89)
    with torch.inference_mode():
        yield


def with_the_plain_way(compute):
    """The result of kernels and that of plain PyTorch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "with_kernel", lambda name, shape, x, kernel, plain: plain())
        plain = compute()
    return compute(), plain


def off(x, truth):
    """The largest error, in shares of the largest true value."""
    return ((x.double() - truth.double()).abs().max() / truth.abs().max()).item()


def check(compute, truth, precision):
    """Within float32's rounding, or nearer to the truth than the plain way, which rounds more often, and near at all.

    truth: the same in float32, of inputs and weights that are already rounded.
    """
    kernel, plain = with_the_plain_way(compute)
    assert kernel.dtype == plain.dtype == precision
    assert kernel.shape == plain.shape
    assert off(kernel, truth) <= (1e-6 if precision == torch.float32 else off(plain, truth))
    assert off(kernel, truth) <= 4 * torch.finfo(precision).eps


def swin(width, heads, side, shifted, precision, scale):
    """Two blocks of the same weights: in a precision, and in float32."""
    random = torch.Generator().manual_seed(width + shifted)
    blocks = [SwinBlock(side, width, heads, 8, shifted).eval().requires_grad_(False) for _ in range(2)]
    for parameters in zip(*(block.parameters() for block in blocks)):
        value = (scale * torch.randn(parameters[0].shape, generator=random)).to(precision)
        for parameter in parameters:
            parameter.copy_(value)
    rounded, exact = fold(blocks[0].to(precision)), fold(blocks[1])
    for name in rounded.kept:
        setattr(exact, name, getattr(rounded, name).float())
    return rounded, exact


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("width", "heads", "batch", "shifted"),
    [(32, 8, 1, True), (64, 8, 1, True), (16, 4, 3, False), (64, 2, 1, True)],
    ids=["side 256", "side 128", "tiny, odd batch", "wide heads"],
)
def test_a_swin_block(width, heads, batch, shifted, precision):
    """On 16 x 16 cells: one window of each kind of mask."""
    rounded, exact = swin(width, heads, 16, shifted, precision, 0.3)
    x = torch.randn(batch, 256, width, generator=torch.Generator().manual_seed(1)).to(precision)
    check(lambda: rounded(x), exact(x.float()), precision)


def test_a_swin_block_of_large_logits():
    """Hundreds, so that float32 itself rounds the result: not further from double precision than the plain way."""
    rounded, exact = swin(32, 8, 16, True, torch.float32, 2.0)
    x = torch.randn(1, 256, 32, generator=torch.Generator().manual_seed(1))
    kernel, plain = with_the_plain_way(lambda: rounded(x))
    truth = exact.double()(x.double())
    assert off(kernel, truth) < 2 * off(plain, truth)


@pytest.mark.parametrize("capability", [80, 90])
def test_float32_from_three_products_is_float32(monkeypatch, capability):
    """What a GPU adds is only the order of its sums: that the emulated products agree is all that is known here."""
    monkeypatch.setattr(backend, "compute_capability", lambda device: capability)
    assert backend.products(capability, torch.float32)[0] == "tf32x3"
    rounded, exact = swin(32, 8, 16, True, torch.float32, 0.3)
    x = torch.randn(1, 256, 32, generator=torch.Generator().manual_seed(1))
    check(lambda: rounded(x), exact(x), torch.float32)


def test_a_swin_block_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match="3 heads of 16 channels"):
        swin(48, 3, 16, False, torch.float32, 0.3)[0](torch.randn(1, 256, 48))


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_matches(scale):
    for number, (q, k, v) in enumerate(cases(scales=(scale,))):
        output, match = backend.attend_and_match(q, k, v)
        check_match(q, k, v, output, match)
        if scale == 1 and number % 2 == 0:  # once for each shape
            _, first = backend.attend_and_match(torch.zeros_like(q), k, v)
            assert (first == 0).all(), "ties go to the first key"
            half, _ = backend.attend_and_match(q.half(), k.half(), v.half())
            torch.testing.assert_close(half.float(), output, rtol=0, atol=2e-2)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("count", "keys", "width"), [(256, 192, 16), (130, 70, 8)], ids=["whole tiles", "parts of some"]
)
def test_attention(count, keys, width, precision):
    random = torch.Generator().manual_seed(count)
    # heads are slices of channels: not contiguous
    q, k, v = (torch.randn(3, n, 2 * width, generator=random).to(precision) for n in (count, keys, keys))
    q, k, v = (x.unflatten(2, (2, -1)).transpose(1, 2) for x in (3 * q, k, v))
    truth = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    kernel, _ = with_the_plain_way(lambda: backend.attend(q, k, v))
    assert kernel.dtype == precision
    assert off(kernel, truth) <= (1e-6 if precision == torch.float32 else torch.finfo(precision).eps)
    joined = kernel.transpose(1, 2).flatten(2)
    assert joined.data_ptr() == kernel.data_ptr(), "joining the heads must copy nothing"


def style_inputs(outputs, channels, size, precision):
    random = torch.Generator().manual_seed(channels)
    latent, weight, bias = (
        torch.randn(shape, generator=random).to(precision) for shape in ((3, size), (channels, size), (channels,))
    )
    return latent, weight, bias, torch.randn(outputs, channels, generator=random).square()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("outputs", "channels", "size"), [(32, 64, 32), (21, 40, 13)], ids=["whole tiles", "parts of some"]
)
def test_styles(outputs, channels, size, precision):
    inputs = style_inputs(outputs, channels, size, precision)
    latent, weight, bias, energy = (x.double() for x in inputs)
    style = latent @ weight.T + bias
    largest = style.abs().amax(1, keepdim=True)
    scale = (((style / largest).square() @ energy.T) + 0.5 / largest.square()).rsqrt()
    for number, truth in enumerate((style / largest, scale)):
        check(lambda number=number: style_and_scale(*inputs, 0.5)[number], truth, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_styles_at_the_ends_of_the_range(precision):
    """No style at all, outputs without energy, whose scale does not fit half precision, and what is not a number."""
    latent, weight, bias, energy = style_inputs(20, 40, 8, precision)
    latent[0], latent[1], bias[:], energy[3] = 0, float("nan"), 0, 0
    style, scale = style_and_scale(latent, weight, bias, energy, 1e-12)
    assert not style[0].any()
    assert not scale[0].isinf().any()
    assert style[1].isnan().all()
    assert scale[1].isnan().all()
    largest = (latent[2].double() @ weight.T.double()).abs().max()
    fits = min(1e6 * largest.item(), torch.finfo(precision).max)
    assert scale[2, 3].item() == pytest.approx(fits, rel=4 * torch.finfo(precision).eps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "with_kernel", lambda name, shape, x, kernel, plain: plain())
        for found, plain in zip((style, scale), style_and_scale(latent, weight, bias, energy, 1e-12)):
            torch.testing.assert_close(found, plain, rtol=4 * torch.finfo(precision).eps, atol=1e-2, equal_nan=True)
