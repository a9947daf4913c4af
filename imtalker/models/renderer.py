"""The renderer: a source image, or one for every frame, and a motion, to frames."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..media.image import check_image, resize
from ..motion.fingerprint import Kept
from ..motion.match import Side, check_match
from ..motion.motion import Motion
from . import backend
from .config import RendererConfig
from .encoders import IdentityEncoder, MotionEncoder
from .precision import check_numbers
from .recording import Recording, Weights
from .synthesis import Synthesis
from .transfer import IdentityAdapter, MotionDecoder, MotionTransfer, Reference

T = TypeVar("T")

log = logging.getLogger("imtalker")

# Working memory in numbers per value of an image: the peak of all tensors alive, at the published sizes.
RENDERING, ENCODING = 60, 90
RECORDED = 2  # frames at a time, up to which launching the work takes longer than the work itself


@dataclass(frozen=True)
class Source:
    """Everything that depends on the source images alone, computed once and never changed afterwards.

    Usually one image for all frames of a motion; N images (a dubbed video) are the sources of N frames, one each.
    """

    features: tuple[Tensor, ...]  # (N,C,S,S), coarse to fine
    identity: Tensor  # (N,identity_size)
    motion: Tensor  # (N,motion_size)
    reference: Reference
    generation: str

    def __len__(self) -> int:
        return len(self.motion)

    def rows(self, rows: slice) -> "Source":
        """The sources of some frames; one source is that of every frame."""
        if len(self) == 1:
            return self
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device, dtype: torch.dtype) -> "Source":
        """A copy on another device or in another precision; returns itself if nothing changes."""
        if self.identity.device == device and self.identity.dtype == dtype:
            return self
        return self._map(lambda tensor: tensor.to(device, dtype))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Source":
        def changed(value):
            if isinstance(value, Tensor):
                return change(value)
            if isinstance(value, Reference):
                return replace(value, **{f.name: changed(getattr(value, f.name)) for f in fields(value)})
            return tuple(map(changed, value)) if isinstance(value, tuple) else value

        return replace(self, **{f.name: changed(getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def join(cls, sources: "list[Source]") -> "Source":
        """Several sources of one renderer as one, in order."""
        if len(sources) == 1:
            return sources[0]

        def joined(values):
            if isinstance(values[0], Tensor):
                return torch.cat(values)
            if isinstance(values[0], Reference):
                return Reference(*(joined([getattr(v, f.name) for v in values]) for f in fields(Reference)))
            return tuple(map(joined, zip(*values))) if isinstance(values[0], tuple) else values[0]

        return cls(*(joined([getattr(source, f.name) for source in sources]) for f in fields(cls)))

    def tensors(self) -> list[Tensor]:
        return [*self.features, self.identity, self.motion, *self.reference.tensors()]


class Renderer(nn.Module):
    """Encodes images and renders frames (spec: Renderer). Made by `imtalker.load_renderer`."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        self.config = config
        self.identity_encoder = IdentityEncoder(config)
        self.motion_encoder = MotionEncoder(config)
        self.adapter = IdentityAdapter(config)
        self.motion_decoder = MotionDecoder(config)
        self.transfer = MotionTransfer(config)
        self.synthesis = Synthesis(config)
        self.recordings = {count: Recording() for count in range(1, RECORDED + 1)}
        self.weights = Weights([self.adapter, self.motion_decoder, self.transfer, self.synthesis])
        self._fingerprint = Kept()

    @property
    def generation(self) -> str:
        return self.config.generation

    @property
    def fingerprint(self) -> str:
        """Names the motion space that these weights read (motion/fingerprint.py)."""
        last = self.motion_encoder.mlp.last
        return self._fingerprint.of("renderer", last, lambda: last.derived()[0])

    def forward(self, source: Source, latents: Tensor) -> Tensor:
        """Motion latents (B,motion_size), not adapted -> frames (B,3,output_size,output_size) in 0..1.

        source: one for all latents, or B.
        """
        adapted = self.adapter(latents, source.identity)
        maps = self.motion_decoder(adapted)
        aligned = self.transfer(maps, source.reference)
        return self.synthesis(aligned)

    def replayed(self, source: Source, latents: Tensor) -> Tensor:
        """`forward` for at most RECORDED frames, recorded and replayed where the device allows: a live session's way.

        A recording keeps the working memory of its frames until `forget`, or until the model leaves its device.
        """
        recording = self.recordings[len(latents)]
        reads = [*self.weights.tensors(), source.identity, *source.reference.tensors()]
        return recording.run(lambda given: self(source, given), [latents], reads, settings=None)

    def forget(self) -> None:
        """Frees the memory of what was recorded."""
        for recording in self.recordings.values():
            recording.forget()

    def _apply(self, *args, **kwargs) -> "Renderer":
        device = self.motion_decoder.const.device
        super()._apply(*args, **kwargs)
        if self.motion_decoder.const.device != device:
            self.forget()
        return self

    def encode_source(self, images: Tensor, checked: bool = False, batch_size: int | None = None) -> Source:
        """Square images (N,H,W,3), RGB in 0..1 -> Source, one for all frames or one for each of N. InputError: not
        square.

        checked: the images were made from what `check_image` returned, and are not looked at again.
        batch_size: images encoded at a time, None for what suits the device. When memory runs out, it is halved.
        """
        images = images if checked else check_image(images)
        batch_size = batch_size or self.batch_size(self.bytes_per_image)
        return Source.join(list(self._in_blocks(len(images), batch_size, lambda part: self._encode(images[part]))))

    def _encode(self, images: Tensor) -> Source:
        images = self._encoder_input(images)
        features, identity = self.identity_encoder(images)
        motion = self.motion_encoder(images)
        maps = self.motion_decoder(self.adapter(motion, identity))
        reference = self.transfer.prepare(features, maps)
        source = Source(features, identity, motion, reference, self.generation)
        check_numbers(torch.stack([x.sum(dtype=torch.float32) for x in source.tensors()]), "The source", images.dtype)
        return source

    @torch.inference_mode()
    def encode_motion(self, images: Tensor, fps: float = 25.0, batch_size: int | None = None) -> Motion:
        """Square driving frames (T,H,W,3), RGB in 0..1, at `fps` -> Motion with latents (T,motion_size)."""
        images = check_image(images)
        blocks = images.split(batch_size or self.batch_size(self.bytes_per_image))
        latents = torch.cat([self.motion_encoder(self._encoder_input(block)).float().cpu() for block in blocks])
        latents = check_numbers(latents, "The encoded motion", self.motion_decoder.const.dtype)
        return Motion(latents, fps, self.generation, self.fingerprint)

    def render(self, source: Source, motion: Motion, batch_size: int | None = None) -> Tensor:
        """Frames (T,output_size,output_size,3), RGB in 0..1, float32 on the CPU, one per latent of the motion.

        From one source for all, or from source i for latent i.
        """
        size, done = self.config.output_size, 0
        frames = torch.empty(len(motion), size, size, 3, device="cpu")
        for block in backend.to_cpu(self.stream(source, motion, batch_size)):
            frames[done : done + len(block)] = block
            done += len(block)
        return frames

    def stream(self, source: Source, motion: Motion, batch_size: int | None = None) -> Iterator[Tensor]:
        """The frames of `render`, at most `batch_size` at a time, float32 on the renderer's device.

        batch_size None: whatever suits the device and its free memory. When memory runs out, the batch size is halved.
        Raises InputError for frames that are not numbers, on CUDA once the next block is being computed.
        """
        self._check(source, motion)
        # only where it was asked for: few frames at a time for want of memory leave none for a recording
        replay = batch_size is not None and batch_size <= RECORDED
        return self._stream(source, motion, batch_size or self.batch_size(self.bytes_per_frame), replay)

    def _stream(self, source: Source, motion: Motion, batch_size: int, replay: bool) -> Iterator[Tensor]:
        anchor = self.motion_decoder.const
        source = source.to(anchor.device, anchor.dtype)
        latents = backend.upload(motion.latents, anchor)
        # sources that change with every frame are nothing to record
        render = self.replayed if replay and len(source) == 1 else self
        unchecked = deque()

        def frames_of(part: slice) -> Tensor:
            return render(source.rows(part), latents[part]).float().permute(0, 2, 3, 1)

        for frames in self._in_blocks(len(motion), batch_size, frames_of):
            # the sum shows NaN anywhere; it lands after its frames, and is read when the device has its next work
            unchecked.append(backend.Download(frames.sum(dtype=torch.float32)))
            while len(unchecked) > 1 or (unchecked and unchecked[0].landed):
                check_numbers(unchecked.popleft().wait(), "Some frames", anchor.dtype)
            yield frames
        for total in unchecked:
            check_numbers(total.wait(), "Some frames", anchor.dtype)

    def _in_blocks(self, count: int, batch_size: int, work: Callable[[slice], T]) -> Iterator[T]:
        """The results of `work` on the rows 0..count, at most `batch_size` at a time, fewer once memory runs out."""
        done = 0
        while done < count:
            result = self._attempt(work, slice(done, done + batch_size), batch_size > 1)
            if result is None:
                batch_size //= 2
                log.warning("Out of memory: continuing with %d frames at a time.", batch_size)
                self.forget()
                backend.release_memory(self.motion_decoder.const.device)
                continue
            done += batch_size
            yield result

    def _attempt(self, work: Callable[[slice], T], part: slice, may_fail: bool) -> T | None:
        """`work(part)`, or None if memory runs out and `may_fail` allows it."""
        try:
            # entered for each block: a generator must not leave its caller in inference mode
            with torch.inference_mode():
                return work(part)
        except Exception as error:
            if may_fail and backend.is_out_of_memory(error):
                return None
            raise

    def _check(self, source: Source, motion: Motion) -> None:
        ours = Side("the renderer", self.generation, self.config.motion_size)
        check_match(ours, Side("the source", source.generation, source.motion.shape[1]))
        check_match(ours, Side("the motion", motion.generation, motion.latents.shape[1]))
        if len(source) not in (1, len(motion)):
            raise InputError(
                f"The source holds {len(source)} pictures and the motion {len(motion)} frames: encode one picture, or "
                "one for every frame."
            )

    def _encoder_input(self, images: Tensor) -> Tensor:
        """(N,H,W,3) of any square size -> (N,3,input_size,input_size)."""
        anchor = self.motion_decoder.const
        return resize(images, self.config.input_size).permute(0, 3, 1, 2).to(anchor)

    @property
    def bytes_per_frame(self) -> float:
        """Working memory to render a frame."""
        return 3 * self.config.output_size**2 * RENDERING * self.motion_decoder.const.element_size()

    @property
    def bytes_per_image(self) -> float:
        """Working memory to encode an image."""
        return 3 * self.config.input_size**2 * ENCODING * self.motion_decoder.const.element_size()

    def batch_size(self, bytes_each: float) -> int:
        """How many frames or images to process at a time, each taking `bytes_each` of working memory."""
        return backend.batch_size(self.motion_decoder.const.device, bytes_each)
