"""wav2vec2 (transformers' own modules) over audio of any length, with features resampled to the frame rate.

A first pass over the clip (`measure`) collects everything that depends on the whole of it: the mean and variance of the
waveform and of the first layer's group norm, both from sums of products of samples. The rest is computed block by block
with exactly those values. Only attention between all frames has to be split in clips longer than `window_frames`: into
overlapping windows of equal length with a crossfade.

Measured with untrained weights of full size on 2.5 minutes (`python -m benchmarks.audio`): blocks differ from
transformers' own whole-clip pass by at most 3.3e-6; windows of 92 s by 11 % of the features' root mean square (at most
0.48), of 46 s by 16 % (0.87), with no step between frames above 0.013. wav2vec2 was trained on clips of seconds.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..media.audio import FPS, SAMPLE_RATE, frame_count
from ..media.resampling import BlockReader
from . import backend
from .config import AudioConfig

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS

# Frames per step of the convolutions, and query frames per step of the attention.
CONVOLVED = 100
ATTENDING = 256
# The longest window is where attention costs this many times the rest of the transformer: 12 minutes with
# wav2vec2-base, still a hundredth of the cost of rendering ...
ATTENTION_SHARE = 4
# ... halved until it fits into a share of the free memory (backend.py), but no further once below this.
SHORTEST = 1024
# Neighbouring windows share one frame in this many.
OVERLAP = 4


def build_wav2vec2(config: AudioConfig) -> nn.Module:
    """transformers' Wav2Vec2Model with these sizes."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model  # several seconds to import

    sizes = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    # masking is for training; without it its embedding is not even created
    return Wav2Vec2Model(Wav2Vec2Config(**sizes, mask_time_prob=0.0, mask_feature_prob=0.0))


@dataclass(frozen=True)
class Measures:
    """Results of the first pass over a clip: everything in the features that depends on the whole of it."""

    samples: int
    last: float  # the last sample, repeated to fill the last frame
    mean: float
    deviation: float
    scale: Tensor  # (conv_dim[0],) float64: the first layer's group norm is y * scale + shift, y its convolution
    shift: Tensor

    @property
    def frames(self) -> int:
        return frame_count(self.samples)


