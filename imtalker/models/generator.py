"""The motion generator: speech, a source's motion and optional controls, to motion."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..media.audio import FPS, Audio, AudioFile, check_waveform, mono_16k
from ..media.resampling import BlockReader
from ..motion.control import WIDTHS, Control
from ..motion.motion import Motion
from ..sampling import check_settings, pad_rows, sample_windows, stream_noise
from .audio_encoder import AudioEncoder
from .config import GeneratorConfig
from .flow import FlowTransformer
from .renderer import Source

log = logging.getLogger("imtalker")


@dataclass(frozen=True)
class AudioFeatures:
    """wav2vec2 features (T,hidden_size) at 25 frames a second."""

    features: Tensor

    def __len__(self) -> int:
        return len(self.features)

    @property
    def size(self) -> int:
        return self.features.shape[1]

    def blocks(self) -> Iterator[Tensor]:
        yield self.features


class Listening:
    """The features of a sound, computed while they are asked for: a clip of any length is never held as a whole.

    Made by `Generator.listen`, and taken by `sample` and `stream` in the place of AudioFeatures. The sound has been
    gone through once, and `blocks` goes through it again.
    """

    def __init__(self, encoder: AudioEncoder, sound: Audio | AudioFile, memory: float | None, progress: Callable):
        if isinstance(sound, Audio):
            sound = Audio(check_waveform(sound.waveform, sound.sample_rate), sound.sample_rate)
        self._encoder, self._sound, self._memory, self._progress = encoder, sound, memory, progress
        self._measures = encoder.measure(mono_16k(sound))

    def __len__(self) -> int:
        return self._measures.frames

    @property
    def size(self) -> int:
        return self._encoder.config.hidden_size

    @torch.inference_mode()
    def blocks(self) -> Iterator[Tensor]:
        """Features (n,hidden_size), float32 on the CPU, T of them in all."""
        for block in self._encoder.features(mono_16k(self._sound), self._measures, self._memory, self._progress):
            yield block.float().cpu()


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

    def encode_audio(
        self, waveform: Tensor, sample_rate: int, progress: Callable[[float], None] = lambda frames: None
    ) -> AudioFeatures:
        """Sound (channels,samples) at any rate -> features (T,hidden_size), T = ceil(seconds * 25).

        Empty sound and values that are not numbers raise InputError; silence and any length work.
        """
        speech = self.listen(Audio(waveform, sample_rate), progress=progress)
        features, done = torch.empty(len(speech), speech.size), 0
        for block in speech.blocks():
            features[done : done + len(block)] = block
            done += len(block)
        return AudioFeatures(features)

    @torch.inference_mode()
    def listen(
        self,
        sound: Audio | AudioFile,
        memory: float | None = None,
        progress: Callable[[float], None] = lambda frames: None,
    ) -> Listening:
        """The features of `encode_audio` as a stream, after one pass over the sound.

        memory: bytes they may take beside the weights, None for half of what is free (models/audio_encoder.py).
        progress: called with how many frames more are done, fractions counting; what it raises ends the work.
        """
        return Listening(self.audio_encoder, sound, memory, progress)

    def sample(
        self,
        audio: AudioFeatures | Listening,
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
        audio: AudioFeatures | Listening,
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
        if source.motion.shape[1] != self.config.motion_size:
            raise InputError(
                f"The source's motion has {source.motion.shape[1]} values and this generator makes "
                f"{self.config.motion_size}; use a renderer and a generator that belong together."
            )
        if audio.size != self.config.audio.hidden_size:
            raise InputError(
                f"The audio features have {audio.size} values a frame and this generator takes "
                f"{self.config.audio.hidden_size}; encode the audio with the same generator."
            )
        cfg = self.config.cfg if cfg is None else cfg
        check_settings(cfg, nfe)
        noise = self._noise(-(-len(audio) // self.config.window), seed, noise)
        return self._stream(audio, source, control, cfg, nfe, noise, padding)

    # entered anew for each window: a generator must not hold its caller in inference mode
    @torch.inference_mode()
    def _stream(self, audio, source, control, cfg, nfe, noise, padding) -> Iterator[Motion]:
        anchor = self._anchor()
        conditions = zip(self._speech(audio), self._project_control(control, len(audio), padding))
        noise = (rows.to(anchor) for rows in noise)
        for latents in sample_windows(self.flow, conditions, source.motion.to(anchor), noise, cfg, nfe):
            yield Motion(latents.float().cpu(), float(FPS), self.generation)

    def _speech(self, audio: AudioFeatures | Listening) -> Iterator[Tensor]:
        """The projected audio of each window (n,condition_size)."""
        blocks = (self.audio_projection(block.to(self._anchor())) for block in audio.blocks())
        speech, window = BlockReader(blocks, dim=0), self.config.window
        for start in range(0, len(audio), window):
            yield speech.read(start, start + window)

    def _project_control(self, control: Control | None, frames: int, padding: str) -> Iterator[Tensor]:
        """The sum of the projected controls times their strengths for each window, (n,condition_size)."""
        control = control.at_fps(FPS) if control else Control()
        strengths = control.strengths()
        parts = {name: rows for name, rows in control.parts().items() if strengths[name]}
        for name, rows in parts.items():
            if len(rows) != frames:
                filling = "its last row" if padding == "hold" else "zeros"
                done = "cut" if len(rows) > frames else f"continued with {filling}"
                log.warning("The %s control has %d frames and the audio %d; it is %s.", name, len(rows), frames, done)
        for start in range(0, frames, self.config.window):
            count = min(self.config.window, frames - start)
            total = self._anchor().new_zeros(count, self.config.condition_size)
            for name, rows in parts.items():
                beyond = rows[-1:] if padding == "hold" else torch.zeros_like(rows[-1:])
                part = torch.cat([rows[start : start + count], beyond])
                project = getattr(self, f"{name}_projection")
                total = total + strengths[name] * project(pad_rows(part, count).to(total))
            yield total

    def _noise(self, windows: int, seed: int, noise: Tensor | None) -> Iterable[Tensor]:
        """(window,motion_size) for each window."""
        window, size = self.config.window, self.config.motion_size
        if noise is None:
            return stream_noise(window, size, seed)
        if noise.shape == (window, size):
            return itertools.repeat(noise)
        if noise.shape != (windows, window, size):
            raise InputError(
                f"noise must be ({window}, {size}) or ({windows}, {window}, {size}) here, not {tuple(noise.shape)}."
            )
        return noise

    def _anchor(self) -> Tensor:
        """A parameter that tells device and precision."""
        return self.flow.input.weight
