"""Tells rendered from real images, patch by patch, at two sizes."""

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)


class Patches(nn.Module):
    """Image (B,3,S,S) -> a score for each patch, (B,1,s,s); above 0 means real."""

    def __init__(self):
        super().__init__()
        layers = []
        for number, (inputs, outputs) in enumerate(zip((3, *WIDTHS), WIDTHS)):
            last = number == len(WIDTHS) - 1
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=1 if last else 2, padding=1))
            if number:
                layers.append(nn.InstanceNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2))
        layers.append(nn.Conv2d(WIDTHS[-1], 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class Discriminator(nn.Module):
    """Scores of an image in 0..1 and of its half-size copy, [(B,1,s,s), (B,1,s/2,s/2)]; sides of 64 or more."""

    def __init__(self):
        super().__init__()
        self.scales = nn.ModuleList(Patches() for _ in range(2))

    def forward(self, image: Tensor) -> list[Tensor]:
        image = 2 * image - 1
        return [self.scales[0](image), self.scales[1](F.avg_pool2d(image, 2))]
