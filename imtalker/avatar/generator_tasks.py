"""The training tasks of the avatar's generator (generator.py): hearing, then flow matching."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..drawn.head import MOTION, MOTION_SIZE
from ..models.generator import Generator
from .muon import Muon
from .readback import correlation
from .speech_clips import HEARD, SpeechClip, encode_speech
from .visemes import CHANNEL, MOUTH, SOUNDS

HEARING_RATE, FLOW_RATE = 1.5e-3, 1e-3
MOUTH_CHANNELS = slice(CHANNEL[MOUTH[0]], CHANNEL[MOUTH[-1]] + 1)
CONTROLLED = {"pose": slice(0, 3), "cam": slice(3, 6), "gaze": slice(6, 8)}  # motion channels, by control
JOINS = 2.0  # weight of the first frame after a context
# Absolute errors are least at the median: eyes are open nine tenths of the time and look ahead a third of it, so blinks
# would never be learned and glances would be half as far as they should be. Positions vary little within a window.
SQUARED, SQUARED_WEIGHT = [CHANNEL[name] for name in ("x", "y", "scale", "gaze_x", "gaze_y", "blink")], 4.0
DISPLACED = 0.3  # deviation by which the context is off a control: it must be brought back, not followed
STRETCH = 2.0  # free glances are learned this much wider: sampling, in ten steps, makes them smaller


class HearingTask:
    """First stage: the audio encoder and a linear read-out of mouth shapes and sounds."""

    def __init__(self, generator: Generator):
        self.generator = generator
        self.shapes = HEARD.stop - HEARD.start
        self.readout = nn.Linear(generator.config.audio.hidden_size, self.shapes + len(SOUNDS))

    def modules(self) -> dict[str, nn.Module]:
        return {"audio_encoder": self.generator.audio_encoder, "readout": self.readout}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = [p for module in self.modules().values() for p in module.parameters()]
        return {"audio": torch.optim.AdamW(parameters, HEARING_RATE, betas=(0.9, 0.98), weight_decay=0.01)}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        mouth, logits = self.read(batch["waveform"])
        error = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=0.05)
        yield "audio", {"mouth": 4 * (mouth - batch["mouth"]).abs().mean(), "sound": 0.3 * error}

    def read(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B,640*T) at 16 kHz -> mouth shapes (B,T,3) and the logits of the sounds (B,T,len(SOUNDS))."""
        values = self.readout(encode_speech(self.generator, waveforms))
        return values[..., : self.shapes], values[..., self.shapes :]

    @torch.no_grad()
    def correlation(self, clips: list[SpeechClip]) -> float:
        """Correlation of the mouth_open read out with the true one, over all frames."""
        opened = torch.cat([self.read(clip.waveform[None])[0][0, :, 0] for clip in clips])
        return correlation(opened, torch.cat([clip.motion[:, HEARD.start] for clip in clips]))


class FlowTask:
    """Second stage: projections and transformer by flow matching, on the features of the frozen audio encoder."""

    def __init__(self, generator: Generator):
        self.generator = generator
        parts = ("audio_projection", "pose_projection", "cam_projection", "gaze_projection", "flow")
        self.parts = {name: getattr(generator, name) for name in parts}
        self.weights = torch.ones(MOTION_SIZE)
        self.weights[MOUTH_CHANNELS] = 3
        self.weights[CONTROLLED["pose"]] = 3

    def modules(self) -> dict[str, nn.Module]:
        return self.parts

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"flow": Muon(nn.ModuleDict(self.parts), FLOW_RATE)}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        velocity, target, with_context = self.velocities(batch)
        error = (velocity - target) * self.weights
        # the context is exact, so an error of the first frame is a jump where windows meet
        joins = (error[:, 0] * with_context[:, 0]).abs().mean()
        losses = {"velocity": weighted_error(error), "change": weighted_error(error.diff(dim=1))}
        yield "flow", losses | {"joins": JOINS * joins}

    def velocities(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Velocity and target (B,window,16) at random times under random conditions; 1 with context, else 0 (B,1,1)."""
        context = self.generator.config.context
        true, reference = batch["motion"], batch["reference"].clone()
        count = len(true)

        def keep(share: float) -> Tensor:
            return (torch.rand(count, 1, 1) < share).float()

        # guidance drops the speech of the window but not that of the context
        speech = self.parts["audio_projection"](batch["audio"])
        speech = torch.cat([speech[:, :context], speech[:, context:] * keep(0.9)], dim=1)
        condition, steered = speech, {}
        for name, channels in CONTROLLED.items():
            given = steered[name] = keep(0.5)
            condition = condition + self.parts[f"{name}_projection"](batch[name]) * given
            # most controls are paired with another clip's reference, or they would carry no information
            swapped = (given * keep(0.8))[:, 0]
            reference[:, channels] = reference[:, channels].lerp(reference[:, channels].roll(1, 0), swapped)
        with_context = (batch["context"][:, None, None] * (torch.rand(count, 1, 1) < 0.5)).float()
        condition = torch.cat([condition[:, :context] * with_context, condition[:, context:]], dim=1)

        true = true.clone()
        gaze, rest = true[:, context:, CONTROLLED["gaze"]], true[:, context - 1 : context, CONTROLLED["gaze"]]
        gaze += (STRETCH - 1) * (1 - steered["gaze"]) * (gaze - with_context * rest)
        time, noise = torch.rand(count), torch.randn_like(true[:, context:])
        target = true[:, context:] - noise
        noisy = noise + time[:, None, None] * target
        # in sampling the context is the model's own motion, which is never quite the truth
        past = true[:, :context] + 0.02 * torch.randn_like(true[:, :context])
        for name in ("cam", "gaze"):
            off = DISPLACED * steered[name] * torch.randn(count, 1, len(MOTION[CONTROLLED[name]]))
            past[..., CONTROLLED[name]] += off
        x = torch.cat([past * with_context, noisy], dim=1)
        return self.parts["flow"](x, time, reference, condition), target, with_context


def weighted_error(error: Tensor) -> Tensor:
    """Mean of absolute errors (...,16), with weighted squared ones for some values."""
    size = error.abs()
    size[..., SQUARED] = SQUARED_WEIGHT * error[..., SQUARED].square()
    return size.mean()


@torch.no_grad()
def standardise_controls(generator: Generator, clips: list[SpeechClip], seed: int = 0) -> None:
    """Draws the controls' projections for inputs standardised over the clips.

    A camera's scale is always near 8: without this its small changes would be lost.
    """
    random = torch.Generator().manual_seed(seed)
    for name in clips[0].controls:
        rows = torch.cat([clip.controls[name] for clip in clips])
        layer = getattr(generator, f"{name}_projection")[0]
        layer.weight.normal_(std=0.5, generator=random).div_(rows.std(dim=0))
        layer.bias.normal_(std=0.5, generator=random).sub_(layer.weight @ rows.mean(dim=0))
