"""wav2vec2 (transformers' own) with its features brought to the frame rate before the transformer."""

from dataclasses import asdict

import torch.nn.functional as F
from torch import Tensor, nn

from .config import AudioConfig


def build_wav2vec2(config: AudioConfig) -> nn.Module:
    """transformers' Wav2Vec2Model of these sizes, with SDPA attention where the installed version has it (4.57 has)."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model  # several seconds to import

    sizes = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    # masking belongs to training; switched off, its embedding is not even made
    settings = Wav2Vec2Config(**sizes, mask_time_prob=0.0, mask_feature_prob=0.0)
    try:
        return Wav2Vec2Model._from_config(settings, attn_implementation="sdpa")
    except (ValueError, TypeError):
        return Wav2Vec2Model(settings)


class AudioEncoder(nn.Module):
    """Normalised 16 kHz waveform (1,640*T) -> features (1,T,hidden_size) at 25 frames a second."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        self.wav2vec2 = build_wav2vec2(config)

    def forward(self, waveform: Tensor, frames: int) -> Tensor:
        x = self.wav2vec2.feature_extractor(waveform)
        x = F.interpolate(x, size=frames, mode="linear", align_corners=True)
        x, _ = self.wav2vec2.feature_projection(x.transpose(1, 2))
        return self.wav2vec2.encoder(x).last_hidden_state
