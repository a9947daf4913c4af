"""The renderer's training task: a source, driven by another frame of its own clip, has to become that frame."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ..models.renderer import Renderer
from .discriminator import Discriminator
from .forward import render
from .losses import Perceptual, adversarial, discrimination, identity_distance, masked_l1, psnr

BETAS = 0.5, 0.999


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; our choice, since the paper does not give its own."""

    l1: float = 1.0
    perceptual: float = 1.0
    masked: float = 1.0  # 0 if eyes and mouth are not marked
    identity: float = 0.1  # 0 if the data shows only one person
    adversarial: float = 0.1  # 0 trains no discriminator


class RendererTask:
    """A loop.Task; batches come from data.FramePairs, and the renderer is already on its device.

    fine_tune: freezes the motion encoder and the norms' running statistics, so motion keeps its meaning and generators
    that fit the renderer still do; motion is then read from the prepared data. Otherwise everything is trained.
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
        renderer.requires_grad_(True).train()  # training mode unfolds it
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
        images = torch.cat([source, resized(batch["driving"], self.renderer.config.input_size)])
        return self.renderer.motion_encoder(images).chunk(2)


@torch.no_grad()
def reenactment_psnr(renderer: Renderer, samples: Sequence[Mapping[str, Tensor]]) -> float:
    """Mean PSNR in dB of the driving frames as rendered from samples of FramePairs, one sample at a time.

    Motion comes from the renderer's own encoder, whichever renderer the data was prepared with.
    """
    modes, device = {module: module.training for module in renderer.modules()}, renderer.motion_decoder.const.device
    renderer.eval()
    values = []
    for sample in samples:
        source, driving = (sample[name][None].to(device) for name in ("source", "driving"))
        source, target = resized(source, renderer.config.input_size), resized(driving, renderer.config.output_size)
        features, identity = renderer.identity_encoder(source)
        motions = (renderer.motion_encoder(resized(x, renderer.config.input_size)) for x in (source, driving))
        frames = render(renderer, features, identity, *motions)
        values.append(psnr(frames, target))
    for module, training in modes.items():
        module.training = training
    return sum(values) / len(values)


def resized(images: Tensor, size: int) -> Tensor:
    """Resizes square images (B,C,S,S) in 0..1 as media.image.resize does, but on their own device."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
