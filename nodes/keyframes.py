"""Keyframe nodes: head pose and gaze drawn in the node, and two controls mixed."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from comfy_api.latest import io

from ..imtalker import Control
from ..imtalker.media.audio import Audio
from ..imtalker.motion.control import blend, merge
from ..imtalker.motion.keyframes import GAZE, POSE, VERSION, Channel, to_control
from ..imtalker.motion.presets import GAZE_PRESETS, POSE_PRESETS, Preset
from . import host, types
from .schema import schema

EMPTY = f'{{"version": {VERSION}, "channels": {{}}}}'
PEAKS_PER_SECOND, MAX_PEAKS = 40, 2000
# newer ComfyUI resends the node's output to the page if the node itself need not run again
RESENT = {"has_intermediate_output": True} if hasattr(io.Schema, "has_intermediate_output") else {}


def editor_input(channels: Mapping[str, Channel], presets: Mapping[str, Preset]) -> io.String.Input:
    """The widget that an editor writes to; it also hands the editor the channels and presets."""
    widget = io.String.Input(
        "keyframes",
        default=EMPTY,
        multiline=True,
        tooltip="What the editor draws, as JSON: keyframes [seconds, value] for each channel.",
    )
    widget.extra_dict["imtalker"] = {
        "version": VERSION,
        "channels": {name: dataclasses.asdict(channel) for name, channel in channels.items()},
        "presets": {name: dataclasses.asdict(preset) for name, preset in presets.items()},
    }
    return widget


class _KeyframeNode:
    """A node with keyframes drawn by the browser's editor.

    A mixin and not itself a node: ComfyUI caches schema values on a node class, and a subclass would inherit them.
    """

    names: ClassVar[dict[str, str]]  # node_id, display_name and description
    channels: ClassVar[dict[str, Channel]]
    presets: ClassVar[dict[str, Preset]]

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            **cls.names,
            category="IMTalker/control",
            inputs=[
                editor_input(cls.channels, cls.presets),
                io.Float.Input(
                    "seconds",
                    default=0.0,
                    min=0.0,
                    max=3600.0,
                    step=0.1,
                    tooltip="Length of the control in seconds. 0: as long as the audio, or up to the last keyframe "
                    "without audio. control_end in Sample Motion decides what follows.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How strongly the motion follows. 0: not at all; 1: as trained.",
                ),
                io.Boolean.Input(
                    "allow_more",
                    default=False,
                    tooltip="Allows values beyond what the model probably saw in training; the face may distort.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The speech. Sets the length if seconds is 0; its waveform appears behind the curves, for "
                    "other nodes than Load Audio after a run.",
                ),
                types.Control.Input(
                    "control", optional=True, tooltip="Another control: fills in the parts that are not drawn here."
                ),
            ],
            outputs=[types.control_output()],
            **RESENT,
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        keyframes: str,
        seconds: float,
        strength: float,
        allow_more: bool,
        audio: Audio | None = None,
        control: Control | None = None,
    ) -> io.NodeOutput:
        seconds = seconds or (audio.seconds if audio else 0)
        drawn = to_control(keyframes, seconds, allow_more=allow_more, channels=cls.channels).with_strength(strength)
        result = drawn if control is None else merge([control, drawn])
        return io.NodeOutput(result, ui={"imtalker_waveform": [waveform(audio)]} if audio else None)


def waveform(audio: Audio) -> dict:
    """Peaks of the waveform for the editor: up to 40 a second, 0..100 of the loudest."""
    levels = audio.waveform.reshape(-1, audio.waveform.shape[-1]).abs().amax(0)
    count = min(MAX_PEAKS, max(1, round(audio.seconds * PEAKS_PER_SECOND)), len(levels))
    edges = [len(levels) * i // count for i in range(count + 1)]
    peaks = [float(levels[a:b].max()) for a, b in zip(edges, edges[1:])]
    loudest = max(peaks) or 1.0
    return {"seconds": audio.seconds, "peaks": [round(100 * peak / loudest) for peak in peaks]}


class PoseControl(_KeyframeNode, io.ComfyNode):
    names: ClassVar = {
        "node_id": "IMTalkerPoseControl",
        "display_name": "IMTalker Pose Control",
        "description": "Draw head pose over time as keyframes: yaw, pitch and roll in degrees (0 faces the camera), "
        "distance and offset of the head. Parts without keyframes are left to the model.",
    }
    channels: ClassVar = POSE
    presets: ClassVar = POSE_PRESETS


class GazeControl(_KeyframeNode, io.ComfyNode):
    names: ClassVar = {
        "node_id": "IMTalkerGazeControl",
        "display_name": "IMTalker Gaze Control",
        "description": "Draw where the eyes look over time as keyframes: horizontal and vertical in degrees; 0 looks "
        "at the camera.",
    }
    channels: ClassVar = GAZE
    presets: ClassVar = GAZE_PRESETS


class BlendControl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerBlendControl",
            display_name="IMTalker Blend Control",
            category="IMTalker/control",
            description="Mixes two controls. A part (head pose, camera or gaze) that only one of them has gets weaker "
            "with its share.",
            inputs=[
                types.Control.Input("control_a", tooltip="Used fully at share 0."),
                types.Control.Input("control_b", tooltip="Used fully at share 1."),
                io.Float.Input(
                    "share",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Amount of control_b. 0: only control_a; 1: only control_b. The shorter one holds its last "
                    "value.",
                ),
            ],
            outputs=[types.control_output()],
        )

    @classmethod
    @host.answer
    def execute(cls, control_a: Control, control_b: Control, share: float) -> io.NodeOutput:
        return io.NodeOutput(blend(control_a, control_b, share))


NODES = [PoseControl, GazeControl, BlendControl]
