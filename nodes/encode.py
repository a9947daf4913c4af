"""Encoding nodes: portrait, speech and driving video to what the models work on."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from comfy_api.latest import Input, io
from torch import Tensor

from ..imtalker import InputError, Motion
from ..imtalker.face.crop import Crop, centre_crop, cropped_blocks
from ..imtalker.face.follow import steady_crop
from ..imtalker.media.audio import FPS, Audio, read_audio
from ..imtalker.media.image import check_image
from ..imtalker.media.video import VideoReader
from ..imtalker.models.generator import StreamedFeatures
from . import face, folders, host, types

BLOCK = 8  # driving frames encoded together


class EncodeSource(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerEncodeSource",
            display_name="IMTalker Encode Source",
            category="IMTalker/encode",
            description="Encodes a portrait: appearance, identity, pose and expression. Serves any number of motions.",
            inputs=[
                types.Renderer.Input("renderer", tooltip="From Load IMTalker Renderer."),
                io.Image.Input("image", tooltip="One square picture of a face, such as from Face Crop; any size."),
            ],
            outputs=[types.Source.Output(display_name="source", tooltip="For Sample Motion and Render.")],
        )

    @classmethod
    @host.answer
    def execute(cls, renderer: host.Handle, image: Tensor) -> io.NodeOutput:
        return io.NodeOutput(encode_source(renderer, image))


class EncodeAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerEncodeAudio",
            display_name="IMTalker Encode Audio",
            category="IMTalker/encode",
            description="Turns speech into 25 audio features a second that drive the motion.",
            inputs=[
                types.Generator.Input("generator", tooltip="From Load IMTalker Generator."),
                io.Audio.Input("audio", tooltip="Speech of any length and sample rate; channels are averaged."),
            ],
            outputs=[
                types.AudioFeatures.Output(
                    display_name="audio_features", tooltip="For Sample Motion; sets the length of the motion."
                )
            ],
        )

    @classmethod
    @host.answer
    def execute(cls, generator: host.Handle, audio: dict | None) -> io.NodeOutput:
        return io.NodeOutput(encode_audio(generator, types.to_engine(audio)))


class EncodeMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerEncodeMotion",
            display_name="IMTalker Encode Motion",
            category="IMTalker/encode",
            description="Extracts the motion of a face from a driving video or from images. Connect one of the two.",
            inputs=[
                types.Renderer.Input("renderer", tooltip="From Load IMTalker Renderer."),
                io.Combo.Input(
                    "crop",
                    options=["face", "none"],
                    tooltip="face: one steady square around the face for the whole clip. none: the middle square, for "
                    "frames that are already cropped.",
                ),
                face.scale_input(),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frame rate of images; a video has its own.",
                ),
                io.Image.Input("images", optional=True, tooltip="Driving frames, in order."),
                io.Video.Input("video", optional=True, tooltip="Driving video; streamed from disk."),
            ],
            outputs=[
                types.Motion.Output(display_name="motion", tooltip="One latent per frame, at the clip's frame rate."),
                io.Audio.Output(display_name="audio", tooltip="Audio of the video; silence if it has none."),
            ],
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        renderer: host.Handle,
        crop: str,
        scale: float,
        fps: float,
        images: Tensor | None = None,
        video: Input.Video | None = None,
    ) -> io.NodeOutput:
        if (images is None) == (video is None):
            raise InputError("Encode Motion reads one of the two: connect either images or video.")
        clip = Clip(images, fps, len(images), None) if video is None else open_video(video)
        box = find_face(clip, scale) if crop == "face" else centre_crop(*next(iter(clip.frames)).shape[:2])
        motion = encode_motion(renderer, clip, box)
        return io.NodeOutput(motion, types.to_comfy(clip.audio or types.silence(motion.seconds)))


def encode_source(renderer: host.Handle, image: Tensor):
    """Encodes a portrait (1,H,W,3) and moves the result to ComfyUI's device for results."""
    model = host.on_device(renderer, renderer.model.bytes_per_image)
    source = model.encode_source(image)
    return source.to(host.result_device(), source.identity.dtype)


def encode_audio(generator: host.Handle, audio: Audio):
    """Encodes all of the speech, with progress and chances to interrupt: minutes of it take minutes on a CPU."""
    model = host.on_device(generator, host.audio_memory(generator.model, audio.seconds))
    progress = host.Progress(math.ceil(audio.seconds * FPS))
    return model.encode_audio(audio.waveform, audio.sample_rate, progress.step)


def listen(generator: host.Handle, audio: Audio, progress: Callable[[float], None]) -> StreamedFeatures:
    """Encodes the speech while it is consumed, in the same memory for any length; `progress` gets frames done."""
    model = host.on_device(generator, host.audio_memory(generator.model, audio.seconds))
    return model.listen(audio, progress=progress)


@dataclass(frozen=True)
class Clip:
    """Driving frames (H,W,C), uint8 or 0..1, that can be iterated more than once."""

    frames: Iterable[Tensor]
    fps: float
    count: int | None
    audio: Audio | None

    def pictures(self) -> Iterator[Tensor]:
        """Frames (H,W,3) in 0..1 on the CPU; each is a chance to interrupt."""
        for frame in self.frames:
            host.check_interrupted()
            yield check_image(frame)[0].cpu()


def open_video(video: Input.Video) -> Clip:
    """Opens a VIDEO: streamed from its file, or decoded by ComfyUI if it has no file or was trimmed."""
    path = video.get_stream_source()
    trimmed = any(getattr(video, "get_active_trim_window", tuple)())
    if isinstance(path, str) and not trimmed:
        reader = VideoReader(path)
        return Clip(reader, float(reader.fps), reader.frames, read_audio(path) if reader.has_audio else None)
    parts = video.get_components()
    heard = parts.audio and parts.audio["waveform"].numel()
    audio = Audio(parts.audio["waveform"][0], parts.audio["sample_rate"]) if heard else None
    return Clip(parts.images, float(parts.frame_rate), len(parts.images), audio)


def find_face(clip: Clip, scale: float) -> Crop:
    """One square around the face for the whole clip."""
    return steady_crop(clip.pictures(), clip.count, scale, model_dirs=folders.detector_folders())


def encode_motion(renderer: host.Handle, clip: Clip, crop: Crop) -> Motion:
    """Encodes block by block, so that a long video is never in memory as a whole."""
    model = host.on_device(renderer, BLOCK * renderer.model.bytes_per_image)
    progress = host.Progress(math.ceil((clip.count or 1) / BLOCK))
    latents = []
    for block in cropped_blocks(clip.pictures(), crop, model.config.input_size, BLOCK):
        latents.append(model.encode_motion(block).latents)
        progress.step(1, block[-1])
    if not latents:
        raise InputError("The driving clip has no frames: choose another.")
    return Motion(torch.cat(latents), clip.fps, model.generation)


NODES = [EncodeSource, EncodeAudio, EncodeMotion]
