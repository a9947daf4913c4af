"""Rig nodes: names for the directions of a motion space."""

from comfy_api.latest import io

from ..imtalker import InputError, Motion, Rig
from ..imtalker import readings as reading
from ..imtalker.rigging import check_rig, rig_of
from ..imtalker.tracking import GAZE_ORDERS
from ..imtalker.weights.checkpoints import AVATAR
from . import folders, host, tracking, types
from .control import NONE, chosen
from .doors.clips import Clip, clip_of_pictures
from .doors.pictures import Pictures
from .schema import schema

FROM_MODELS = "from the models"
BUILT_IN = [FROM_MODELS, AVATAR.name]


def outputs() -> list[io.Output]:
    return [
        types.Rig.Output(display_name="rig", tooltip="For Expression, Combine Parts, Silence Gate and Dub."),
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


class LearnRig(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerLearnRig",
            display_name="IMTalker Learn Rig",
            category="IMTalker/motion",
            description="Learns a rig from a clip of one person, 8 s or more, in which the face does all it should "
            "know: its motion, and landmarks or SMIRK and L2CS-Net readings of the same frames. Saves it in "
            "models/imtalker/rigs, for all portraits with the same weights.",
            inputs=[
                types.Motion.Input("motion", tooltip="From Encode Motion, of every frame of the clip."),
                io.String.Input(
                    "filename_prefix",
                    default="rig",
                    tooltip="Start of the file name in models/imtalker/rigs; a number and .safetensors are added.",
                ),
                types.FileInput(
                    "smirk",
                    options=[NONE, *folders.model_files()],
                    tooltip="SMIRK weights in models/imtalker, as published by its authors (SMIRK_em1.pt): reads the "
                    "head, and jaw, eyelids and expression. none: what landmarks give.",
                ),
                types.FileInput(
                    "gaze",
                    options=[NONE, *folders.model_files()],
                    tooltip="L2CS-Net weights in models/imtalker, as published by its authors "
                    "(L2CSNet_gaze360.pkl): reads eye direction. none: what landmarks give.",
                ),
                io.Combo.Input(
                    "gaze_order",
                    options=list(GAZE_ORDERS),
                    tooltip="Order of the two gaze angles. as published: as L2CS-Net outputs them; swapped: for "
                    "weights with which looking up moves the eyes sideways.",
                ),
                types.FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="From ComfyUI's Detect Face Landmarks (newer versions), for the same frames: head, gaze, "
                    "eyelids, brows, mouth and smile.",
                ),
                io.Image.Input("images", optional=True, tooltip="The same frames, for SMIRK and L2CS-Net."),
                io.Video.Input("video", optional=True, tooltip="The same clip, for SMIRK and L2CS-Net."),
            ],
            outputs=outputs(),
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, smirk: str = NONE, gaze: str = NONE) -> bool | str:
        return tracking.check_trackers(smirk, gaze)

    @classmethod
    def fingerprint_inputs(cls, smirk: str = NONE, gaze: str = NONE, **_) -> list[tuple]:
        return [folders.fingerprint(folders.local_path(name, "")) for name in filter(None, chosen(smirk, gaze))]

    @classmethod
    @host.answer
    def execute(
        cls,
        motion: Motion,
        filename_prefix: str,
        smirk: str,
        gaze: str,
        gaze_order: str,
        landmarks: dict | None = None,
        images: Pictures | None = None,
        video: Clip | None = None,
    ) -> io.NodeOutput:
        if images is not None and video is not None:
            raise InputError("Learn Rig reads one of the two: connect either images or video, not both.")
        clip = video if images is None else clip_of_pictures(images, motion.fps)
        nets = tracking.networks(smirk, gaze, expressions=True)
        if nets and clip is None:
            raise InputError("SMIRK and L2CS-Net need frames: connect images or video to Learn Rig.")
        if not nets and landmarks is None:
            raise InputError(
                "Learn Rig has nothing to read with: connect landmarks, or choose a file for smirk or gaze. Load Rig "
                "makes one from the models alone."
            )
        found = None if landmarks is None else reading.from_landmarks(landmarks)
        if nets:
            said = reading.from_networks(*tracking.read(clip, nets, landmarks, gaze_order))
            found = said if found is None else reading.joined(found, said)
        rig = reading.learn_rig(motion, found)
        path = folders.new_rig(filename_prefix)
        rig.save(path)
        return io.NodeOutput(rig, rig.describe())


NODES = [LoadRig, LearnRig]
