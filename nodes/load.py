"""Loader nodes: weight files to models."""

from functools import partial

from comfy_api.latest import io

from .. import imtalker
from ..imtalker import InputError
from ..imtalker.weights.checkpoints import AVATAR
from . import folders, host, types
from .schema import schema

PRECISION_TOOLTIP = (
    "Precision of weights and computation. auto: {auto}; ComfyUI's own flags (--force-fp16, --force-fp32, --bf16-unet) "
    "override it. fp16 and bf16 halve the memory."
)


class LoadRenderer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerLoadRenderer",
            display_name="Load IMTalker Renderer",
            category="IMTalker/load",
            description="Loads the model that turns a portrait and a motion into frames.",
            inputs=[
                types.FileInput(
                    "model",
                    options=[*folders.BUILT_IN, *folders.model_files("renderer")],
                    tooltip="Weights in models/imtalker. published: downloads 2.1 GB on first use. avatar: a tiny "
                    "model that ships with the pack, for drawn heads only. v1 or v2 is detected from the file.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", *host.PRECISIONS],
                    tooltip=PRECISION_TOOLTIP.format(auto="fp16 on GPUs where it is fast, otherwise fp32"),
                ),
            ],
            outputs=[
                types.Renderer.Output(display_name="renderer", tooltip="For Encode Source, Encode Motion and Render.")
            ],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        return folders.check_choice(model)

    @classmethod
    def fingerprint_inputs(cls, model: str, precision: str) -> tuple:
        return folders.fingerprint(folders.local_path(model, "renderer.ckpt"))

    @classmethod
    @host.answer
    def execute(cls, model: str, precision: str) -> io.NodeOutput:
        check_partner(model, cls.hidden.prompt, "IMTalkerLoadGenerator")
        path = folders.weights_path(model, "renderer.ckpt")
        return io.NodeOutput(host.load(partial(imtalker.load_renderer, path, final=True), precision, half=True))


class LoadGenerator(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerLoadGenerator",
            display_name="Load IMTalker Generator",
            category="IMTalker/load",
            description="Loads the model that turns speech into motion.",
            inputs=[
                types.FileInput(
                    "model",
                    options=[*folders.BUILT_IN, *folders.model_files("generator")],
                    tooltip="Weights in models/imtalker. published: downloads 0.6 GB on first use. avatar: ships with "
                    "the pack. Must match the renderer: the same generation (v1 or v2), and avatar only with avatar.",
                ),
                types.FileInput(
                    "wav2vec2",
                    options=["auto", *folders.wav2vec2_files()],
                    tooltip="Audio encoder, used only if the model file contains none (the published file has one). "
                    "auto: the first wav2vec2 folder or file in models/imtalker.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", *host.PRECISIONS],
                    tooltip=PRECISION_TOOLTIP.format(auto="fp32, as the model is small and results stay reproducible"),
                ),
            ],
            outputs=[types.Generator.Output(display_name="generator", tooltip="For Encode Audio and Sample Motion.")],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        return folders.check_choice(model)

    @classmethod
    def fingerprint_inputs(cls, model: str, wav2vec2: str, precision: str) -> tuple:
        return folders.fingerprint(folders.local_path(model, "generator.ckpt"))

    @classmethod
    @host.answer
    def execute(cls, model: str, wav2vec2: str, precision: str) -> io.NodeOutput:
        check_partner(model, cls.hidden.prompt, "IMTalkerLoadRenderer")
        path = folders.weights_path(model, "generator.ckpt")
        build = partial(imtalker.load_generator, path, folders.wav2vec2_path(wav2vec2), final=True)
        return io.NodeOutput(host.load(build, precision, half=False))


def check_partner(model: str, prompt: dict | None, partner: str) -> None:
    """InputError: published weights, which may have to be downloaded, in a graph whose other models are all avatars."""
    loaders = [node for node in (prompt or {}).values() if node.get("class_type") == partner]
    if model != folders.PUBLISHED or not loaders:
        return
    if all(node["inputs"].get("model") == AVATAR.name for node in loaders):
        raise InputError(
            "The renderer and the generator do not belong together, one is the avatar and the other published: set "
            "model to the same choice in both loaders."
        )


NODES = [LoadRenderer, LoadGenerator]
