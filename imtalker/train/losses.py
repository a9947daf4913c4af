"""Training losses of both models, and PSNR. Images are (B,3,S,S), RGB in 0..1; losses are means over the batch."""

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..media.tensors import read_tensors

log = logging.getLogger("imtalker")

# VGG-19 up to relu5_1: channels of its convolutions, None for pooling; and the convolutions whose outputs are compared
VGG = (64, 64, None, 128, 128, None, 256, 256, 256, 256, None, 512, 512, 512, 512, None, 512)
COMPARED = (0, 2, 4, 8, 12)  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet statistics, which its input is normalised by
SCALES = 3  # images are compared at full, half and quarter size
SMALLEST = 16  # side in pixels: the network would pool anything smaller away


def masked_l1(frames: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference inside `mask` (B,1,S,S), 0..1; 0 if the mask is empty."""
    difference = (frames - target).abs().mean(dim=1, keepdim=True)
    return (difference * mask).sum() / mask.sum().clamp_min(1.0)


def psnr(frames: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of images (B,...) in 0..1: the mean over images, inf for equal ones.

    mask: 0 or 1, broadcast to the images; only the pixels inside count.
    """
    error = (frames - target).square()
    inside = torch.ones_like(error) if mask is None else mask.expand_as(error)
    error = (error * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp_min(1)
    return (-10 * error.log10()).mean().item()


def identity_distance(motion: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """| |t - A(t,g1)| - |t - A(t,g2)| | of latents (B,motion_size): adaptation must move them equally far for everyone.

    motion: t, not adapted; own, other: t adapted to the person's own identity g1 and to another's g2.
    """
    return ((motion - own).abs() - (motion - other).abs()).abs().mean()


def difference_l1(sequence: Tensor, target: Tensor) -> Tensor:
    """L1 between the frame-to-frame changes of (B,T,C), which keeps motion smooth."""
    return F.l1_loss(sequence.diff(dim=1), target.diff(dim=1))


def adversarial(fake: list[Tensor]) -> Tensor:
    """The renderer's adversarial loss: softplus(-D(fake)), mean over the discriminator's scales."""
    return torch.stack([F.softplus(-each.float()).mean() for each in fake]).mean()


def discrimination(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """The discriminator's loss: softplus(-D(real)) + softplus(D(fake)), mean over its scales."""
    return torch.stack(
        [(F.softplus(-r.float()).mean() + F.softplus(f.float()).mean()) for r, f in zip(real, fake)]
    ).mean()


class Perceptual(nn.Module):
    """L1 between VGG-19 features of two images, at several sizes; VGG-19 itself is frozen."""

    def __init__(self):
        super().__init__()
        channels, self.convolutions = 3, nn.ModuleList()
        for width in VGG:
            if width is not None:
                self.convolutions.append(nn.Conv2d(channels, width, 3, padding=1))
                channels = width
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @classmethod
    def load(cls, file: str | Path) -> "Perceptual":
        """Loads torchvision's vgg19 (.pth or .safetensors, keys features.N.weight). InputError for any other file."""
        weights, _ = read_tensors(file)
        model, index = cls(), 0
        state = {}
        for width in VGG:
            number = len(state) // 2
            if width is not None:
                for part in ("weight", "bias"):
                    state[f"convolutions.{number}.{part}"] = weights.get(f"features.{index}.{part}")
            index += 1 if width is None else 2  # an activation follows each convolution
        expected = {name: value.shape for name, value in model.state_dict().items()}
        wrong = [name for name, shape in expected.items() if getattr(state[name], "shape", None) != shape]
        if wrong:
            raise InputError(
                f"{file} is not VGG-19 ({len(wrong)} of its weights are missing or have another shape): use "
                f"torchvision's vgg19 file, with keys like features.0.weight."
            )
        model.load_state_dict(state)
        return model

    def features(self, x: Tensor) -> list[Tensor]:
        """The outputs of the compared layers for images (B,3,S,S) in 0..1."""
        x = (x - self.mean) / self.deviation
        found, number = [], 0
        for width in VGG:
            if width is None:
                x = F.max_pool2d(x, 2)
                continue
            x = F.relu(self.convolutions[number](x))
            if number in COMPARED:
                found.append(x)
            number += 1
        return found

    def forward(self, frames: Tensor, target: Tensor) -> Tensor:
        total = frames.new_zeros(())
        for scale in range(SCALES):
            if scale:
                frames, target = F.avg_pool2d(frames, 2), F.avg_pool2d(target, 2)
            if frames.shape[-1] < SMALLEST:
                break
            with torch.no_grad():
                truth = self.features(target)
            total = total + sum(F.l1_loss(a, b) for a, b in zip(self.features(frames), truth)) / len(COMPARED)
        return total


def load_perceptual(file: str | Path | None) -> Perceptual | None:
    """The perceptual loss from a VGG-19 file; without a file, logs a warning and returns None."""
    if file is None:
        log.warning(
            "There is no perceptual loss without a VGG-19 file, so frames will be softer: give one with --vgg FILE."
        )
        return None
    return Perceptual.load(file)
