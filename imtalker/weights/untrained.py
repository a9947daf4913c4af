"""Made-up weights of any size, to check an installation or a rewrite without trained weights.

Every tensor is a function of (seed, published name, shape) alone: the recipe behind the project's reference numbers.
Frames rendered with them are patterns, not faces.
"""

import math
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from ..models.config import GeneratorConfig, RendererConfig
from ..models.folding import fold
from ..models.generator import Generator
from ..models.names import to_published
from ..models.renderer import Renderer
from .reading import CLASSES

LABEL = "untrained weights: not a face"  # written across the frames

# these parts of the renderer scale their weights on use, so the weights have unit variance
EQUALISED = ("adapt.", "latent_token_decoder.")
EQUALISED_INSIDE = ("dense_feature_encoder.", "latent_token_encoder.")
EQUALISED_PARTS = ("equalconv", "linear_layers", "final_linear", "res_blocks")


def untrained_renderer(config: RendererConfig, seed: int = 1) -> Renderer:
    """A renderer with made-up weights, float32 on the CPU."""
    return _fill("renderer", config, seed)


def untrained_generator(config: GeneratorConfig, seed: int = 1) -> Generator:
    """A motion generator, audio encoder included, with made-up weights, float32 on the CPU."""
    return _fill("generator", config, seed)


def made_up(name: str, shape: tuple[int, ...], seed: int = 1) -> Tensor:
    """The tensor of one published name (without prefix)."""
    number = int.from_bytes(sha256(f"{seed}:{name}".encode()).digest()[:8], "little")
    n = np.random.Generator(np.random.PCG64(number)).standard_normal(size=shape, dtype=np.float32)
    return torch.from_numpy(np.asarray(_scaled(name, n), dtype=np.float32))


def _scaled(name: str, n: np.ndarray) -> np.ndarray:
    leaf = name.rsplit(".", 1)[-1]
    fan = math.prod(n.shape[1:])
    if leaf == "running_var":
        return 1 + 0.3 * np.tanh(n)
    if leaf == "running_mean":
        return 0.1 * n
    if name.endswith("modulation.bias") and "adaLN" not in name:
        return 1 + 0.1 * n
    if leaf == "bias":
        return 0.1 * n
    if leaf == "relative_position_bias_table":
        return 0.5 * n
    if leaf in ("q_pos_embedding", "k_pos_embedding", "const", "masked_spec_embed", "pos_embed"):
        return n
    if leaf in ("original0", "weight_g"):
        return 3 * np.abs(1 + 0.1 * n)
    if n.ndim == 1:
        return 0.1 * n + (0.6 if ".norm.norm." in name else 1)
    if name.startswith(EQUALISED) or (
        name.startswith(EQUALISED_INSIDE) and any(part in name for part in EQUALISED_PARTS)
    ):
        return n
    if "block_efc.q_proj" in name or "block_efc.k_proj" in name:
        return 5 * n / math.sqrt(fan)
    return n / math.sqrt(fan)


def _fill(kind: str, config: RendererConfig | GeneratorConfig, seed: int) -> Renderer | Generator:
    with torch.device("meta"):
        model = CLASSES[kind](config).eval()
    tensors = {
        name: made_up(to_published(kind, name), tuple(tensor.shape), seed)
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(tensors, assign=True)
    return fold(model.requires_grad_(False))
