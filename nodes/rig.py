"""Rig nodes: names for the directions of a motion space."""

from comfy_api.latest import io

from ..imtalker import InputError, Rig
from ..imtalker.rigging import check_rig, rig_of
from ..imtalker.weights.checkpoints import AVATAR
from . import folders, host, types
from .schema import schema

FROM_MODELS = "from the models"
BUILT_IN = [FROM_MODELS, AVATAR.name]


def outputs() -> list[io.Output]:
    return [
        types.Rig.Output(display_name="rig", tooltip="For Expression, Combine Parts and Dub."),
        io.String.Output(
            display_name="channels",
            tooltip="What the rig knows, a line for each channel: name, part, range and how well it is read (score up "
            "to 1). Connect a node that shows text, such as Preview Any.",
        ),
    ]


class LoadRig(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerLoadRig",
            display_name="Load IMTalker Rig",
            category="IMTalker/load",
            description="Loads a rig: named channels of a face, such as yaw, blink or smile, for one set of weights. "
            "It can be made from the generator alone.",
            inputs=[
                types.FileInput(
                    "rig_file",
                    options=[*BUILT_IN, *folders.rig_files()],
                    tooltip="from the models: asks the connected generator which way mouth, head and eyes move. Takes "
                    "seconds on a GPU and minutes on a CPU, once; the rig is kept in models/imtalker/rigs. avatar: the "
                    "exact rig of the included avatar. A file: saved by Learn Rig in models/imtalker/rigs.",
                ),
                types.Generator.Input(
                    "generator",
                    optional=True,
                    tooltip="Needed for a rig from the models. With a file, checks that the rig is for these weights.",
                ),
            ],
            outputs=outputs(),
        )

    @classmethod
    def validate_inputs(cls, rig_file: str | None = None) -> bool | str:
        return folders.check_rig(rig_file, BUILT_IN)

    @classmethod
    def fingerprint_inputs(cls, rig_file: str | None = None, **_) -> tuple:
        return folders.rig_fingerprint(rig_file) if rig_file not in BUILT_IN else (rig_file,)

    @classmethod
    @host.answer
    def execute(cls, rig_file: str, generator: host.Handle | None = None) -> io.NodeOutput:
        if rig_file == FROM_MODELS:
            if generator is None:
                raise InputError("A rig from the models needs a generator: connect Load IMTalker Generator.")
            rig = own_rig(generator)
        else:
            rig = Rig.load(AVATAR / "rig.safetensors" if rig_file == AVATAR.name else folders.rig_path(rig_file))
            if generator is not None:
                check_rig(rig, generator.model)
        return io.NodeOutput(rig, rig.describe())


def own_rig(generator: host.Handle) -> Rig:
    """The rig of a generator's own weights, made and kept if there is none yet."""
    progress, model = host.Progress(100), host.on_device(generator)
    rig, _ = rig_of(model, folders.rigs_folder(), lambda share: progress.step(100 * share - progress.done))
    return rig


NODES = [LoadRig]
