"""Nodes that shape a motion: retargeted to a portrait, fitted to a length, by parts, and silent where a sound is."""

from collections.abc import Iterator

import torch
from comfy_api.latest import InputImpl, io
from torch import Tensor

from ..imtalker import InputError, Motion, Rig, Source
from ..imtalker.media.audio import Audio
from ..imtalker.media.video_writer import write_video
from ..imtalker.motion import editing, fit
from ..imtalker.motion.match import Side, check_match
from ..imtalker.motion.retarget import retarget
from ..imtalker.motion.rig import PARTS, REST
from ..imtalker.motion.silence import gate
from . import host, types
from .doors.clips import Clip
from .doors.pictures import Pictures
from .keyframes import RESENT
from .motion import with_preview
from .schema import schema
from .temporary import handed_out, lost_files, new_temporary

REFERENCES = {"first frame": "first", "mean": "mean", "neutral": "neutral"}
FRAME = "frame number"
KEPT_BYTES = 512 * 2**20  # of a clip's frames, in memory at a time


class RetargetMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerRetargetMotion",
            display_name="IMTalker Retarget Motion",
            category="IMTalker/motion",
            description="Brings a driver's motion to a portrait: relative keeps the portrait's own pose and expression "
            "and adds only how the driver changes.",
            inputs=[
                types.Motion.Input("motion", tooltip="The driver's, from Encode Motion or Load Motion."),
                types.Source.Input("source", tooltip="The portrait that will move."),
                io.Combo.Input(
                    "mode",
                    options=["relative", "absolute"],
                    tooltip="relative: the portrait's own pose and expression, plus the driver's changes since the "
                    "reference. absolute: the driver's own poses, as published.",
                ),
                io.Combo.Input(
                    "reference",
                    options=[*REFERENCES, FRAME],
                    tooltip="What of the driver counts as the portrait's own pose and expression. first frame; mean: "
                    "of the whole clip; neutral: its most ordinary frame; frame number: the one in frame. Ignored in "
                    "absolute.",
                ),
                io.Int.Input(
                    "frame",
                    default=0,
                    min=0,
                    max=10_000_000,
                    tooltip="The driver's frame that is the reference, from 0; only for frame number. Choose one in "
                    "which the driver's face is as the portrait's: same pose, mouth and eyes.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Size of the movements around the portrait's own pose. 0: still; 1: as large as the "
                    "driver's; 2: twice as large, which may distort the face.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For Render, or further editing.")],
            **RESENT,
        )

    @classmethod
    @host.answer
    def execute(
        cls, motion: Motion, source: Source, mode: str, reference: str, frame: int, strength: float
    ) -> io.NodeOutput:
        check_match(
            Side("the source", source.generation, source.motion.shape[1]),
            Side("the motion", motion.generation, motion.latents.shape[1]),
        )
        if mode == "absolute":
            return with_preview(editing.strengthen(motion, strength, source.motion))
        return with_preview(retarget(motion, source.motion, REFERENCES.get(reference, frame), strength))


