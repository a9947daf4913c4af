"""The sizes of an architecture, and nothing else: no device, path or training switch.

The defaults are the published weights' sizes. A file without a configuration in its metadata has one of those; our own
files carry their configuration (see weights/reading.py), so smaller models of the same classes load the same way.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Literal

Generation = Literal["v1", "v2"]


@dataclass(frozen=True)
class RendererConfig:
    """Sizes of identity and motion encoders, motion decoder, transfer and synthesis (spec: Renderer).

    Levels run coarse to fine: level i has `channels[i]` channels on a square of `coarsest * 2**i` cells.
    """

    generation: Generation
    input_size: int  # side of the square images both encoders take
    channels: tuple[int, ...] = (512, 512, 256, 128, 64, 32)
    coarsest: int = 8
    attention_levels: int = 4  # levels with their own cross attention; finer ones copy the best match of the last
    motion_size: int = 32
    identity_size: int = 512
    motion_channels: tuple[int, ...] = (64, 128, 256, 512, 512, 512)  # motion encoder: first convolution, then halvings
    heads: int = 8
    window: int = 8

    def side(self, level: int) -> int:
        return self.coarsest * 2**level

    @property
    def levels(self) -> int:
        return len(self.channels)

    @property
    def output_size(self) -> int:
        return 2 * self.side(self.levels - 1)

    @property
    def halvings(self) -> int:
        """How often the identity encoder halves the image before the finest feature map: 0 in v1, 1 in v2."""
        return (self.input_size // self.side(self.levels - 1)).bit_length() - 1


@dataclass(frozen=True)
class AudioConfig:
    """Sizes of the wav2vec2 encoder, named as in transformers' Wav2Vec2Config; the defaults are wav2vec2-base's."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of the motion generator (spec: Motion generator)."""

    generation: Generation
    motion_size: int = 32
    condition_size: int = 32
    width: int = 512
    depth: int = 8
    heads: int = 8
    window: int = 50  # frames sampled at a time
    context: int = 10  # last frames of the previous window, held fixed in front
    neighbours: int = 5  # v1 only: a frame attends this many frames to either side
    audio: AudioConfig = field(default_factory=AudioConfig)

    @property
    def cfg(self) -> float:
        """Recommended audio guidance."""
        return 3.0 if self.generation == "v1" else 2.0


PUBLISHED = {
    "renderer": {"v1": RendererConfig("v1", input_size=256), "v2": RendererConfig("v2", input_size=512)},
    "generator": {"v1": GeneratorConfig("v1"), "v2": GeneratorConfig("v2")},
}


def to_dict(config: RendererConfig | GeneratorConfig) -> dict:
    """Plain values, ready for JSON."""
    return asdict(config)


def from_dict(kind: str, values: dict) -> RendererConfig | GeneratorConfig:
    """Inverse of `to_dict`; kind is "renderer" or "generator". Raises TypeError for unknown or missing names."""
    cls = {"renderer": RendererConfig, "generator": GeneratorConfig}[kind]
    values = _tuples(cls, values)
    if kind == "generator" and "audio" in values:
        values["audio"] = AudioConfig(**_tuples(AudioConfig, values["audio"]))
    return cls(**values)


def check_sizes(config: RendererConfig | GeneratorConfig | AudioConfig) -> None:
    """Raises ValueError for absurd sizes: a file may claim any, and the model is built before its tensors are read."""
    most = {"depth": 64, "num_hidden_layers": 64, "attention_levels": 16}
    for name, value in vars(config).items():
        if isinstance(value, AudioConfig):
            check_sizes(value)
        elif name == "generation":
            if value not in ("v1", "v2"):
                raise ValueError(f"generation {str(value)[:40]!r}")
        else:
            sizes = value if isinstance(value, tuple) else (value,)
            limit = most.get(name, 16384)
            if len(sizes) > 16 or not all(type(size) is int and 0 <= size <= limit for size in sizes):
                raise ValueError(f"{name} {str(value)[:40]}")


def _tuples(cls: type, values: dict) -> dict:
    names = {f.name for f in fields(cls)}
    if unknown := set(values) - names:
        raise TypeError(f"{cls.__name__} has no {', '.join(sorted(unknown))}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
