"""Motion nodes: save, load, edit and join."""

import torch
from comfy_api.latest import io
from torch import Tensor

from ..imtalker import InputError, Motion, Source
from ..imtalker.motion import editing
from ..imtalker.motion.match import Side, check_match
from . import folders, host, types
from .keyframes import RESENT
from .schema import schema

SUFFIX = ".safetensors"
NO_FILE = "none yet"  # the page shows an empty list as "undefined"
CURVES, POINTS = 3, 240  # in the preview: how many curves, and points on each at most


def with_preview(motion: Motion) -> io.NodeOutput:
    """The motion, and curves of its strongest movements for the preview in the node."""
    return io.NodeOutput(motion, ui={"imtalker_motion": [curves(motion)]})


def curves(motion: Motion) -> dict:
    """Principal components over time, strongest first, scaled to -100..100 of the largest value in any of them."""
    offsets = motion.latents.double().cpu()
    offsets = offsets - offsets.mean(0)
    directions = torch.linalg.eigh(offsets.T @ offsets).eigenvectors.flip(1)[:, :CURVES]
    frames = torch.linspace(0, len(offsets) - 1, min(len(offsets), POINTS)).round().long()
    values = offsets[frames] @ directions
    values = 100 * values / values.abs().max().clamp_min(1e-9)
    return {"frames": len(motion), "seconds": motion.seconds, "curves": values.round().int().T.tolist()}


class SaveMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerSaveMotion",
            display_name="IMTalker Save Motion",
            category="IMTalker/motion",
            description="Saves a motion to the output folder. Load Motion reads it back, for any portrait.",
            inputs=[
                types.Motion.Input("motion", tooltip="From Sample Motion, Encode Motion or Edit Motion."),
                io.String.Input(
                    "filename_prefix",
                    default="imtalker/motion",
                    tooltip="Folder and start of the file name in output/; a number and .safetensors are added.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="The same motion, passed through.")],
            is_output_node=True,
        )

    @classmethod
    @host.answer
    def execute(cls, motion: Motion, filename_prefix: str) -> io.NodeOutput:
        path, name, subfolder = folders.new_output(filename_prefix, SUFFIX)
        motion.save(path)
        return io.NodeOutput(motion, ui={"motion": [{"filename": name, "subfolder": subfolder, "type": "output"}]})


class LoadMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerLoadMotion",
            display_name="IMTalker Load Motion",
            category="IMTalker/motion",
            description="Loads a motion saved by Save Motion, from the input or output folder.",
            inputs=[
                types.FileInput(
                    "motion_file",
                    options=folders.media_files((SUFFIX,), outputs=True) or [NO_FILE],
                    tooltip="A .safetensors file in input/, or in output/ (marked [output]). It works with renderers "
                    "of the generation (v1 or v2) it was made with. Press R to refresh the list.",
                )
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For Render, Edit Motion and Join Motion.")],
        )

    @classmethod
    def validate_inputs(cls, motion_file: str | None = None) -> bool | str:
        return folders.check_media(motion_file)

    @classmethod
    def fingerprint_inputs(cls, motion_file: str | None = None) -> tuple:
        return folders.media_fingerprint(motion_file)

    @classmethod
    @host.answer
    def execute(cls, motion_file: str) -> io.NodeOutput:
        return io.NodeOutput(Motion.load(folders.media_path(motion_file)))


class EditMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerEditMotion",
            display_name="IMTalker Edit Motion",
            category="IMTalker/motion",
            description="Changes a motion, in this order: start and end, reverse, speed, strength, smoothing, fps, "
            "loop. The defaults change nothing.",
            inputs=[
                types.Motion.Input("motion", tooltip="From Sample Motion, Encode Motion or Load Motion."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Size of the movements. 0: still; 1: unchanged; 2: twice as large, which may distort the "
                    "face.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Removes fast movement (low-pass at 12 - 11 x smoothing Hz). 0: off; up to 0.5: removes "
                    "only jitter, lips are safe; 1: leaves only the slow sway of the head.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=36000.0,
                    step=0.01,
                    tooltip="Seconds to cut from the start.",
                ),
                io.Float.Input(
                    "end",
                    default=0.0,
                    min=0.0,
                    max=36000.0,
                    step=0.01,
                    tooltip="End of the part to keep, in seconds from the start of the original motion. 0: its end.",
                ),
                io.Float.Input(
                    "speed",
                    default=1.0,
                    min=0.1,
                    max=4.0,
                    step=0.05,
                    tooltip="2: twice as fast and half as long; 0.5: half as fast. The frame rate stays the same; "
                    "audio does not follow.",
                ),
                io.Boolean.Input("reverse", default=False, tooltip="Plays the motion backwards."),
                io.Boolean.Input(
                    "loop",
                    default=False,
                    tooltip="Makes the last frame lead back to the first, for endless playback. The crossfade shortens "
                    "the motion by 0.2 to 0.6 s.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frame rate of the result; the duration stays the same. 0: unchanged.",
                ),
                types.Source.Input(
                    "source",
                    optional=True,
                    tooltip="With it, strength scales movement around this portrait's own pose and expression; without "
                    "it, around the motion's mean.",
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
        strength: float,
        smoothing: float,
        start: float,
        end: float,
        speed: float,
        reverse: bool,
        loop: bool,
        fps: float,
        source: Source | None = None,
    ) -> io.NodeOutput:
        if source is not None:
            check_match(Side("the source", source.generation), Side("the motion", motion.generation))
        motion = editing.trim(motion, start, end or None)
        motion = editing.reverse(motion) if reverse else motion
        motion = editing.stretch(motion, speed)
        motion = editing.strengthen(motion, strength, source and source.motion)
        motion = editing.smooth(motion, smoothing).at_fps(fps or motion.fps)
        return with_preview(editing.loop(motion) if loop else motion)


class JoinMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerJoinMotion",
            display_name="IMTalker Join Motion",
            category="IMTalker/motion",
            description="Joins motions one after the other, or mixes two. The result has the frame rate of motion_a; "
            "all must be of one generation (v1 or v2).",
            inputs=[
                types.Motion.Input("motion_a", tooltip="First motion. Sets the frame rate, and the length of a mix."),
                types.Motion.Input(
                    "motion_b", tooltip="Second motion. In a mix it is trimmed, or held at its last frame."
                ),
                io.Combo.Input(
                    "mode",
                    options=["one after the other", "mix"],
                    tooltip="one after the other: a, b, c, d in sequence. mix: a and b at the same time.",
                ),
                io.Float.Input(
                    "crossfade",
                    default=0.4,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How long the transition takes, in seconds. 0: hard cut. Ignored in a mix.",
                ),
                io.Float.Input(
                    "share",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Amount of motion_b in a mix. 0: only motion_a; 1: only motion_b. Ignored outside a mix.",
                ),
                types.Motion.Input("motion_c", optional=True, tooltip="Third motion; not in a mix."),
                types.Motion.Input("motion_d", optional=True, tooltip="Fourth motion; not in a mix."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Mask batch that varies the mix over time, spread over its length: white = full share, "
                    "black = only motion_a.",
                ),
                io.Combo.Input(
                    "transition",
                    options=["carry on", "crossfade"],
                    default="carry on",
                    optional=True,
                    tooltip="carry on: each motion starts where the one before was going; lengths add up, so lips stay "
                    "on their sound. crossfade: the motions overlap, at most by half of the shorter one, and the "
                    "result is that much shorter. Ignored in a mix.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For Render, or further editing.")],
            **RESENT,
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        motion_a: Motion,
        motion_b: Motion,
        mode: str,
        crossfade: float,
        share: float,
        motion_c: Motion | None = None,
        motion_d: Motion | None = None,
        mask: Tensor | None = None,
        transition: str = "carry on",
    ) -> io.NodeOutput:
        others = [motion for motion in (motion_c, motion_d) if motion is not None]
        if mode != "mix":
            return with_preview(editing.join([motion_a, motion_b, *others], crossfade, transition == "crossfade"))
        if others:
            raise InputError(
                "A mix takes motion_a and motion_b only: disconnect motion_c and motion_d, or use two nodes."
            )
        if mask is None:
            return with_preview(editing.mix(motion_a, motion_b, share))
        curve = mask.flatten(1).mean(1).cpu()
        return with_preview(editing.mix(motion_a, motion_b, share * curve))


NODES = [SaveMotion, LoadMotion, EditMotion, JoinMotion]
