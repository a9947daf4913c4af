"""Motion kept in files, edited and joined."""

import torch
from comfy_api.latest import io
from torch import Tensor

from ..imtalker import InputError, Motion, Source
from ..imtalker.motion import editing
from . import folders, host, types
from .keyframes import SHOWN_AGAIN

SUFFIX = ".safetensors"
NO_FILE = "none yet"  # of an empty list the page would make "undefined"
CURVES, POINTS = 3, 240


def shown(motion: Motion) -> io.NodeOutput:
    """With the curves of its strongest movements, for the picture in the node."""
    return io.NodeOutput(motion, ui={"imtalker_motion": [curves(motion)]})


def curves(motion: Motion) -> dict:
    """Its principal components over time, strongest first, as -100..100 of the largest value in any of them."""
    moved = motion.latents.double().cpu()
    moved = moved - moved.mean(0)
    directions = torch.linalg.eigh(moved.T @ moved).eigenvectors.flip(1)[:, :CURVES]
    some = torch.linspace(0, len(moved) - 1, min(len(moved), POINTS)).round().long()
    values = moved[some] @ directions
    values = 100 * values / values.abs().max().clamp_min(1e-9)
    return {"frames": len(motion), "seconds": motion.seconds, "curves": values.round().int().T.tolist()}


class SaveMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerSaveMotion",
            display_name="IMTalker Save Motion",
            category="IMTalker/motion",
            description="Writes a motion into the output folder, for Load Motion and other portraits.",
            inputs=[
                types.Motion.Input("motion", tooltip="From Sample Motion, Encode Motion or an edit."),
                io.String.Input(
                    "filename_prefix",
                    default="imtalker/motion",
                    tooltip="Folder and beginning of the name below output/; a number and .safetensors follow.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="The same motion, to go on with.")],
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
        return io.Schema(
            node_id="IMTalkerLoadMotion",
            display_name="IMTalker Load Motion",
            category="IMTalker/motion",
            description="Reads a motion that Save Motion wrote, from the input or the output folder.",
            inputs=[
                io.Combo.Input(
                    "motion_file",
                    options=folders.media_files((SUFFIX,), outputs=True) or [NO_FILE],
                    tooltip="A .safetensors file below input/, or below output/ (marked so). It fits renderers of the "
                    "generation (v1 or v2) it was made with. R refreshes the list.",
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
        return io.Schema(
            node_id="IMTalkerEditMotion",
            display_name="IMTalker Edit Motion",
            category="IMTalker/motion",
            description="Changes a motion, in this order: start and end, reverse, speed, strength, smoothing, fps, "
            "loop. As it comes it changes nothing.",
            inputs=[
                types.Motion.Input("motion", tooltip="From Sample Motion, Encode Motion or a file."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Size of the movements. 0: stands still; 1: unchanged; 2: twice as large, which may "
                    "distort the face.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Takes quick movements out. 0: none; up to 0.5: jitter only, lips are spared; 1: all but "
                    "the slow sway of the head (what is quicker than 12 - 11 x this, in Hz, goes).",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=36000.0,
                    step=0.01,
                    tooltip="Seconds to cut off at the beginning.",
                ),
                io.Float.Input(
                    "end",
                    default=0.0,
                    min=0.0,
                    max=36000.0,
                    step=0.01,
                    tooltip="Second at which the part to keep ends, counted from the motion's beginning. 0: its end.",
                ),
                io.Float.Input(
                    "speed",
                    default=1.0,
                    min=0.1,
                    max=4.0,
                    step=0.05,
                    tooltip="2 is twice as fast and half as long, 0.5 half as fast; the frame rate stays. Sound does "
                    "not follow.",
                ),
                io.Boolean.Input("reverse", default=False, tooltip="Plays it backwards."),
                io.Boolean.Input(
                    "loop",
                    default=False,
                    tooltip="Makes the last frame lead back to the first, for endless playing; crossfading takes 0.2 "
                    "to 0.6 s of its length.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of the result, which lasts as long. 0: unchanged.",
                ),
                types.Source.Input(
                    "source",
                    optional=True,
                    tooltip="strength acts around this portrait's own pose and expression; without it around the "
                    "motion's mean.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For Render or a further edit.")],
            **SHOWN_AGAIN,
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
        if source is not None and source.generation != motion.generation:
            raise InputError(
                f"The source was made with {source.generation} weights and the motion with {motion.generation}: "
                "use one generation throughout."
            )
        motion = editing.trim(motion, start, end or None)
        motion = editing.reverse(motion) if reverse else motion
        motion = editing.stretch(motion, speed)
        motion = editing.strengthen(motion, strength, source and source.motion)
        motion = editing.smooth(motion, smoothing).at_fps(fps or motion.fps)
        return shown(editing.loop(motion) if loop else motion)


class JoinMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerJoinMotion",
            display_name="IMTalker Join Motion",
            category="IMTalker/motion",
            description="Puts motions one after the other, or mixes two. The result has the frame rate of the first; "
            "all must be of one generation (v1 or v2).",
            inputs=[
                types.Motion.Input("motion_a", tooltip="The first; sets the frame rate, and the length of a mix."),
                types.Motion.Input("motion_b", tooltip="The second; in a mix it is cut or held at its last frame."),
                io.Combo.Input(
                    "mode",
                    options=["one after the other", "mix"],
                    tooltip="one after the other: a, b, c, d in time. mix: a and b at once.",
                ),
                io.Float.Input(
                    "crossfade",
                    default=0.4,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Seconds over which one goes over into the next, taken from the length; at most half of "
                    "the shorter. 0: a cut. Not used in a mix.",
                ),
                io.Float.Input(
                    "share",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of b is in a mix. 0: only a; 1: only b. Not used one after the other.",
                ),
                types.Motion.Input("motion_c", optional=True, tooltip="The third, one after the other only."),
                types.Motion.Input("motion_d", optional=True, tooltip="The fourth, one after the other only."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="How the share of b changes along a mix: a MASK batch, one picture a moment, spread over "
                    "the length; white is the share above, black none of b.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For Render or a further edit.")],
            **SHOWN_AGAIN,
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
    ) -> io.NodeOutput:
        others = [motion for motion in (motion_c, motion_d) if motion is not None]
        if mode != "mix":
            return shown(editing.join([motion_a, motion_b, *others], crossfade))
        if others:
            raise InputError("A mix takes motion_a and motion_b only: disconnect the others, or mix in two nodes.")
        if mask is None:
            return shown(editing.mix(motion_a, motion_b, share))
        curve = mask.reshape(len(mask), -1).mean(1).clamp(0, 1).cpu()
        return shown(editing.mix(motion_a, motion_b, share * curve))


NODES = [SaveMotion, LoadMotion, EditMotion, JoinMotion]
