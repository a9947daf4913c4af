"""Layers shared by the renderer's networks (spec: Building blocks). Maps are (B,C,H,W), stored channels last."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folding import Folded
from .passes import blur, convolve, convolve_and_blur
from .styles import style_and_scale

GAIN = math.sqrt(2)  # of the equalised convolutions' activation
SLOPE = 0.2  # of the same
BLUR_PADDING = 2  # before a convolution that halves the side


class EqualLinear(Folded):
    """Linear layer whose weight is stored at unit variance and scaled by 1/sqrt(inputs) on use."""

    only_derived = ("weight",)

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def derive(self) -> tuple[Tensor]:
        return (self.weight / math.sqrt(self.weight.shape[1]),)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.derived(), self.bias)


class EqualMLP(nn.Module):
    """Four equalised layers with leaky ReLU, then one without it."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.layers = nn.ModuleList(EqualLinear(width, width) for _ in range(4))
        self.last = EqualLinear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return self.last(x)


class EqualConv2d(Folded):
    """Square convolution, scaled like EqualLinear."""

    only_derived = ("weight",)

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.padding = padding

    def derive(self) -> tuple[Tensor]:
        return (self.weight / math.sqrt(self.weight[0].numel()),)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.derived(), self.bias, padding=self.padding)


class ChannelBias(nn.Module):
    """The bias (1,C,1,1) of an activation."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.empty(1, channels, 1, 1))


class EqualConvAct(Folded):
    """Equalised 3x3 convolution, bias, leaky ReLU of slope 0.2 with gain sqrt(2); `halve` blurs and halves the side."""

    def __init__(self, inputs: int, outputs: int, halve: bool = False):
        super().__init__()
        # published names: the blur counts although it has no weights
        self.conv, self.act = ("1", "2") if halve else ("0", "1")
        self.add_module(self.conv, EqualConv2d(inputs, outputs, 3))
        self.add_module(self.act, ChannelBias(outputs))
        self.only_derived = (self.conv, self.act)
        self.halve = halve

    def derive(self) -> tuple[Tensor, Tensor]:
        (weight,) = getattr(self, self.conv).derive()
        return GAIN * weight, GAIN * getattr(self, self.act).bias.flatten()

    def forward(self, x: Tensor) -> Tensor:
        if self.halve:
            return self.halved(blur(x, BLUR_PADDING))
        weight, bias = self.derived()
        return convolve(x, weight, bias, SLOPE, padding=1)

    def halved(self, blurred: Tensor, after: Tensor | None = None) -> Tensor:
        """From a map that is blurred already; plus the map `after`, if given."""
        weight, bias = self.derived()
        return convolve(blurred, weight, bias, SLOPE, stride=2, after=after)


class BatchNorm2d(nn.Module):
    """torch's batch norm without its batch counter, which files need not hold."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        return F.batch_norm(x, mean, variance, self.weight, self.bias, self.training, eps=self.eps)

    def folded_into(self, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution followed by this norm, at its running statistics."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        bias = shift if conv.bias is None else shift + conv.bias * scale
        return conv.weight * scale[:, None, None, None], bias


def conv3(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class ConvNorm(Folded):
    """3x3 convolution without bias, then batch norm, then leaky ReLU; the map `before`, if given, is added first."""

    only_derived = ("conv", "norm")

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv3(channels, channels)
        self.norm = BatchNorm2d(channels)

    def derive(self) -> tuple[Tensor, Tensor]:
        return self.norm.folded_into(self.conv)

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        if self.training:
            x = self.norm(self.conv(x))
            return F.leaky_relu_(x if before is None else x.add_(before), 0.01)
        return convolve(x, *self.derived(), 0.01, padding=1, before=before)


class Stem(Folded):
    """7x7 convolution, batch norm, ReLU."""

    only_derived = ("0", "1")

    def __init__(self, channels: int):
        super().__init__()
        self.add_module("0", nn.Conv2d(3, channels, 7, padding=3))
        self.add_module("1", BatchNorm2d(channels))

    def derive(self) -> tuple[Tensor, Tensor]:
        return getattr(self, "1").folded_into(getattr(self, "0"))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.relu(getattr(self, "1")(getattr(self, "0")(x)))
        return convolve(x, *self.derived(), 0.0, padding=3)


class FeatRes(nn.Module):
    """Residual block of two 3x3 convolutions with batch norm."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = ConvNorm(channels)
        self.conv2 = ConvNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x), before=x)


class StyleRes(nn.Module):
    """Halving residual block of the motion encoder. The skip has the branch's shape; the sum is not divided."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = EqualConvAct(inputs, inputs)
        self.conv2 = EqualConvAct(inputs, outputs, halve=True)
        self.skip = EqualConvAct(inputs, outputs, halve=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:  # layer by layer, for hooks
            return self.conv2(self.conv1(x)) + self.skip(x)
        skip = self.skip(x)
        blurred = convolve_and_blur(x, *self.conv1.derived(), SLOPE, padding=1, blur_padding=BLUR_PADDING)
        return self.conv2.halved(blurred, after=skip)


class ModulatedConv2d(nn.Module):
    """Holds the weights of a 3x3 convolution that a latent modulates."""

    def __init__(self, inputs: int, outputs: int, latent: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, outputs, inputs, 3, 3))
        self.modulation = EqualLinear(latent, inputs)


class StyledConv(Folded):
    """3x3 convolution modulated by a latent (scaled per input channel, normalised per output channel), bias, leaky ReLU
    of slope 0.2 with gain sqrt(2); `upsample` doubles the side.

    The input and the output are scaled instead of the weight, so one weight serves the whole batch. The published noise
    input is unused in the method.
    """

    only_derived = ("conv", "activate")

    def __init__(self, inputs: int, outputs: int, latent: int, upsample: bool = False):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, latent)
        self.activate = ChannelBias(outputs)
        self.upsample = upsample

    def derive(self) -> tuple[Tensor, ...]:
        """Weight and bias of the convolution and its weight's energy, then weight and bias of the styles."""
        weight = self.conv.weight[0] / math.sqrt(self.conv.weight[0, 0].numel())
        energy = weight.float().square().sum((2, 3)) / GAIN**2
        bias, modulation = GAIN * self.activate.bias.flatten(), self.conv.modulation
        weight = weight.transpose(0, 1) if self.upsample else weight
        return weight, bias, energy, *modulation.derive(), modulation.bias

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        style, scale = self.styles(latent)
        return self.styled(styled(x, style), scale)

    def styles(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of the input's channels (B,inputs) and of the output's (B,outputs)."""
        _, _, energy, weight, bias = self.derived()
        return style_and_scale(latent, weight, bias, energy, 1e-8 / GAIN**2)

    def styled(self, x: Tensor, scale: Tensor, then: Tensor | None = None) -> Tensor:
        """From a map that has its style already; the result gets the style `then` (B,outputs), if given."""
        weight, bias, *_ = self.derived()
        if self.upsample:
            return blur(F.conv_transpose2d(x, weight, stride=2), 1, 4.0, scale, bias, SLOPE, then)
        return convolve(x, weight, bias, SLOPE, padding=1, scale=scale, then=then)


def styled(x: Tensor, style: Tensor) -> Tensor:
    return x * style[:, :, None, None]
