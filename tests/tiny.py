"""Small made-up models of the real classes, so that a whole run takes seconds."""

from imtalker.models.config import AudioConfig, GeneratorConfig, RendererConfig
from imtalker.weights.untrained import untrained_generator, untrained_renderer

AUDIO = AudioConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=(16,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2,
)


def renderer_config(generation="v2"):
    return RendererConfig(
        generation,
        input_size={"v1": 32, "v2": 64}[generation],
        channels=(32, 32, 16, 16),
        coarsest=4,
        attention_levels=2,
        motion_size=8,
        identity_size=32,
        motion_channels=(8, 16, 32),
        heads=4,
    )


def generator_config(generation="v2"):
    return GeneratorConfig(
        generation, motion_size=8, condition_size=8, width=64, depth=2, heads=2, window=50, context=10, audio=AUDIO
    )


def tiny_renderer(generation="v2"):
    """64 x 64 frames."""
    return untrained_renderer(renderer_config(generation))


def tiny_generator(generation="v2"):
    return untrained_generator(generator_config(generation))
