"""Random weights to train from scratch: signals neither vanish nor explode under them.

Not to be confused with imtalker/weights/untrained.py, whose weights are reference values for tests.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.attention import SelfAttentionBlock
from ..models.config import GeneratorConfig, RendererConfig
from ..models.encoders import MotionEncoder
from ..models.flow import FlowTransformer
from ..models.generator import Generator
from ..models.layers import (
    GAIN,
    BatchNorm2d,
    ChannelBias,
    EqualConv2d,
    EqualConvAct,
    EqualLinear,
    EqualMLP,
    FeatRes,
    ModulatedConv2d,
)
from ..models.names import to_ours
from ..models.renderer import Renderer
from ..models.resample import Merge, Resample
from ..models.synthesis import Synthesis
from ..models.windows import SwinBlock
from ..weights.checkpoints import read_wav2vec

SMALL = 0.02  # deviation of tables that are added to signals of unit variance
LEAK = 0.2  # negative slope of the equalised layers' activation, which has no gain in EqualMLP


def new_renderer(config: RendererConfig, seed: int = 0) -> Renderer:
    """A renderer to train from scratch, float32 on the CPU, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return initialise(Renderer(config)).train()


def new_generator(config: GeneratorConfig, seed: int = 0, wav2vec: str | Path | None = None) -> Generator:
    """A motion generator to train from scratch, float32 on the CPU, in training mode.

    wav2vec: folder or file of the audio encoder's weights; None leaves transformers' random ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = initialise(Generator(config))
    if wav2vec is not None:
        weights = {to_ours("generator", name): tensor.float() for name, tensor in read_wav2vec(wav2vec).items()}
        prefix = "audio_encoder.wav2vec2."
        model.audio_encoder.wav2vec2.load_state_dict(
            {n.removeprefix(prefix): t for n, t in weights.items() if not n.endswith("masked_spec_embed")}
        )
    return model.train()


@torch.no_grad()
def initialise(model: Renderer | Generator) -> Renderer | Generator:
    """Draws all weights from torch's global generator, except those of wav2vec2, which transformers has drawn."""
    parts = [part for name, part in model.named_children() if name != "audio_encoder"]
    for part in parts:
        for module in part.modules():
            _draw(module)
    # second pass: overrides what the first drew inside these modules
    for part in parts:
        for module in part.modules():
            _adjust(module)
    return model


@torch.no_grad()
def standardise(last: EqualLinear, run: Callable[[], Tensor]) -> Tensor:
    """Rescales the last layer so that what `run` returns, (B,n), has mean 0 and deviation 1; returns the new values."""
    values = run()
    deviation = values.std(dim=0).clamp_min(1e-8)
    last.weight.div_(deviation[:, None])
    last.bias.sub_(values.mean(dim=0)).div_(deviation)
    return run()


@torch.no_grad()
def standardise_layers(encoder: MotionEncoder, run: Callable[[], Tensor], deviation: Tensor) -> None:
    """Rescales every layer to mean 0 and deviation 1 over the images that `run` encodes, the last to `deviation` (n,).

    After ten random layers the outputs for different images differ by a hundredth of what they share: a motion encoder
    without this says nearly the same about every image.
    """

    def adjust(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if isinstance(module, EqualConvAct):
            output = torch.where(output > 0, output, output / LEAK) / GAIN  # undoes the activation
            weight, bias = getattr(module, module.conv).weight, getattr(module, module.act).bias
        else:
            weight, bias = module.weight, module.bias
        dims = [0, 2, 3] if output.ndim == 4 else [0]
        target = deviation if module is encoder.mlp.last else 1.0
        scale = target / (output.std(dims) + 1e-6) / (GAIN if isinstance(module, EqualConvAct) else 1.0)
        weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))
        bias.copy_(((bias.flatten() - output.mean(dims)) * scale).view_as(bias))
        return module.forward(*inputs)

    layers = [module for module in encoder.modules() if isinstance(module, EqualConvAct | EqualLinear)]
    hooks = [layer.register_forward_hook(adjust) for layer in (encoder.conv1, *layers, encoder.equalconv)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def start_as_identity(synthesis: Synthesis) -> None:
    """Nearly closes residual branches and makes the layers between them nearly the identity, so maps pass through.

    Colours are then learned in hundreds of steps instead of thousands.
    """
    for module in synthesis.modules():
        if isinstance(module, Resample):
            weight = module.conv2.weight
            weight.mul_(0.1).add_(nn.init.dirac_(torch.empty_like(weight)))
        if isinstance(module, FeatRes):
            module.conv2.norm.weight.zero_()
        elif isinstance(module, Merge):
            weight = module.conv1.weight
            identity = nn.init.dirac_(torch.empty_like(weight[:, : len(weight)]))
            weight.mul_(0.3).add_(torch.cat([identity, identity], dim=1))
        elif isinstance(module, SelfAttentionBlock | SwinBlock):
            module.attn.proj.weight.mul_(0.05)
            module.mlp[-1].weight.mul_(0.05)


def _draw(module: nn.Module) -> None:
    if isinstance(module, EqualLinear | EqualConv2d | ModulatedConv2d):
        module.weight.normal_()
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=0.01, nonlinearity="leaky_relu")
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        module.bias.zero_()
    elif isinstance(module, BatchNorm2d):
        module.weight.fill_(1)
        module.bias.zero_()
        module.running_mean.zero_()
        module.running_var.fill_(1)
    elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        module.weight.fill_(1)
        module.bias.zero_()
    elif isinstance(module, ChannelBias):
        module.bias.zero_()
    for name, parameter in module.named_parameters(recurse=False):
        if name in ("q_pos_embedding", "k_pos_embedding", "relative_position_bias_table"):
            nn.init.trunc_normal_(parameter, std=SMALL)
        elif name == "const":
            parameter.normal_()
        elif name == "pos_embed":
            parameter.copy_(sinusoids(*parameter.shape[1:]))


def _adjust(module: nn.Module) -> None:
    if isinstance(module, EqualMLP):
        for layer in module.layers:
            layer.weight.mul_(math.sqrt(2 / (1 + LEAK**2)))
    elif isinstance(module, ModulatedConv2d):
        module.modulation.bias.fill_(1)
    elif isinstance(module, FlowTransformer):
        # DiT's adaLN-zero: every block starts as the identity, and the velocity is 0
        for block in (*module.blocks, module.head):
            nn.init.zeros_(block.adaLN_modulation[1].weight)
            nn.init.zeros_(block.adaLN_modulation[1].bias)
        nn.init.zeros_(module.head.linear.weight)
        for layer in (module.time.mlp[0], module.time.mlp[2]):
            nn.init.normal_(layer.weight, std=SMALL)


def sinusoids(length: int, width: int) -> Tensor:
    """(length,width): sines in even and cosines in odd columns, of frequencies 10000^(-2i/width)."""
    angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
