"""Models and inputs shared by the benchmarks: full-size untrained weights, or tiny ones with --small."""

import numpy as np
import torch
from torch import Tensor

from imtalker.models.config import PUBLISHED, AudioConfig, GeneratorConfig, RendererConfig
from imtalker.models.generator import Generator
from imtalker.models.renderer import Renderer
from imtalker.weights.untrained import untrained_generator, untrained_renderer

AUDIO = AudioConfig(16, 2, 2, 32, (16,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)


def renderer_config(generation: str, small: bool) -> RendererConfig:
    side = {"v1": 32, "v2": 64}[generation]
    tiny = RendererConfig(generation, side, (32, 32, 16, 16), 4, 2, 8, 32, (8, 16, 32), 4)
    return tiny if small else PUBLISHED["renderer"][generation]


def generator_config(generation: str, small: bool) -> GeneratorConfig:
    tiny = GeneratorConfig(generation, 8, 8, 64, 2, 2, audio=AUDIO)
    return tiny if small else PUBLISHED["generator"][generation]


def renderer(generation: str, small: bool) -> Renderer:
    return untrained_renderer(renderer_config(generation, small))


def generator(generation: str, small: bool) -> Generator:
    return untrained_generator(generator_config(generation, small))


def images(count: int, size: int) -> Tensor:
    """Smooth random patterns, (count,size,size,3) in 0..1."""
    random = torch.Generator("cpu").manual_seed(5)
    coarse = torch.rand(count, 3, 9, 9, generator=random)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)


def latents(count: int, size: int) -> Tensor:
    """Random motion latents (count,size)."""
    return torch.randn(count, size, generator=torch.Generator("cpu").manual_seed(6))


def waves(key: int, size: int) -> Tensor:
    """A golden image (tests/golden/README.md), (1,size,size,3) in 0..1: sums of plane waves."""
    rng = np.random.Generator(np.random.PCG64(key))
    y, x = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size), indexing="ij")
    channels = []
    for _ in range(3):
        total = np.zeros((size, size))
        for _ in range(12):
            fy, fx, phase, amplitude = (
                rng.uniform(-9, 9), rng.uniform(-9, 9), rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1),
            )  # fmt: skip
            total += amplitude * np.sin(2 * np.pi * (fy * y + fx * x) + phase)
        channels.append(0.5 + 0.5 * np.tanh(total / 2))
    return torch.from_numpy(np.stack(channels, axis=-1).astype(np.float32))[None]
