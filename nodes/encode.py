"""Encoding nodes: portrait, speech and driving video to what the models work on."""

import math
from collections.abc import Callable, Iterator

import torch
from comfy_api.latest import io
from torch import Tensor

from ..imtalker import InputError, Motion
from ..imtalker.face.crop import centre_crop, cropped_blocks
from ..imtalker.face.follow import View, steady_view
from ..imtalker.media.audio import FPS, Audio
from ..imtalker.models.generator import StreamedFeatures
from ..imtalker.motion.hold import hold
from . import face, folders, host, types
from .doors.clips import Clip, clip_of_pictures
from .doors.pictures import Pictures
from .doors.sound import silence, to_comfy
from .schema import schema

BLOCK = 8  # driving frames encoded together


class EncodeSource(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
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
    def execute(cls, renderer: host.Handle, image: Pictures) -> io.NodeOutput:
        return io.NodeOutput(encode_source(renderer, image.one("The source")))


class EncodeAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
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
    def execute(cls, generator: host.Handle, audio: Audio) -> io.NodeOutput:
        return io.NodeOutput(encode_audio(generator, audio))


class EncodeMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerEncodeMotion",
            display_name="IMTalker Encode Motion",
            category="IMTalker/encode",
            description="Extracts the motion of a face from a driving video or from images. Connect one of the two.",
            inputs=[
                types.Renderer.Input("renderer", tooltip="From Load IMTalker Renderer."),
                io.Combo.Input(
                    "crop",
                    options=["face", "none"],
                    tooltip="face: one steady square around the face for the whole clip; the first search for a real "
                    "person's face downloads a detector (0.2 MB) to models/imtalker. none: the middle square, for "
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
        images: Pictures | None = None,
        video: Clip | None = None,
    ) -> io.NodeOutput:
        if (images is None) == (video is None):
            raise InputError("Encode Motion reads one of the two: connect either images or video.")
        clip = clip_of_pictures(images, fps) if video is None else video
        motion = encode_motion(renderer, clip, find_face(clip, scale) if crop == "face" else middle(clip))
        return io.NodeOutput(motion, to_comfy(clip.sound() or silence(motion.seconds)))


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


def find_face(clip: Clip, scale: float) -> View:
    """One square around the face for the whole clip, and the frames that do not show it."""
    with face.advising('set crop to "none"'):
        return steady_view(host.watched(clip.frames), clip.count, scale, fps=clip.fps, **folders.detector())


def middle(clip: Clip) -> View:
    """The middle square."""
    first = next(iter(clip.frames), None)
    if first is None:
        raise InputError("The driving clip has no frames: choose another.")
    return View(centre_crop(*first.shape[:2]))


def encode_motion(renderer: host.Handle, clip: Clip, view: View) -> Motion:
    """Encodes block by block, so that a long video is never in memory as a whole."""
    model = host.on_device(renderer, BLOCK * renderer.model.bytes_per_image)
    progress = host.Progress(math.ceil((clip.count or 1) / BLOCK))

    def encoded() -> Iterator[Motion]:
        for block in cropped_blocks(host.watched(clip.frames), view.crop, model.config.input_size, BLOCK):
            yield model.encode_motion(block, clip.fps)
            progress.step(1, block[-1])

    latents = [motion.latents for motion in hold(encoded(), view.hidden)]
    if not latents:
        raise InputError("The driving clip has no frames: choose another.")
    return Motion(torch.cat(latents), clip.fps, model.generation, model.fingerprint)


NODES = [EncodeSource, EncodeAudio, EncodeMotion]
