"""Speech to motion, and silence."""

import math
from dataclasses import replace

import torch
from comfy_api.latest import io

from ..imtalker import AudioFeatures, Control, Motion, Source
from ..imtalker.models.generator import Listening
from ..imtalker.motion import editing
from . import host, types


def sampling_inputs() -> list:
    """The widgets that Sample Motion and Talking Head share."""
    return [
        seed_input("Another seed gives another motion for the same speech; the same one repeats it."),
        io.Int.Input(
            "steps",
            default=10,
            min=2,
            max=100,
            tooltip="Points in time, the published nfe: 10 means 9 Euler steps. More is slower and hardly better.",
        ),
        io.Float.Input(
            "cfg",
            default=0.0,
            min=0.0,
            max=20.0,
            step=0.1,
            tooltip="How strongly the motion follows the speech. 0: the weights' own (v1 3.0, v2 2.0); 1: no guidance, "
            "twice as fast.",
        ),
    ]


def seed_input(tooltip: str, default: int = 0) -> io.Int.Input:
    return io.Int.Input(
        "seed", default=default, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip
    )


class SampleMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerSampleMotion",
            display_name="IMTalker Sample Motion",
            category="IMTalker/motion",
            description="Samples the motion of a talking head from speech, 2 seconds at a time.",
            inputs=[
                types.Generator.Input("generator", tooltip="From Load IMTalker Generator."),
                types.Source.Input("source", tooltip="The motion starts from this portrait's pose."),
                types.AudioFeatures.Input("audio_features", tooltip="Speech; one frame of motion for each of its own."),
                *sampling_inputs(),
                io.Combo.Input(
                    "control_end",
                    options=["hold", "zero"],
                    tooltip="What follows a control that is shorter than the speech. hold: its last value; zero: "
                    "zeros, as published.",
                ),
                types.Control.Input(
                    "control", optional=True, tooltip="Head pose, camera and gaze to follow; without it they are free."
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="25 latents a second, for Render.")],
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        generator: host.Handle,
        source: Source,
        audio_features: AudioFeatures,
        seed: int,
        steps: int,
        cfg: float,
        control_end: str,
        control: Control | None = None,
    ) -> io.NodeOutput:
        progress = host.Progress(windows(generator, len(audio_features)))
        motion = sample_motion(
            generator, source, audio_features, seed, steps, cfg, progress, control=control, padding=control_end
        )
        return io.NodeOutput(motion)


def windows(generator: host.Handle, frames: int) -> int:
    return math.ceil(frames / generator.model.config.window)


def sample_motion(
    generator: host.Handle,
    source: Source,
    audio_features: AudioFeatures | Listening,
    seed: int,
    steps: int,
    cfg: float,
    progress: host.Progress,
    **control,
) -> Motion:
    """One step of progress for each window."""
    model = host.on_device(generator)
    latents = []
    for block in model.stream(audio_features, source, cfg=cfg or None, nfe=steps, seed=seed, **control):
        latents.append(block.latents)
        progress.step()
    return replace(block, latents=torch.cat(latents))


class IdleMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        low, high = editing.IDLE_SECONDS
        return io.Schema(
            node_id="IMTalkerIdleMotion",
            display_name="IMTalker Idle Motion",
            category="IMTalker/motion",
            description="Makes a portrait alive while nobody speaks: what the generator makes of silence, with a "
            "gentle sway of the head.",
            inputs=[
                types.Generator.Input("generator", tooltip="From Load IMTalker Generator."),
                types.Source.Input("source", tooltip="The motion starts from this portrait's pose."),
                io.Float.Input(
                    "seconds", default=4.0, min=low, max=high, step=0.1, tooltip="Length of the motion in seconds."
                ),
                io.Float.Input(
                    "sway",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far the head sways about facing the camera. 0: its pose is left to the model; 1: "
                    "about 3 degrees, less where seconds is below 7.",
                ),
                io.Boolean.Input(
                    "loop",
                    default=True,
                    tooltip="Makes the last frame lead back to the first, for endless playing; it lasts as long.",
                ),
                seed_input("Another seed gives another motion; the same one repeats it."),
                types.Control.Input(
                    "control",
                    optional=True,
                    tooltip="Head pose, camera and gaze to follow; a head pose wins over sway.",
                ),
            ],
            outputs=[
                types.Motion.Output(display_name="motion", tooltip="25 latents a second, for Render and Join Motion.")
            ],
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        generator: host.Handle,
        source: Source,
        seconds: float,
        sway: float,
        loop: bool,
        seed: int,
        control: Control | None = None,
    ) -> io.NodeOutput:
        progress = host.Progress(windows(generator, editing.idle_frames(seconds, loop)))
        model = host.on_device(generator, host.audio_memory(generator.model, seconds))
        return io.NodeOutput(editing.idle(model, source, seconds, sway, loop, seed, control, progress.step))


NODES = [SampleMotion, IdleMotion]
