"""Talking Head: the whole pipeline in one node."""

import math

from comfy_api.latest import io
from torch import Tensor

from ..imtalker import Control
from ..imtalker.face.crop import Crop, apply_crop, centre_crop
from ..imtalker.face.follow import find_crop
from ..imtalker.media.audio import FPS, Audio
from ..imtalker.models import backend
from . import encode, face, folders, host, render, sample, types
from .doors.pictures import Pictures
from .schema import schema
from .temporary import lost_files


class TalkingHead(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerTalkingHead",
            display_name="IMTalker Talking Head",
            category="IMTalker",
            description="Turns a portrait and speech into a video, in one node: crop, encode, sample and render.",
            inputs=[
                types.Renderer.Input("renderer", tooltip="From Load IMTalker Renderer."),
                types.Generator.Input("generator", tooltip="From Load IMTalker Generator."),
                io.Image.Input("image", tooltip="A picture with a face, of any size."),
                io.Audio.Input("audio", tooltip="Speech of any length and sample rate."),
                *sample.sampling_inputs(),
                io.Combo.Input(
                    "crop",
                    options=["face", "none"],
                    tooltip="face: a square around the largest face, which is searched for as no_face says. none: the "
                    "middle square, for a picture that is already cropped.",
                ),
                face.scale_input(),
                face.no_face_input(),
                render.mark_input(),
                types.Control.Input(
                    "control",
                    optional=True,
                    tooltip="Head pose, camera and gaze to follow; without it the model decides.",
                ),
                # optional, so that graphs saved before it existed still run
                io.Boolean.Input(
                    "paste_back",
                    default=False,
                    optional=True,
                    tooltip="On: the video shows the whole picture, with the talking head in its place. Off: the "
                    "square alone.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="25 frames a second with the speech, for Save Video."),
                io.Image.Output(display_name="preview", tooltip="The square cropped from the picture."),
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
        generator: host.Handle,
        image: Pictures,
        audio: Audio,
        seed: int,
        steps: int,
        cfg: float,
        crop: str,
        scale: float,
        no_face: str,
        mark: str = "",
        control: Control | None = None,
        paste_back: bool = False,
    ) -> io.NodeOutput:
        picture = image.one("The source")
        square = find_square(picture, crop, scale, no_face)
        portrait = apply_crop(picture, square, renderer.model.config.input_size)
        source = encode.encode_source(renderer, portrait)
        frames = math.ceil(audio.seconds * FPS)
        # one step per window to encode, one per window to sample, one per frame to render
        windows = sample.window_count(generator, frames)
        progress = host.Progress(2 * windows + frames)
        features = encode.listen(generator, audio, lambda done: progress.step(done * windows / frames))
        motion = sample.sample_motion(generator, source, features, seed, steps, cfg, progress, control=control)
        blocks = host.render(renderer, source, motion, 0)
        if paste_back:
            blocks = render.paste(backend.to_cpu(blocks), image, square, len(motion), "Talking Head")
        blocks = host.previewed(blocks, progress)
        video = render.write(blocks, motion.fps, audio, text=mark)
        return io.NodeOutput(video, portrait.to(host.result_device()))


def find_square(picture: Tensor, crop: str, scale: float, no_face: str) -> Crop:
    """The square around the face of a picture (1,H,W,3), or from its middle."""
    if crop == "none":
        return centre_crop(*picture.shape[1:3])
    fallback = "error" if no_face == "error" else "centre"
    with face.advising('set no_face to "whole picture"'):
        return find_crop(picture, scale, fallback=fallback, **folders.detector())


NODES = [TalkingHead]
