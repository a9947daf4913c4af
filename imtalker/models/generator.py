"""The motion generator: speech, a source's motion and optional controls, to motion."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio import FPS, SAMPLE_RATE, frame_count, normalise, to_mono_16k
from ..control import WIDTHS, Control
from ..errors import InputError
from ..motion import Motion
from ..sampling import check_settings, draw_noise, pad_rows, sample_windows
from .audio_encoder import AudioEncoder
from .config import GeneratorConfig
from .flow import FlowTransformer
from .renderer import Source

log = logging.getLogger("imtalker")

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS


@dataclass(frozen=True)
class AudioFeatures:
    """wav2vec2 features (T,hidden_size) at 25 frames a second."""

    features: Tensor

    def __len__(self) -> int:
        return len(self.features)


def projection(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.SiLU())


class Generator(nn.Module):
    """Samples motion from speech (spec: Motion generator). Made by `imtalker.load_generator`."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        self.audio_encoder = AudioEncoder(config.audio)
        self.audio_projection = projection(config.audio.hidden_size, config.condition_size)
        self.pose_projection = projection(WIDTHS["pose"], config.condition_size)
        self.cam_projection = projection(WIDTHS["cam"], config.condition_size)
        self.gaze_projection = projection(WIDTHS["gaze"], config.condition_size)
        self.flow = FlowTransformer(config)

    @property
    def generation(self) -> str:
        return self.config.generation

    @torch.inference_mode()
    def encode_audio(self, waveform: Tensor, sample_rate: int) -> AudioFeatures:
        """Sound (channels,samples) at any rate -> features (T,hidden_size), T = ceil(seconds * 25).

        Empty sound and values that are not numbers raise InputError; silence and any length work.
        """
        samples = normalise(to_mono_16k(waveform, sample_rate))
        frames = frame_count(len(samples))
        missing = frames * SAMPLES_PER_FRAME - len(samples)
        samples = torch.cat([samples, samples[-1:].expand(missing)])
        features = self.audio_encoder(samples[None].to(self._anchor()), frames)
        return AudioFeatures(features[0].float().cpu())

    def sample(
        self,
        audio: AudioFeatures,
        source: Source,
        control: Control | None = None,
        cfg: float | None = None,
        nfe: int = 10,
        seed: int = 0,
        noise: Tensor | None = None,
        padding: Literal["hold", "zero"] = "hold",
    ) -> Motion:
        """Motion for the whole clip, one latent per audio frame.

        cfg: weight of the speech, None for the generation's own (v1 3.0, v2 2.0). nfe: points in time, nfe - 1 steps.
        noise (50,motion_size), the same for all windows, or (windows,50,motion_size), replaces the seed's.
        padding: what a control shorter than the audio is continued with: its last row ("hold"), or zeros ("zero", as
        published). Raises InputError where source and generator are of different generations.
        """
        blocks = self.stream(audio, source, control, cfg, nfe, seed, noise, padding)
        return Motion(torch.cat([block.latents for block in blocks]), float(FPS), self.generation)

    def stream(
        self,
        audio: AudioFeatures,
        source: Source,
        control: Control | None = None,
        cfg: float | None = None,
        nfe: int = 10,
        seed: int = 0,
        noise: Tensor | None = None,
        padding: Literal["hold", "zero"] = "hold",
    ) -> Iterator[Motion]:
        """The motion of `sample`, a window at a time."""
        if source.generation != self.generation:
            raise InputError(
                f"The generator's weights are {self.generation} but the source was encoded with {source.generation} "
                f"weights; use a renderer and a generator of one generation."
            )
        if audio.features.shape[1] != self.config.audio.hidden_size:
            raise InputError(
                f"The audio features have {audio.features.shape[1]} values a frame and this generator takes "
                f"{self.config.audio.hidden_size}; encode the audio with the same generator."
            )
        cfg = self.config.cfg if cfg is None else cfg
        check_settings(cfg, nfe)
        noise = self._noise(-(-len(audio) // self.config.window), seed, noise)
        return self._stream(audio, source, control, cfg, nfe, noise, padding)

    def _stream(self, audio, source, control, cfg, nfe, noise, padding) -> Iterator[Motion]:
        anchor = self._anchor()
        with torch.inference_mode():
            speech = self.audio_projection(audio.features.to(anchor))
            steering = self._project_control(control, len(audio), padding)
        blocks = sample_windows(self.flow, speech, steering, source.motion.to(anchor), noise.to(anchor), cfg, nfe)
        while True:
            # entered anew for each window: a generator must not hold its caller in inference mode
            with torch.inference_mode():
                latents = next(blocks, None)
            if latents is None:
                return
            yield Motion(latents.float().cpu(), float(FPS), self.generation)

    def _project_control(self, control: Control | None, frames: int, padding: str) -> Tensor:
        """The sum of the projected controls times their strengths, (frames,condition_size)."""
        total = torch.zeros(frames, self.config.condition_size).to(self._anchor())
        control = control.at_fps(FPS) if control else Control()
        strengths = control.strengths()
        for name, rows in control.parts().items():
            if not strengths[name]:
                continue
            if len(rows) != frames:
                filling = "its last row" if padding == "hold" else "zeros"
                done = "cut" if len(rows) > frames else f"continued with {filling}"
                log.warning("The %s control has %d frames and the audio %d; it is %s.", name, len(rows), frames, done)
            if padding == "zero":
                rows = F.pad(rows[:frames], (0, 0, 0, max(0, frames - len(rows))))
            project = getattr(self, f"{name}_projection")
            total = total + strengths[name] * project(pad_rows(rows, frames).to(total))
        return total

    def _noise(self, windows: int, seed: int, noise: Tensor | None) -> Tensor:
        window, size = self.config.window, self.config.motion_size
        if noise is None:
            return draw_noise(windows, window, size, seed)
        if noise.shape == (window, size):
            return noise.expand(windows, -1, -1)
        if noise.shape != (windows, window, size):
            raise InputError(
                f"noise must be ({window}, {size}) or ({windows}, {window}, {size}) here, not {tuple(noise.shape)}."
            )
        return noise

    def _anchor(self) -> Tensor:
        """A parameter that tells device and precision."""
        return self.flow.input.weight
