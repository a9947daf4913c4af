"""The motion generator: speech, a source's motion and optional controls, to motion."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..media.audio import FPS, SAMPLE_RATE, Audio, AudioFile, mono_16k
from ..media.resampling import BlockReader
from ..motion.control import WIDTHS, Control
from ..motion.fingerprint import Kept
from ..motion.inertia import Inertia, Joins, check_joins
from ..motion.match import Side, check_match
from ..motion.motion import Motion
from ..sampling import Frames, check_settings, pad_rows, sample_window, sample_windows, stream_noise
from .audio_encoder import AudioEncoder
from .config import GeneratorConfig
from .flow import FlowTransformer
from .precision import check_numbers
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


class StreamedFeatures:
    """Audio features computed on demand, so that a clip of any length is never in memory as a whole.

    `Generator.listen` makes one; `sample` and `stream` take it in place of AudioFeatures. A first pass over the audio
    is done already, and every call of `blocks` reads the audio again.
    """

    def __init__(self, encoder: AudioEncoder, audio: Audio | AudioFile, memory: float | None, progress: Callable):
        self._encoder, self._audio, self._memory, self._progress = encoder, audio, memory, progress
        self._measures = encoder.measure(mono_16k(audio))

    def __len__(self) -> int:
        return self._measures.frames

    @property
    def size(self) -> int:
        return self._encoder.config.hidden_size

    @torch.inference_mode()
    def blocks(self) -> Iterator[Tensor]:
        """Yields features (n,hidden_size), float32 on the CPU, T rows in all."""
        for block in self._encoder.features(mono_16k(self._audio), self._measures, self._memory, self._progress):
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
        self._fingerprint = Kept()

    @property
    def generation(self) -> str:
        return self.config.generation

    @property
    def anchor(self) -> Tensor:
        """A parameter that shows the model's device and precision."""
        return self.flow.input.weight

    @property
    def fingerprint(self) -> str:
        """Names the motion space that these weights sample in (motion/fingerprint.py)."""
        head = self.flow.head.linear
        return self._fingerprint.of("generator", head, lambda: head.weight)

    def encode_audio(
        self, waveform: Tensor, sample_rate: int, progress: Callable[[float], None] = lambda frames: None
    ) -> AudioFeatures:
        """Audio (channels,samples) at any rate -> features (T,hidden_size), T = ceil(seconds * 25).

        Raises InputError for empty audio and for NaN or infinite samples; silence and any length work.
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
        audio: Audio | AudioFile,
        memory: float | None = None,
        progress: Callable[[float], None] = lambda frames: None,
    ) -> StreamedFeatures:
        """The features of `encode_audio` as a stream, after one pass over the audio.

        memory: bytes to use beside the weights, None for half of what is free (models/audio_encoder.py).
        progress: called with the number of frames done since the last call, fractions included; an exception from it
        stops the work.
        """
        return StreamedFeatures(self.audio_encoder, audio, memory, progress)

    def sample(
        self,
        audio: AudioFeatures | StreamedFeatures,
        source: Source,
        control: Control | None = None,
        cfg: float | None = None,
        nfe: int = 10,
        seed: int = 0,
        noise: Tensor | None = None,
        padding: Literal["hold", "zero"] = "hold",
        joins: Joins | None = None,
    ) -> Motion:
        """Motion for the whole clip, one latent per audio frame.

        cfg: weight of the speech, None for the generation's default (v1 3.0, v2 2.0).
        nfe: points in time, nfe - 1 steps.
        noise: (50,motion_size), used for every window, or (windows,50,motion_size); replaces the seed.
        padding: how to extend a control shorter than the audio: "hold" repeats its last row, "zero" adds zeros, as
        published.
        joins: "smooth" carries motion from window to window, and from the source's own pose into the first frame
        (motion/inertia.py); "published" leaves windows as they are sampled. None: smooth, unless `noise` is given, as
        it is to reproduce published numbers.
        Raises InputError if source, audio and generator do not belong together, and for other settings.
        """
        blocks = self.stream(audio, source, control, cfg, nfe, seed, noise, padding, joins)
        return Motion(torch.cat([block.latents for block in blocks]), float(FPS), self.generation, self.fingerprint)

    def stream(
        self,
        audio: AudioFeatures | StreamedFeatures,
        source: Source,
        control: Control | None = None,
        cfg: float | None = None,
        nfe: int = 10,
        seed: int = 0,
        noise: Tensor | None = None,
        padding: Literal["hold", "zero"] = "hold",
        joins: Joins | None = None,
    ) -> Iterator[Motion]:
        """The motion of `sample`, a window at a time."""
        self.check_source(source)
        encoder = Side("the generator's audio encoder", size=self.config.audio.hidden_size)
        check_match(
            encoder, Side("the encoded audio", size=audio.size), "encode the audio with the generator that samples."
        )
        cfg = self.config.cfg if cfg is None else cfg
        check_settings(cfg, nfe)
        joins = joins or ("smooth" if noise is None else "published")
        check_joins(joins)
        noise = self._noise(-(-len(audio) // self.config.window), seed, noise)
        return self._stream(audio, source, control, cfg, nfe, noise, padding, joins)

    def check_source(self, source: Source) -> None:
        """Raises InputError for a source of another generation or motion size, or of several pictures."""
        ours = Side("the generator", self.generation, self.config.motion_size)
        check_match(ours, Side("the source", source.generation, source.motion.shape[1]))
        if len(source.motion) != 1:
            raise InputError(f"Motion is sampled for one picture, not {len(source.motion)}: encode one of them.")

    def project_speech(self, features: Tensor) -> Tensor:
        """The speech's part of the condition: audio features (n,hidden_size) -> (n,condition_size)."""
        return self.audio_projection(features.to(self.anchor))

    def project_control(
        self, control: Control, start: int, count: int, padding: Literal["hold", "zero"] = "hold"
    ) -> Tensor:
        """The controls' part of the condition for frames `start` to `start + count`, (count,condition_size).

        That is the sum of the projected parts of `control`, which must be at 25 fps, times their strengths. A part that
        ends earlier is extended as in `sample`.
        """
        total = self.anchor.new_zeros(count, self.config.condition_size)
        for name, rows in _steering(control).items():
            beyond = rows[-1:] if padding == "hold" else torch.zeros_like(rows[-1:])
            part = pad_rows(torch.cat([rows[start : start + count], beyond]), count)
            project = getattr(self, f"{name}_projection")
            total = total + control.strengths()[name] * project(part.to(total))
        return total

    # inference mode is entered for each window: a generator must not leave its caller in it
    @torch.inference_mode()
    def _stream(self, audio, source, control, cfg, nfe, noise, padding, joins) -> Iterator[Motion]:
        control = control.at_fps(FPS) if control else Control()
        _warn_of_lengths(control, len(audio), padding)
        conditions = self._conditions(audio, control, padding)
        noise = (rows.to(self.anchor) for rows in noise)
        noise, inertia, weights = iter(noise), None, self.fingerprint
        if joins == "smooth":
            first = next(noise)
            inertia = Inertia(self.displacement(source, control, first, cfg, nfe))
            noise = itertools.chain([first], noise)
        for latents in sample_windows(self.flow, conditions, source.motion.to(self.anchor), noise, cfg, nfe):
            latents = check_numbers(latents.float().cpu(), "The sampled motion", self.anchor.dtype)
            yield Motion(inertia.join(latents) if inertia else latents, float(FPS), self.generation, weights)

    def displacement(self, source: Source, control: Control, noise: Tensor, cfg: float, nfe: int) -> Tensor:
        """What a clip has to be moved by to begin in the source's own pose, (motion_size,), float32 on the CPU.

        From where motion would begin without speech, so that the mouth is free to say the first word. One more window
        is sampled for it, from the clip's own first noise (window,motion_size), with the first row of the control.
        """
        silence = self.project_speech(self.encode_audio(torch.zeros(1, SAMPLE_RATE // 2), SAMPLE_RATE).features)
        before = Frames.blank(self.flow.context, noise.shape[1], silence.shape[1], noise)
        steering = self.project_control(control, 0, 1)
        reference = source.motion.to(self.anchor)
        calm = sample_window(self.flow, noise, before, silence, steering, reference, cfg, nfe).motion[0]
        return (reference[0] - calm).float().cpu()

    def _conditions(
        self, audio: AudioFeatures | StreamedFeatures, control: Control, padding: Literal["hold", "zero"]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The projected speech and controls of each window, (n,condition_size) each."""
        speech, frames = BlockReader(map(self.project_speech, audio.blocks()), dim=0), len(audio)
        for start in range(0, frames, self.config.window):
            count = min(self.config.window, frames - start)
            yield speech.read(start, start + count), self.project_control(control, start, count, padding)

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


def _steering(control: Control) -> dict[str, Tensor]:
    """The parts of a control that have any strength."""
    strengths = control.strengths()
    return {name: rows for name, rows in control.parts().items() if strengths[name]}


def _warn_of_lengths(control: Control, frames: int, padding: str) -> None:
    for name, rows in _steering(control).items():
        if len(rows) != frames:
            filling = "its last row" if padding == "hold" else "zeros"
            change = "cut" if len(rows) > frames else f"extended with {filling}"
            log.warning("The %s control has %d frames and the audio %d; it is %s.", name, len(rows), frames, change)
