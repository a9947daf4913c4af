"""Motion to frames, and to a video that is written while it is rendered."""

import logging
from collections.abc import Iterator, Sequence

import torch
from comfy_api.latest import Input, InputImpl, io
from torch import Tensor

from ..imtalker import InputError, Motion, Source
from ..imtalker.face.crop import Crop, paste_back
from ..imtalker.media.audio import Audio
from ..imtalker.media.provenance import TAGS, mark
from ..imtalker.media.video import write_video
from . import folders, host, types

log = logging.getLogger("imtalker")


def rendering_inputs() -> list:
    """What Render and Render Video share."""
    return [
        types.Renderer.Input("renderer", tooltip="From Load IMTalker Renderer."),
        types.Source.Input("source", tooltip="The portrait to move, from Encode Source."),
        types.Motion.Input("motion", tooltip="How it moves: from Sample Motion, Encode Motion or a file."),
        io.Int.Input(
            "batch_size",
            default=0,
            min=0,
            max=256,
            tooltip="Frames rendered at once. 0: automatic. More is faster up to a point and takes more memory; the "
            "frames are the same.",
        ),
    ]


class Render(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerRender",
            display_name="IMTalker Render",
            category="IMTalker/render",
            description="Renders all frames into memory, for other nodes to work on. For a file use Render Video.",
            inputs=rendering_inputs(),
            outputs=[
                io.Image.Output(display_name="images", tooltip="One frame for each latent of the motion."),
                io.Float.Output(display_name="fps", tooltip="The motion's frames per second, for Create Video."),
            ],
        )

    @classmethod
    @host.answer
    def execute(cls, renderer: host.Handle, source: Source, motion: Motion, batch_size: int) -> io.NodeOutput:
        shape = len(motion), renderer.model.config.output_size, renderer.model.config.output_size, 3
        host.check_room(
            torch.Size(shape).numel() * 4,
            f"{len(motion)} frames of {shape[2]}x{shape[1]}",
            "use Render Video, which needs no more for a long clip than for a short one, or trim the motion.",
        )
        images = torch.empty(shape, device=host.result_device())
        done = 0
        blocks = host.render(renderer, source, motion, batch_size)
        for block in host.watched(blocks, host.Progress(len(motion))):
            images[done : done + len(block)] = block
            done += len(block)
        return io.NodeOutput(images, float(motion.fps))


class RenderVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerRenderVideo",
            display_name="IMTalker Render Video",
            category="IMTalker/render",
            description="Renders straight into a video with sound, in the same memory for any length. With crop and "
            "background the face is pasted back into the picture it came from.",
            inputs=[
                *rendering_inputs(),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of the video. 0: the motion's. Another rate interpolates the motion, "
                    "not the frames, so it stays sharp.",
                ),
                io.Int.Input(
                    "quality",
                    default=18,
                    min=0,
                    max=40,
                    tooltip="H.264's constant rate factor: 0 is lossless and large, 18 looks lossless, 28 is small.",
                ),
                io.Audio.Input(
                    "audio", optional=True, tooltip="Sound of the video, cut or filled with silence to its length."
                ),
                types.Crop.Input(
                    "crop", optional=True, tooltip="Where Face Crop cut the portrait out; needs background as well."
                ),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="The whole picture the crop came from, or one for each frame; needs crop as well.",
                ),
                mark_input(),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="For Save Video, which copies it without loss.")],
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        renderer: host.Handle,
        source: Source,
        motion: Motion,
        batch_size: int,
        fps: float,
        quality: int,
        audio: dict | None = None,
        crop: Crop | list[Crop] | None = None,
        background: Tensor | None = None,
        mark: str = "",
    ) -> io.NodeOutput:
        motion = motion.at_fps(fps or motion.fps)
        blocks = host.render(renderer, source, motion, batch_size)
        if (crop is None) != (background is None):
            raise InputError("Connect crop and background of Render Video together, or neither: one needs the other.")
        if crop is not None:
            blocks = paste(blocks, background, crop, len(motion))
        blocks = host.watched(blocks, host.Progress(len(motion)))
        return io.NodeOutput(write(blocks, motion.fps, audio and types.sound(audio), quality, mark))


def mark_input() -> io.String.Input:
    # optional, so that graphs from before it was there run as they did
    return io.String.Input(
        "mark",
        default="",
        optional=True,
        tooltip="Small text, in plain letters, in the lower right corner of every frame, such as AI-generated. Empty: "
        "none. The file's metadata says that it is synthetic either way.",
    )


def write(blocks: Iterator[Tensor], fps: float, audio: Audio | None, quality: int = 18, text: str = "") -> Input.Video:
    """The frames as a temporary file, tagged as synthetic; nothing is left of it where rendering stops on the way."""
    path = folders.new_temporary(".mp4")
    write_video(path, mark(blocks, text), fps, audio, TAGS, crf=quality)
    return InputImpl.VideoFromFile(path)


def paste(blocks: Iterator[Tensor], background: Tensor, crop: Crop | Sequence[Crop], count: int) -> Iterator[Tensor]:
    """Frames of the background's size (1,H,W,3), one at a time."""
    crops = [crop] if isinstance(crop, Crop) else crop
    for what, found in (("background", len(background)), ("crop", len(crops))):
        if found != 1 and found < count:
            raise InputError(f"The {what} has {found} frames and the motion {count}: give 1 or {count}.")
        if found > count:
            log.warning("The %s has %d frames and the motion %d; it is cut.", what, found, count)
    faces = (face for block in blocks for face in block)
    for number, face in enumerate(faces):
        picture, place = background[number % len(background)], crops[number % len(crops)]
        yield paste_back(picture[None, ..., :3].float().cpu(), face[None].cpu(), place)[0]


NODES = [Render, RenderVideo]
