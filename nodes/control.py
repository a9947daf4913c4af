"""Control node: head pose, camera and gaze from files."""

from pathlib import Path

from comfy_api.latest import io

from ..imtalker import Control, InputError
from ..imtalker.motion.control import load_gaze, load_pose, merge
from ..imtalker.tracking import GAZE_ORDERS
from . import folders, host, types
from .schema import schema

NONE = "none"


class LoadControl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerLoadControl",
            display_name="IMTalker Load Control",
            category="IMTalker/control",
            description="Loads head pose, camera and gaze from files in the input folder, to steer Sample Motion.",
            inputs=[
                types.FileInput(
                    "pose",
                    options=[NONE, *folders.media_files((".pt", ".pth", ".safetensors"))],
                    tooltip="Head pose (radians) and camera: a SMIRK .pt file as published with IMTalker, or an "
                    "IMTalker .safetensors file, which may also contain gaze. none: left to the model.",
                ),
                types.FileInput(
                    "gaze",
                    options=[NONE, *folders.media_files((".npy",))],
                    tooltip="Eye direction: an L2CS-Net .npy file with two angles in radians per frame. none: left to "
                    "the model.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frame rate of .pt and .npy files; a .safetensors file stores its own.",
                ),
                io.Combo.Input(
                    "gaze_order",
                    options=list(GAZE_ORDERS),
                    tooltip="Order of the two angles in the .npy file. as published: as in IMTalker's own files; "
                    "swapped: for files in which looking up moves the eyes sideways.",
                ),
                types.Control.Input(
                    "control", optional=True, tooltip="Another control: fills in the parts these files do not contain."
                ),
            ],
            outputs=[types.control_output()],
        )

    @classmethod
    def validate_inputs(cls, pose: str = NONE, gaze: str = NONE) -> bool | str:
        return folders.check_media(*chosen(pose, gaze))

    @classmethod
    def fingerprint_inputs(cls, pose: str = NONE, gaze: str = NONE, **_) -> tuple:
        return folders.media_fingerprint(*chosen(pose, gaze))

    @classmethod
    @host.answer
    def execute(
        cls, pose: str, gaze: str, fps: float, gaze_order: str, control: Control | None = None
    ) -> io.NodeOutput:
        given = [] if control is None else [control]
        if pose != NONE:
            path = Path(folders.media_path(pose))
            given.append(Control.load(path) if path.suffix == ".safetensors" else Control(**load_pose(path), fps=fps))
        if gaze != NONE:
            rows = load_gaze(folders.media_path(gaze))
            given.append(Control(gaze=rows.flip(-1) if gaze_order == "swapped" else rows, fps=fps))
        if not given:
            raise InputError("Load Control has nothing to load: choose a file for pose or gaze, or connect a control.")
        return io.NodeOutput(merge(given))


def chosen(*names: str | None) -> list[str | None]:
    """The names without "none"; a linked input (None) stays."""
    return [name for name in names if name != NONE]


NODES = [LoadControl]
