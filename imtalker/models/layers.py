"""Layers shared by the renderer's networks (spec: Building blocks). Feature maps are (B,C,H,W)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EqualLinear(nn.Module):
    """Linear layer whose weight is stored at unit variance and scaled by 1/sqrt(inputs) on use."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class EqualMLP(nn.Module):
    """Four equalised layers with leaky ReLU, then one without."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.layers = nn.ModuleList(EqualLinear(width, width) for _ in range(4))
        self.last = EqualLinear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.last(x)


class EqualConv2d(nn.Module):
    """Square convolution with the equalised scale of EqualLinear."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class FusedLeakyReLU(nn.Module):
    """Per-channel bias, leaky ReLU of slope 0.2, gain sqrt(2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.empty(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias, 0.2) * math.sqrt(2)


class Blur(nn.Module):
    """Depthwise smoothing with the outer product of [1,3,3,1]/8, times `gain`."""

    def __init__(self, padding: int, gain: float = 1.0):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device="cpu") / 8
        self.register_buffer("kernel", gain * torch.outer(taps, taps), persistent=False)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.to(x.dtype).expand(channels, 1, 4, 4), padding=self.padding, groups=channels)


class BatchNorm2d(nn.Module):
    """torch's batch norm without its counter of batches, which the files need not hold."""

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


def conv3(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class ConvNorm(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv3(channels, channels)
        self.norm = BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class FeatRes(nn.Module):
    """Residual block of two normalised 3x3 convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = ConvNorm(channels)
        self.conv2 = ConvNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.conv2(F.leaky_relu(self.conv1(x), 0.01)), 0.01)


class Resample(nn.Module):
    """conv-norm-activation, conv, two residual blocks; `Down`, `Up` and `Merge` differ in where the side changes."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = conv3(inputs, outputs)
        self.norm = BatchNorm2d(outputs)
        self.conv2 = conv3(outputs, outputs)
        self.res1 = FeatRes(outputs)
        self.res2 = FeatRes(outputs)

    def enter(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv1(x)), 0.01)

    def leave(self, x: Tensor) -> Tensor:
        return self.res2(self.res1(self.conv2(x)))


class Down(Resample):
    """Halves the side."""

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.avg_pool2d(self.enter(x), 2))


class Up(Resample):
    """Doubles the side."""

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.enter(F.interpolate(x, scale_factor=2, mode="nearest")))


class Merge(Resample):
    """Joins two maps that were concatenated over channels."""

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.enter(x))


class StyleRes(nn.Module):
    """Halving residual block of the motion encoder; the skip is as wide as the branch and the sum is not divided."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Sequential(EqualConv2d(inputs, inputs, 3, padding=1), FusedLeakyReLU(inputs))
        self.conv2 = self._halve(inputs, outputs)
        self.skip = self._halve(inputs, outputs)

    @staticmethod
    def _halve(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(Blur(padding=2), EqualConv2d(inputs, outputs, 3, stride=2), FusedLeakyReLU(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x)) + self.skip(x)


class ModulatedConv2d(nn.Module):
    """3x3 convolution whose weight is scaled per input channel by a latent and normalised per output channel.

    Scaling the input and the output instead of the weight keeps one weight for the whole batch.
    """

    def __init__(self, inputs: int, outputs: int, latent: int, upsample: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, outputs, inputs, 3, 3))
        self.modulation = EqualLinear(latent, inputs)
        self.scale = 1 / math.sqrt(9 * inputs)
        self.blur = Blur(padding=1, gain=4.0) if upsample else None

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        weight = self.weight[0] * self.scale
        style = self.modulation(latent)
        # in float32: the sum of squares overflows half precision
        energy = F.linear(style.float().square(), weight.float().square().sum((2, 3)))
        demodulation = torch.rsqrt(energy + 1e-8).to(x.dtype)
        x = x * style[:, :, None, None]
        if self.blur is None:
            x = F.conv2d(x, weight, padding=1)
        else:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        return x * demodulation[:, :, None, None]


class StyledConv(nn.Module):
    """Modulated convolution and activation. The published noise input is switched off in the method."""

    def __init__(self, inputs: int, outputs: int, latent: int, upsample: bool = False):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, latent, upsample)
        self.activate = FusedLeakyReLU(outputs)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        return self.activate(self.conv(x, latent))
