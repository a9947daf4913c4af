"""Head pose and gaze drawn in the node, and two controls mixed."""

import dataclasses

from comfy_api.latest import io

from ..imtalker import Control, InputError
from ..imtalker.media.audio import Audio
from ..imtalker.motion.control import blend, merge
from ..imtalker.motion.keyframes import GAZE, GAZE_PRESETS, POSE, POSE_PRESETS, VERSION, to_control
from . import host, types

EMPTY = f'{{"version": {VERSION}, "channels": {{}}}}'
PEAKS_PER_SECOND, MOST_PEAKS = 40, 2000
# newer ComfyUI tells the page the waveform again where the node itself need not run again
SHOWN_AGAIN = {"has_intermediate_output": True} if hasattr(io.Schema, "has_intermediate_output") else {}


def drawing(channels: dict, presets: dict) -> list:
    """The inputs of a node whose keyframes are drawn; the browser's editor learns channels and presets from here."""
    keyframes = io.String.Input(
        "keyframes",
        default=EMPTY,
        multiline=True,
        socketless=True,
        tooltip="What the editor draws, as JSON: for each channel keyframes [seconds, value]; the help page shows the "
        "format.",
    )
    keyframes.extra_dict["imtalker"] = {
        "version": VERSION,
        "channels": {name: dataclasses.asdict(channel) for name, channel in channels.items()},
        "presets": {name: dataclasses.asdict(preset) for name, preset in presets.items()},
    }
    return [
        keyframes,
        io.Float.Input(
            "seconds",
            default=0.0,
            min=0.0,
            max=3600.0,
            step=0.1,
            tooltip="Length of the control in seconds. 0: that of the audio, or else up to the last keyframe; after "
            "its end Sample Motion holds the last value.",
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="How strongly the motion follows. 0: as if nothing were drawn; 1: as trained.",
        ),
        io.Boolean.Input(
            "allow_more",
            default=False,
            tooltip="Values beyond what the model probably saw in training; the picture may break.",
        ),
        io.Audio.Input(
            "audio",
            optional=True,
            tooltip="The speech: its length is the control's where seconds is 0, and its waveform shows behind the "
            "curves after a run.",
        ),
        types.Control.Input(
            "control", optional=True, tooltip="Another control: gives the parts that are not drawn here."
        ),
    ]


def drawn(
    channels: dict,
    keyframes: str,
    seconds: float,
    strength: float,
    allow_more: bool,
    audio: dict | None,
    control: Control | None,
) -> io.NodeOutput:
    sound = None if audio is None else types.sound(audio)
    if sound and not (sound.waveform.numel() and sound.waveform.isfinite().all()):
        raise InputError("The audio is empty or contains NaN: load it again or repair the node that made it.")
    seconds = seconds or (sound.seconds if sound else 0)
    own = to_control(keyframes, seconds, allow_more=allow_more, channels=channels).with_strength(strength)
    result = own if control is None else merge([control, own])
    return io.NodeOutput(result, ui={"imtalker_waveform": [peaks(sound)]} if sound else None)


def peaks(sound: Audio) -> dict:
    """The loudest moment of each of many short times, 0..100, for the picture behind the curves."""
    loud = sound.waveform.reshape(-1, sound.waveform.shape[-1]).abs().amax(0)
    count = min(MOST_PEAKS, max(1, round(sound.seconds * PEAKS_PER_SECOND)), len(loud))
    edges = [len(loud) * i // count for i in range(count + 1)]
    heights = [float(loud[a:b].max()) for a, b in zip(edges, edges[1:])]
    most = max(heights) or 1.0
    return {"seconds": sound.seconds, "peaks": [round(100 * height / most) for height in heights]}


class PoseControl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerPoseControl",
            display_name="IMTalker Pose Control",
            category="IMTalker/control",
            description="Head pose over time, drawn as keyframes: yaw, pitch and roll in degrees (zero faces the "
            "camera), distance and offset of the head. What has no keyframes is left to the model.",
            inputs=drawing(POSE, POSE_PRESETS),
            outputs=[types.Control.Output(display_name="control", tooltip="For Sample Motion, or a further control.")],
            **SHOWN_AGAIN,
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        keyframes: str,
        seconds: float,
        strength: float,
        allow_more: bool,
        audio: dict | None = None,
        control: Control | None = None,
    ) -> io.NodeOutput:
        return drawn(POSE, keyframes, seconds, strength, allow_more, audio, control)


class GazeControl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerGazeControl",
            display_name="IMTalker Gaze Control",
            category="IMTalker/control",
            description="Direction of the eyes over time, drawn as keyframes: horizontal and vertical in degrees; zero "
            "looks at the camera.",
            inputs=drawing(GAZE, GAZE_PRESETS),
            outputs=[types.Control.Output(display_name="control", tooltip="For Sample Motion, or a further control.")],
            **SHOWN_AGAIN,
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        keyframes: str,
        seconds: float,
        strength: float,
        allow_more: bool,
        audio: dict | None = None,
        control: Control | None = None,
    ) -> io.NodeOutput:
        return drawn(GAZE, keyframes, seconds, strength, allow_more, audio, control)


class BlendControl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerBlendControl",
            display_name="IMTalker Blend Control",
            category="IMTalker/control",
            description="Mixes two controls. A part (head pose, camera, gaze) that only one of them has fades with its "
            "share.",
            inputs=[
                types.Control.Input("control_a", tooltip="All of it at share 0."),
                types.Control.Input("control_b", tooltip="All of it at share 1."),
                io.Float.Input(
                    "share",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of b. 0: only a; 1: only b. The shorter one holds its last value.",
                ),
            ],
            outputs=[types.Control.Output(display_name="control", tooltip="For Sample Motion, or a further control.")],
        )

    @classmethod
    @host.answer
    def execute(cls, control_a: Control, control_b: Control, share: float) -> io.NodeOutput:
        return io.NodeOutput(blend(control_a, control_b, share))


NODES = [PoseControl, GazeControl, BlendControl]