class FitLength(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerFitLength",
            display_name="IMTalker Fit Length",
            category="IMTalker/motion",
            description="Makes a motion, images or a video as long as a sound, or a number of frames long. Connect one "
            "or several of motion, images and video; each comes out in its own output.",
            inputs=[
                io.Combo.Input(
                    "way",
                    options=["loop", "ping-pong", "hold", "stretch"],
                    tooltip="How something too short is made longer. loop: again from the start (a motion without a "
                    "visible seam); ping-pong: forwards and backwards in turn; hold: the last frame stays; stretch: "
                    "slower. What is too long is cut; stretch plays it faster instead.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Length in frames. 0: as long as the audio.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frame rate of images; a motion and a video have their own.",
                ),
                types.Motion.Input("motion", optional=True, tooltip="From Encode Motion, Load Motion or others."),
                io.Image.Input("images", optional=True, tooltip="Frames of a clip, in order."),
                io.Video.Input("video", optional=True, tooltip="A clip, streamed from disk. Its own sound is dropped."),
                io.Audio.Input(
                    "audio", optional=True, tooltip="Sets the length where frames is 0, and is the video's sound."
                ),
            ],
            outputs=[
                types.Motion.Output(display_name="motion", tooltip="The motion in its new length; needs motion."),
                io.Image.Output(display_name="images", tooltip="The images in their new length; needs images."),
                io.Video.Output(display_name="video", tooltip="The video in its new length; needs video."),
            ],
            **RESENT,
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        return lost_files()

    @classmethod
    @host.answer
    def execute(
        cls,
        way: str,
        frames: int,
        fps: float,
        motion: Motion | None = None,
        images: Pictures | None = None,
        video: Clip | None = None,
        audio: Audio | None = None,
    ) -> io.NodeOutput:
        if motion is None and images is None and video is None:
            raise InputError("Fit Length has nothing to fit: connect motion, images or video.")
        if not frames and audio is None:
            raise InputError("Fit Length does not know the length: connect audio, or set frames.")

        def length(rate: float) -> int:
            return frames or fit.frames_of(audio.seconds, rate)

        fitted = [host.not_connected("Fit Length", name) for name in ("motion", "images", "video")]
        if images is not None:
            fitted[1] = pictures_at(images, fit.positions(len(images), length(fps), way))
        if video is not None:
            path = new_temporary(".mp4")
            write_video(path, clip_at(video, length(video.fps), way), video.fps, audio)
            fitted[2] = InputImpl.VideoFromFile(handed_out(path))
        if motion is not None:
            shown = with_preview(fit.fit(motion, length(motion.fps), way))
            return io.NodeOutput(shown.args[0], *fitted[1:], ui=shown.ui)
        return io.NodeOutput(*fitted)


def pictures_at(images: Pictures, places: Tensor) -> Tensor:
    """The nearest pictures (n,H,W,3), where ComfyUI wants results."""
    shape = (len(places), images.height, images.width, 3)
    host.check_room(4 * torch.Size(shape).numel(), f"{len(places)} frames", "ask for fewer, or use video.")
    found = torch.empty(shape, device=host.result_device())
    for number, place in enumerate(host.watched(places.round().long().tolist())):
        found[number] = images[place]
    return found


def clip_at(clip: Clip, frames: int, way: str) -> Iterator[Tensor]:
    """The frames of a clip in its new length, read while they are written."""
    count = clip.count or sum(1 for _ in host.watched(clip.frames))
    places = fit.positions(max(1, count), frames, way).round().long().tolist()
    first = next(iter(clip.frames), None)
    keep = max(16, KEPT_BYTES // first.nbytes) if first is not None else 16
    return host.counted(fit.frames_at(clip.frames, places, keep), host.Progress(frames))


class CombineParts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        part = "Take {} from other. The rig must know it."
        return schema(
            node_id="IMTalkerCombineParts",
            display_name="IMTalker Combine Parts",
            category="IMTalker/motion",
            description="Takes parts of the face from another motion: the lips alone, the eyes alone, the expression "
            "without the head. The result has the length and frame rate of motion.",
            inputs=[
                types.Motion.Input("motion", tooltip="The motion that is kept where no part is taken."),
                types.Motion.Input("other", tooltip="The motion that parts are taken from; cut, or held at its end."),
                types.Rig.Input("rig", tooltip="From Load Rig or Learn Rig, for the weights of both motions."),
                io.Boolean.Input("head", default=False, tooltip=part.format("turns and position of the head")),
                io.Boolean.Input("mouth", default=True, tooltip=part.format("the mouth")),
                io.Boolean.Input("eyes", default=False, tooltip=part.format("gaze and eyelids, as far as the rig has")),
                io.Boolean.Input("brows", default=False, tooltip=part.format("the brows")),
                io.Boolean.Input(
                    "rest",
                    default=False,
                    tooltip="Take all that the rig has no channel for. With everything but head on, the result is the "
                    "other's expression with this head.",
                ),
                io.Float.Input(
                    "share",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of these parts comes from other. 0: nothing; 1: all.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Mask batch that varies the share over time, spread over its length: white = full share, "
                    "black = only motion.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For Render, or further editing.")],
            **RESENT,
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        motion: Motion,
        other: Motion,
        rig: Rig,
        share: float,
        mask: Tensor | None = None,
        **taken: bool,
    ) -> io.NodeOutput:
        parts = [part for part in (*PARTS, REST) if taken[part]]
        curve = share if mask is None else share * mask.flatten(1).mean(1).cpu()
        return with_preview(rig.combine(motion, other, parts, curve))


class SilenceGate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerSilenceGate",
            display_name="IMTalker Silence Gate",
            category="IMTalker/motion",
            description="Rests the mouth where a sound is quiet, or where another speaker's sound is loud. Head, eyes "
            "and brows move on.",
            inputs=[
                types.Motion.Input("motion", tooltip="From Sample Motion, for example."),
                types.Rig.Input("rig", tooltip="From Load Rig or Learn Rig; it must know the mouth."),
                io.Audio.Input("audio", tooltip="The sound that decides, from the motion's start on."),
                io.Combo.Input(
                    "rest_where",
                    options=["quiet", "loud"],
                    tooltip="quiet: the mouth rests where this sound is below the level; give the speaker's own sound. "
                    "loud: it rests where this sound is above the level; give the other speaker's.",
                ),
                io.Float.Input(
                    "level",
                    default=-40.0,
                    min=-90.0,
                    max=0.0,
                    step=1.0,
                    tooltip="In dB of full scale, of each frame. -40 suits clean speech; raise it for a noisy "
                    "recording in which the mouth keeps moving. Stretches under 0.25 s do not count.",
                ),
                types.Source.Input(
                    "source",
                    optional=True,
                    tooltip="With it, the mouth rests as in this portrait; without it, as the rig has it: shut.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For Render, or further editing.")],
            **RESENT,
        )

    @classmethod
    @host.answer
    def execute(
        cls, motion: Motion, rig: Rig, audio: Audio, rest_where: str, level: float, source: Source | None = None
    ) -> io.NodeOutput:
        if source is not None:
            check_match(Side("the source", source.generation), Side("the motion", motion.generation))
        own = None if source is None else source.motion
        return with_preview(gate(motion, rig, audio, level, own, rest_where == "loud"))


NODES = [RetargetMotion, FitLength, CombineParts, SilenceGate]
