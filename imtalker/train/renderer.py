"""The renderer's training: a source moves as a driving frame of its own clip, and has to become that frame."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ..models.renderer import Renderer
from .discriminator import Discriminator
from .forward import render
from .losses import Perceptual, adversarial, discrimination, identity_distance, masked_l1

BETAS = 0.5, 0.999


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts. The paper's numbers are not known to us: these are our choice."""

    l1: float = 1.0
    perceptual: float = 1.0
    masked: float = 1.0  # 0 where eyes and mouth are not marked
    identity: float = 0.1  # 0 where the data shows one person only
    adversarial: float = 0.1  # 0: no discriminator


class RendererTask:
    """See loop.Task; batches are those of data.FramePairs, the renderer is where it will be trained.

    fine_tune: the motion encoder and the norms' running statistics stay as they are, so that motion keeps its meaning
    and every generator that went with the renderer still does; motion is then taken from the data, as prepared.
    Otherwise everything learns.
    """

    def __init__(
        self,
        renderer: Renderer,
        rate: float,
        fine_tune: bool,
        perceptual: Perceptual | None = None,
        weights: LossWeights = LossWeights(),
        seed: int = 0,
    ):
        self.renderer, self.perceptual, self.weights, self.fine_tune = renderer, perceptual, weights, fine_tune
        renderer.requires_grad_(True).train()  # nothing stays folded
        if fine_tune:
            renderer.eval()
            renderer.motion_encoder.requires_grad_(False)
        if perceptual:
            perceptual.to(renderer.motion_decoder.const.device)
        self.discriminator = None
        trained = [parameter for parameter in renderer.parameters() if parameter.requires_grad]
        self._optimizers: dict[str, Optimizer] = {"renderer": Adam(trained, rate, BETAS)}
        if weights.adversarial:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.discriminator = Discriminator().to(renderer.motion_decoder.const.device)
            self._optimizers["discriminator"] = Adam(self.discriminator.parameters(), rate, BETAS)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"renderer": self.renderer} | ({"discriminator": self.discriminator} if self.discriminator else {})

    def optimizers(self) -> Mapping[str, Optimizer]:
        return self._optimizers

    def losses(self, batch: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        config, weights = self.renderer.config, self.weights
        target, mask = resized(batch["driving"], config.output_size), resized(batch["mask"], config.output_size)
        source = resized(batch["source"], config.input_size)
        source_motion, driving_motion = self._motion(batch, source)
        faces = source
        if weights.identity:
            faces = torch.cat([source, resized(batch["other"], config.input_size)])
        features, identities = self.renderer.identity_encoder(faces)
        features, identity = tuple(each[: len(source)] for each in features), identities[: len(source)]

        frames = render(self.renderer, features, identity, source_motion, driving_motion).float()
        parts = {"l1": weights.l1 * F.l1_loss(frames, target)}
        if self.perceptual:
            parts["perceptual"] = weights.perceptual * self.perceptual(frames, target)
        if weights.masked:
            parts["masked"] = weights.masked * masked_l1(frames, target, mask)
        if weights.identity:
            own, other = (self.renderer.adapter(driving_motion, each) for each in (identity, identities[len(source) :]))
            parts["identity"] = weights.identity * identity_distance(driving_motion, own, other)
        if self.discriminator:
            self.discriminator.requires_grad_(False)
            parts["adversarial"] = weights.adversarial * adversarial(self.discriminator(frames))
        yield "renderer", parts

        if self.discriminator:
            self.discriminator.requires_grad_(True)
            scores = self.discriminator(target), self.discriminator(frames.detach())
            yield "discriminator", {"discrimination": discrimination(*scores)}

    def _motion(self, batch: Mapping[str, Tensor], source: Tensor) -> tuple[Tensor, Tensor]:
        if self.fine_tune:
            return batch["source_motion"], batch["driving_motion"]
        pictures = torch.cat([source, resized(batch["driving"], self.renderer.config.input_size)])
        return self.renderer.motion_encoder(pictures).chunk(2)


@torch.no_grad()
def psnr(renderer: Renderer, samples: Sequence[Mapping[str, Tensor]]) -> float:
    """Mean PSNR in dB of the driving frames that the renderer makes of samples of FramePairs, one after the other."""
    modes, device = {module: module.training for module in renderer.modules()}, renderer.motion_decoder.const.device
    renderer.eval()
    found = []
    for sample in samples:
        picture, driving = (sample[name][None].to(device) for name in ("source", "driving"))
        picture, target = resized(picture, renderer.config.input_size), resized(driving, renderer.config.output_size)
        features, identity = renderer.identity_encoder(picture)
        motions = (
            renderer.motion_encoder(resized(x, renderer.config.input_size)) for x in (picture, driving)
        )  # the encoder's own, whichever renderer the data was prepared with
        frames = render(renderer, features, identity, *motions)
        found.append(-10 * torch.log10(F.mse_loss(frames, target).clamp_min(1e-10)))
    for module, training in modes.items():
        module.training = training
    return torch.stack(found).mean().item()


def resized(images: Tensor, size: int) -> Tensor:
    """Square pictures (B,C,S,S), 0..1, at another size, as image.resize but where they are."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
