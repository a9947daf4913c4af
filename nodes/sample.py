"""Sampling nodes: speech to motion, and silence to idle motion."""

import math
from dataclasses import replace

import torch
from comfy_api.latest import io

from ..imtalker import AudioFeatures, Control, Motion, Source
from ..imtalker.idle import IDLE_SECONDS, idle, idle_frames
from ..imtalker.models.generator import StreamedFeatures
from . import host, types
from .schema import schema


def sampling_inputs() -> list:
    """The widgets of both Sample Motion and Talking Head."""
    return [
        seed_input("A different seed gives a different take of the same speech; the same seed repeats it."),
        io.Int.Input(
            "steps",
            default=10,
            min=2,
            max=100,
            tooltip="Time points of the sampler (the published nfe): 10 means 9 Euler steps. More is slower with "
            "little gain.",
        ),
        io.Float.Input(
            "cfg",
            default=0.0,
            min=0.0,
            max=20.0,
            step=0.1,
            tooltip="How strongly the motion follows the speech. 0: the model's default (v1 3.0, v2 2.0); 1: no "
            "guidance, twice as fast.",
        ),
    ]


def seed_input(tooltip: str, default: int = 0) -> io.Int.Input:
    return io.Int.Input(
        "seed", default=default, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip
    )


class SampleMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerSampleMotion",
            display_name="IMTalker Sample Motion",
            category="IMTalker/motion",
            description="Generates the motion of a talking head from speech, 2 seconds at a time.",
            inputs=[
                types.Generator.Input("generator", tooltip="From Load IMTalker Generator."),
                types.Source.Input("source", tooltip="The portrait; its pose and expression guide the motion."),
                types.AudioFeatures.Input(
                    "audio_features", tooltip="From Encode Audio; sets the length of the motion."
                ),
                *sampling_inputs(),
                io.Combo.Input(
                    "control_end",
                    options=["hold", "zero"],
                    tooltip="What follows a control that is shorter than the speech. hold: its last value; zero: "
                    "zeros, as in the published code.",
                ),
                types.Control.Input(
                    "control",
                    optional=True,
                    tooltip="Head pose, camera and gaze to follow; without it the model decides.",
                ),
                io.Combo.Input(
                    "joins",
                    options=["smooth", "published"],
                    default="smooth",
                    optional=True,
                    tooltip="smooth: no jump every 2 seconds, where the model starts anew, and the clip begins in the "
                    "portrait's own pose. published: as the published code samples.",
                ),
            ],
            outputs=[
                types.Motion.Output(display_name="motion", tooltip="25 latents a second, for Render and Render Video.")
            ],
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
        joins: str = "smooth",
    ) -> io.NodeOutput:
        progress = host.Progress(window_count(generator, len(audio_features)))
        settings = {"control": control, "padding": control_end, "joins": joins}
        motion = sample_motion(generator, source, audio_features, seed, steps, cfg, progress, **settings)
        return io.NodeOutput(motion)


def window_count(generator: host.Handle, frames: int) -> int:
    """Windows that the generator samples for so many frames of motion."""
    return math.ceil(frames / generator.model.config.window)


def sample_motion(
    generator: host.Handle,
    source: Source,
    audio_features: AudioFeatures | StreamedFeatures,
    seed: int,
    steps: int,
    cfg: float,
    progress: host.Progress,
    **settings,
) -> Motion:
    """Samples the motion; each window is one step of progress."""
    model = host.on_device(generator)
    latents = []
    for block in model.stream(audio_features, source, cfg=cfg or None, nfe=steps, seed=seed, **settings):
        latents.append(block.latents)
        progress.step()
    return replace(block, latents=torch.cat(latents))


class IdleMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        low, high = IDLE_SECONDS
        return schema(
            node_id="IMTalkerIdleMotion",
            display_name="IMTalker Idle Motion",
            category="IMTalker/motion",
            description="Keeps a portrait alive while nobody speaks: motion generated from silence, with a gentle sway "
            "of the head.",
            inputs=[
                types.Generator.Input("generator", tooltip="From Load IMTalker Generator."),
                types.Source.Input("source", tooltip="The portrait; its pose and expression guide the motion."),
                io.Float.Input(
                    "seconds", default=4.0, min=low, max=high, step=0.1, tooltip="Length of the motion in seconds."
                ),
                io.Float.Input(
                    "sway",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Size of a gentle sway, with the head facing the camera. 0: the model decides the pose; 1: "
                    "about 3 degrees, less in clips under 7 s.",
                ),
                io.Boolean.Input(
                    "loop",
                    default=True,
                    tooltip="Makes the last frame lead back to the first, for endless playback. Keeps the length.",
                ),
                seed_input("A different seed gives a different motion; the same seed repeats it."),
                types.Control.Input(
                    "control",
                    optional=True,
                    tooltip="Head pose, camera and gaze to follow; its head pose overrides sway.",
                ),
            ],
            outputs=[
                types.Motion.Output(
                    display_name="motion", tooltip="25 latents a second, for Join Motion and Render Video."
                )
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
        progress = host.Progress(window_count(generator, idle_frames(seconds, loop)))
        model = host.on_device(generator, host.audio_memory(generator.model, seconds))
        return io.NodeOutput(idle(model, source, seconds, sway, loop, seed, control, progress.step))


NODES = [SampleMotion, IdleMotion]