class AudioEncoder(nn.Module):
    """Mono 16 kHz samples in blocks (n,) -> features (T,hidden_size) at 25 frames a second, in blocks."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        self.config = config
        self.wav2vec2 = build_wav2vec2(config)

    def measure(self, blocks: Iterable[Tensor]) -> Measures:
        """The first pass, in float64."""
        kernel, stride = self.config.conv_kernel[0], self.config.conv_stride[0]
        samples, total, squares = 0, 0.0, 0.0
        # number, sum and products of the vectors of `kernel` samples that the first convolution reads
        count, sums, products = 0, torch.zeros(kernel).double(), torch.zeros(kernel, kernel).double()
        rest = torch.empty(0).double()

        def add(block: Tensor) -> Tensor:
            nonlocal count, sums, products
            block = torch.cat([rest, block.double()])
            if len(block) < kernel:
                return block
            vectors = block.unfold(0, kernel, stride)
            count, sums, products = count + len(vectors), sums + vectors.sum(dim=0), products + vectors.T @ vectors
            return block[len(vectors) * stride :]

        for block in blocks:
            rest = add(block)
            samples += len(block)
            total += block.double().sum().item()
            squares += block.double().square().sum().item()
            last = block[-1:]
        add(last.expand(frame_count(samples) * SAMPLES_PER_FRAME - samples))

        mean = total / samples
        deviation = math.sqrt(max(0.0, squares / samples - mean**2) + 1e-7)
        first = self.wav2vec2.feature_extractor.conv_layers[0]
        weight = first.conv.weight[:, 0].cpu().double()
        centre = weight @ (sums / count - mean) / deviation
        covariance = products / count - torch.outer(sums, sums) / count**2
        variance = torch.einsum("ck,kl,cl->c", weight, covariance, weight).clamp(min=0) / deviation**2
        norm = first.layer_norm
        scale = norm.weight.cpu().double() / (variance + norm.eps).sqrt()
        # no bias here: a bias of the convolution shifts the mean as well, and cancels out
        return Measures(samples, last.item(), mean, deviation, scale, norm.bias.cpu().double() - centre * scale)

    def features(
        self,
        blocks: Iterable[Tensor],
        measures: Measures,
        memory: float | None = None,
        progress: Callable[[float], None] = lambda frames: None,
    ) -> Iterator[Tensor]:
        """The second pass over the same samples: features (n,hidden_size) on the model's device, T in all.

        memory: bytes to use beside the weights, None for half of what the device has free.
        progress: called with the number of frames done since the last call, fractions included; T in all.
        """
        frames = measures.frames
        stages = len(self.wav2vec2.encoder.layers) + 1
        window = min(frames, self.window_frames(memory))
        starts = window_starts(frames, window)
        share_of_new = frames / (len(starts) * window)  # windows overlap, so they hold more frames than the clip
        rows = BlockReader(self._rows(blocks, measures, lambda n: progress(n / stages)), dim=0)
        fading = None
        for start, following in zip(starts, [*starts[1:], frames]):
            x = self._transform(rows.read(start, start + window), lambda n: progress(n * share_of_new / stages))
            if fading is not None:
                share = (torch.arange(len(fading), device=x.device) + 0.5) / len(fading)
                x[: len(fading)] = fading.lerp(x[: len(fading)], share.to(x)[:, None])
            yield x[: following - start]
            fading = x[following - start :].clone()

    def window_frames(self, memory: float | None = None) -> int:
        """The longest window in frames: set by ATTENTION_SHARE, then halved until it fits into `memory`."""
        config = self.config
        anchor = self.wav2vec2.feature_projection.projection.weight
        memory = backend.SHARE_OF_FREE_MEMORY * backend.free_memory(anchor.device) if memory is None else memory
        frames = longest_window(config)
        while encoding_memory(config, frames, anchor.element_size()) > memory and frames > SHORTEST:
            frames //= 2
        return frames

    def _rows(self, blocks: Iterable[Tensor], measures: Measures, progress: Callable) -> Iterator[Tensor]:
        """Inputs of the transformer, (n,hidden_size): convolutions, interpolation to the frame rate, projection."""
        frames = measures.frames
        total = frames * SAMPLES_PER_FRAME
        # step i of the convolutions reads `field` samples from i * stride on
        field, stride, steps = 1, 1, total
        for kernel, hop in zip(self.config.conv_kernel, self.config.conv_stride):
            field, stride, steps = field + (kernel - 1) * stride, stride * hop, (steps - kernel) // hop + 1

        def padded() -> Iterator[Tensor]:
            yield from blocks
            yield torch.full((total - measures.samples,), measures.last)

        samples = BlockReader(padded())
        projection = self.wav2vec2.feature_projection
        anchor = projection.projection.weight
        layers = self.wav2vec2.feature_extractor.conv_layers
        first, others = layers[0], layers[1:]
        weight = first.conv.weight * measures.scale.to(anchor)[:, None, None]
        for start in range(0, frames, CONVOLVED):
            times = torch.arange(start, min(start + CONVOLVED, frames)).double()
            positions = times * (steps - 1) / max(1, frames - 1)  # align_corners: first on first, last on last
            before = positions.long()
            here, after = before[0].item(), (before + 1).clamp(max=steps - 1)
            x = samples.read(here * stride, after[-1].item() * stride + field)
            x = ((x.double() - measures.mean) / measures.deviation).to(anchor)
            x = first.activation(F.conv1d(x[None, None], weight, measures.shift.to(anchor), first.conv.stride))
            for layer in others:
                x = layer(x)
            x = x[0].T
            share = (positions - before).to(anchor)[:, None]
            x = x[(before - here).to(x.device)].lerp(x[(after - here).to(x.device)], share)
            x = projection(x[None])[0][0]
            progress(len(times))
            yield x

    def _transform(self, x: Tensor, progress: Callable) -> Tensor:
        """wav2vec2's encoder over (n,hidden_size); memory grows by only four times its input."""
        encoder, heads = self.wav2vec2.encoder, self.config.num_attention_heads
        around = self.config.num_conv_pos_embeddings // 2
        y = torch.empty_like(x)
        for start in range(0, len(x), ATTENDING):
            first = max(0, start - around)
            rows = x[start : start + ATTENDING]
            position = encoder.pos_conv_embed(x[None, first : start + ATTENDING + around])[0]
            y[start : start + ATTENDING] = encoder.layer_norm(rows + position[start - first :][: len(rows)])

        def by_head(z: Tensor) -> Tensor:
            return z.view(len(z), heads, -1).transpose(0, 1)[None]

        for layer in encoder.layers:
            attention = layer.attention
            key, value = by_head(attention.k_proj(y)), by_head(attention.v_proj(y))
            for rows in y.split(ATTENDING):
                attended = F.scaled_dot_product_attention(by_head(attention.q_proj(rows)), key, value)
                attended = attention.out_proj(attended[0].transpose(0, 1).reshape(len(rows), -1))
                z = layer.layer_norm(rows + attended)
                rows.copy_(layer.final_layer_norm(z + layer.feed_forward(z)))
                progress(len(rows))
        return y


def window_starts(frames: int, window: int) -> list[int]:
    """First frames of windows of `window` frames that cover all frames evenly and overlap by at least a quarter."""
    overlap = window // OVERLAP
    count = max(1, math.ceil((frames - overlap) / max(1, window - overlap)))
    return [number * (frames - window) // max(1, count - 1) for number in range(count)]


def longest_window(config: AudioConfig) -> int:
    """Frames of a window in which attention takes its full share of the time (ATTENTION_SHARE)."""
    return ATTENTION_SHARE * (2 * config.hidden_size + config.intermediate_size)


def encoding_memory(config: AudioConfig, frames: int, number_size: int) -> int:
    """Bytes that a window takes beside the weights, on devices without a fused attention kernel."""
    samples = CONVOLVED * math.prod(config.conv_stride) * 2
    convolved = 3 * config.conv_dim[0] * samples // config.conv_stride[0]
    attending = ATTENDING * (config.num_attention_heads * frames + 3 * config.intermediate_size)
    return number_size * (5 * frames * config.hidden_size + max(convolved, attending))
