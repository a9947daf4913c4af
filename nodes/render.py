"""Render nodes: motion to frames, or straight to a video file."""

from collections.abc import Iterator, Sequence

import torch
from comfy_api.latest import Input, InputImpl, io
from torch import Tensor

from ..imtalker import InputError, Motion, Source
from ..imtalker.face.crop import SOFT_SQUARE, Crop, paste_back
from ..imtalker.media.audio import Audio
from ..imtalker.media.provenance import TAGS, mark
from ..imtalker.media.video_writer import write_video
from ..imtalker.models import backend
from . import host, types
from .doors.pictures import Pictures
from .schema import schema
from .temporary import handed_out, lost_files, new_temporary


def rendering_inputs() -> list:
    """The inputs of both Render and Render Video."""
    return [
        types.Renderer.Input("renderer", tooltip="From Load IMTalker Renderer."),
        types.Source.Input("source", tooltip="The portrait to animate, from Encode Source."),
        types.Motion.Input("motion", tooltip="From Sample Motion, Encode Motion or Load Motion."),
        io.Int.Input(
            "batch_size",
            default=0,
            min=0,
            max=256,
            tooltip="Frames rendered at a time. 0: automatic. Larger is faster up to a point and takes more memory; "
            "the frames are the same.",
        ),
    ]


class Render(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerRender",
            display_name="IMTalker Render",
            category="IMTalker/render",
            description="Renders all frames into memory, for other nodes to process. For a file use Render Video.",
            inputs=rendering_inputs(),
            outputs=[
                io.Image.Output(display_name="images", tooltip="One frame per latent of the motion."),
                io.Float.Output(display_name="fps", tooltip="Frame rate of the motion, for Create Video."),
            ],
        )

    @classmethod
    @host.answer
    def execute(cls, renderer: host.Handle, source: Source, motion: Motion, batch_size: int) -> io.NodeOutput:
        shape = len(motion), renderer.model.config.output_size, renderer.model.config.output_size, 3
        host.check_room(
            torch.Size(shape).numel() * 4,
            f"{len(motion)} frames of {shape[2]}x{shape[1]}",
            "use Render Video, which needs no more memory for a long clip, or trim the motion.",
        )
        images = torch.empty(shape, device=host.result_device())
        done = 0
        blocks = backend.to_cpu(host.render(renderer, source, motion, batch_size))
        for block in host.previewed(blocks, host.Progress(len(motion))):
            images[done : done + len(block)] = block
            done += len(block)
        return io.NodeOutput(images, float(motion.fps))


class RenderVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerRenderVideo",
            display_name="IMTalker Render Video",
            category="IMTalker/render",
            description="Renders straight to a video with audio, in the same memory for any length. With crop and "
            "background, the face is pasted back into the picture it came from.",
            inputs=[
                *rendering_inputs(),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frame rate of the video. 0: that of the motion. Any other rate interpolates the motion, "
                    "not the pixels, so frames stay sharp.",
                ),
                io.Int.Input(
                    "quality",
                    default=18,
                    min=0,
                    max=40,
                    tooltip="H.264 quality (CRF); lower is better. 0: lossless, large; 18: looks lossless; 28: small.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Audio track, trimmed or padded with silence to the length of the video.",
                ),
                types.Crop.Input(
                    "crop", optional=True, tooltip="From Face Crop: where the face goes. Needs background too."
                ),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="The whole picture that was cropped, or one per frame. Needs crop too.",
                ),
                mark_input(),
                # optional, so that graphs saved before it existed still run
                io.Combo.Input(
                    "shape",
                    options=["square", "ellipse"],
                    default="square",
                    optional=True,
                    tooltip="With crop and background, the area to paste. square: all of the rendered square, so that "
                    "no old outline shows beside a moving head; ellipse: the face only.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="For Save Video, which copies it without re-encoding.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        return lost_files()

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
        audio: Audio | None = None,
        crop: Crop | list[Crop] | None = None,
        background: Pictures | None = None,
        mark: str = "",
        shape: str = "square",
    ) -> io.NodeOutput:
        motion = motion.at_fps(fps or motion.fps)
        blocks = host.render(renderer, source, motion, batch_size)
        if (crop is None) != (background is None):
            raise InputError("Render Video needs crop and background together: connect both, or neither.")
        if crop is not None:
            blocks = paste(backend.to_cpu(blocks), background, crop, len(motion), "Render Video", shape)
        blocks = host.previewed(blocks, host.Progress(len(motion)))
        return io.NodeOutput(write(blocks, motion.fps, audio, quality, mark))


def mark_input() -> io.String.Input:
    # optional, so that graphs saved before it existed still run
    return io.String.Input(
        "mark",
        default="",
        optional=True,
        tooltip="Small label in the lower right corner of every frame, such as AI-generated, in any script that a "
        "font on this machine has. Empty: no label. The file's metadata says that the video is synthetic either way.",
    )


def write(blocks: Iterator[Tensor], fps: float, audio: Audio | None, quality: int = 18, text: str = "") -> Input.Video:
    """Writes the frames to a temporary file tagged as synthetic; removed if rendering stops before the end."""
    path = new_temporary(".mp4")
    write_video(path, backend.to_file(mark(blocks, text)), fps, audio, TAGS, crf=quality)
    return InputImpl.VideoFromFile(handed_out(path))


def paste(
    blocks: Iterator[Tensor],
    background: Pictures,
    crop: Crop | Sequence[Crop],
    count: int,
    node: str,
    shape: str = "square",
) -> Iterator[Tensor]:
    """Yields frames of the background's size (1,H,W,3), one at a time; `count` faces are expected by the `node`."""
    backgrounds = types.one_per_frame(f"The background of {node}", background, count)
    crops = types.one_per_frame(f"The crop of {node}", crop, count)
    style = SOFT_SQUARE if shape == "square" else {"shape": shape, "feather": 0.1, "seam": SOFT_SQUARE["seam"]}
    faces = (face for block in blocks for face in block)
    for rendered, picture, square in zip(faces, backgrounds, crops, strict=False):
        yield paste_back(picture[None], rendered[None], square, **style)[0]


NODES = [Render, RenderVideo]
