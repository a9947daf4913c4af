"""The renderer: one source picture and a motion, to frames."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..media.image import check_image, resize
from ..motion.motion import Motion
from . import backend
from .config import RendererConfig
from .encoders import IdentityEncoder, MotionEncoder
from .synthesis import Synthesis
from .transfer import IdentityAdapter, MotionDecoder, MotionTransfer, Reference

log = logging.getLogger("imtalker")

# Working memory, from the peaks of all tensors alive with the published sizes: numbers per value of a picture.
RENDERING, ENCODING = 60, 90


@dataclass(frozen=True)
class Source:
    """All that depends on the source picture alone, computed once and never changed afterwards."""

    features: tuple[Tensor, ...]  # (1,C,S,S), coarse to fine
    identity: Tensor  # (1,identity_size)
    motion: Tensor  # (1,motion_size)
    reference: Reference
    generation: str

    def to(self, device: torch.device, dtype: torch.dtype) -> "Source":
        """A copy on another device or in another precision; itself where nothing changes."""
        if self.identity.device == device and self.identity.dtype == dtype:
            return self

        def move(value):
            if isinstance(value, Tensor):
                return value.to(device, dtype)
            return tuple(map(move, value)) if isinstance(value, tuple) else value

        def moved(instance):
            return replace(instance, **{f.name: move(getattr(instance, f.name)) for f in fields(instance)})

        return replace(moved(self), reference=moved(self.reference))


class Renderer(nn.Module):
    """Encodes pictures and renders frames (spec: Renderer). Made by `imtalker.load_renderer`."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        self.config = config
        self.identity_encoder = IdentityEncoder(config)
        self.motion_encoder = MotionEncoder(config)
        self.adapter = IdentityAdapter(config)
        self.motion_decoder = MotionDecoder(config)
        self.transfer = MotionTransfer(config)
        self.synthesis = Synthesis(config)

    @property
    def generation(self) -> str:
        return self.config.generation

    def forward(self, source: Source, latents: Tensor) -> Tensor:
        """Motion latents (B,motion_size), not adapted -> frames (B,3,output_size,output_size) in 0..1."""
        adapted = self.adapter(latents, source.identity)
        maps = self.motion_decoder(adapted)
        aligned = self.transfer(maps, source.reference)
        return self.synthesis(aligned)

    @torch.inference_mode()
    def encode_source(self, image: Tensor) -> Source:
        """One square picture (1,H,W,3), RGB in 0..1 -> Source. Raises InputError for a batch or no square."""
        image = check_image(image)
        if len(image) != 1:
            raise InputError(f"The source must be one picture, not a batch of {len(image)}; choose one of them.")
        picture = self._picture(image)
        features, identity = self.identity_encoder(picture)
        motion = self.motion_encoder(picture)
        maps = self.motion_decoder(self.adapter(motion, identity))
        reference = self.transfer.prepare(features, maps)
        return Source(features, identity, motion, reference, self.generation)

    @torch.inference_mode()
    def encode_motion(self, images: Tensor, fps: float = 25.0, batch_size: int | None = None) -> Motion:
        """Square driving pictures (T,H,W,3), RGB in 0..1, at `fps` -> Motion with latents (T,motion_size)."""
        images = check_image(images)
        blocks = images.split(batch_size or self.batch_size(self.bytes_per_picture))
        latents = [self.motion_encoder(self._picture(block)).float().cpu() for block in blocks]
        return Motion(torch.cat(latents), fps, self.generation)

    def render(self, source: Source, motion: Motion, batch_size: int | None = None) -> Tensor:
        """Frames (T,output_size,output_size,3), RGB in 0..1, float32 on the CPU: one per latent of the motion."""
        return torch.cat(list(backend.fetch(self.stream(source, motion, batch_size))))

    def stream(self, source: Source, motion: Motion, batch_size: int | None = None) -> Iterator[Tensor]:
        """The frames of `render`, at most `batch_size` at a time, float32 on the renderer's device.

        batch_size None: as many as suit the device and its free memory. Where memory runs out, fewer.
        """
        self._check(source, motion)
        return self._stream(source, motion, batch_size or self.batch_size(self.bytes_per_frame))

    def _stream(self, source: Source, motion: Motion, batch_size: int) -> Iterator[Tensor]:
        anchor = self.motion_decoder.const
        source = source.to(anchor.device, anchor.dtype)
        done = 0
        while done < len(motion):
            latents = motion.latents[done : done + batch_size]
            frames = self._frames(source, latents.to(anchor), may_fail=batch_size > 1)
            if frames is None:
                batch_size //= 2
                log.warning("The device is out of memory: going on with %d frames at a time.", batch_size)
                backend.release_memory(anchor.device)
                continue
            done += len(frames)
            yield frames

    def _frames(self, source: Source, latents: Tensor, may_fail: bool) -> Tensor | None:
        """One block of frames; None where memory runs out and less might do."""
        try:
            # entered anew for each block: a generator must not hold its caller in inference mode
            with torch.inference_mode():
                return self(source, latents).float().permute(0, 2, 3, 1)
        except Exception as error:
            if may_fail and backend.is_out_of_memory(error):
                return None
            raise

    def _check(self, source: Source, motion: Motion) -> None:
        for name, found in (("source", source.generation), ("motion", motion.generation)):
            if found != self.generation:
                raise InputError(
                    f"The renderer's weights are {self.generation} but the {name} was made with {found} weights; "
                    f"use a renderer and a generator of one generation throughout."
                )
        sizes = motion.latents.shape[1], source.motion.shape[1], self.config.motion_size
        if len(set(sizes)) > 1:
            raise InputError(
                f"The motion has {sizes[0]} values a frame, the source {sizes[1]} and the renderer {sizes[2]}; "
                f"they belong to different models."
            )

    def _picture(self, images: Tensor) -> Tensor:
        """(N,H,W,3) as given -> (N,3,input_size,input_size) as the encoders take it."""
        anchor = self.motion_decoder.const
        return resize(images, self.config.input_size).permute(0, 3, 1, 2).to(anchor)

    @property
    def bytes_per_frame(self) -> float:
        """Working memory to render a frame."""
        return 3 * self.config.output_size**2 * RENDERING * self.motion_decoder.const.element_size()

    @property
    def bytes_per_picture(self) -> float:
        """Working memory to encode a picture."""
        return 3 * self.config.input_size**2 * ENCODING * self.motion_decoder.const.element_size()

    def batch_size(self, bytes_each: float) -> int:
        """How many frames or pictures to work on at once."""
        return backend.batch_size(self.motion_decoder.const.device, bytes_each)
