"""Tracking node: head pose, camera and gaze of a person in a video, as a control."""

import torch
from comfy_api.latest import io
from torch import Tensor, nn

from ..imtalker import Control, InputError
from ..imtalker.face.crop import Box
from ..imtalker.motion.control import merge
from ..imtalker.tracking import (
    BATCH_SIZE,
    GAZE_ORDERS,
    L2CS_SIDE,
    control_from_landmarks,
    face_boxes,
    held,
    landmark_boxes,
    read_faces,
)
from ..imtalker.weights.checkpoints import load_expressions, load_l2cs, load_smirk
from . import folders, host, types
from .control import NONE, chosen
from .doors.clips import Clip, clip_of_pictures
from .doors.pictures import Pictures
from .face import advising
from .schema import schema

# where the authors publish their weights, by the input that takes them
PUBLISHED = {
    "smirk": ("SMIRK_em1.pt", "https://drive.google.com/file/d/1T65uEd9dVLHgVw5KiUYL66NUee-MCzoE"),
    "gaze": ("L2CSNet_gaze360.pkl", "https://drive.google.com/drive/folders/17p6ORr-JQJcw-eYtG2WGNiuS_qVKwdWd"),
}

# bytes for a batch in L2CS-Net, the larger of the two: six float32 maps of 64 channels at half resolution
WORKING_MEMORY = BATCH_SIZE * 6 * 64 * (L2CS_SIDE // 2) ** 2 * 4


class ControlFromVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerControlFromVideo",
            display_name="IMTalker Control From Video",
            category="IMTalker/control",
            description="Reads head pose, camera and gaze from a person in a video or images, to steer Sample Motion. "
            "Uses networks whose weights you add yourself (SMIRK for pose and camera, L2CS-Net for gaze), or landmarks "
            "from ComfyUI's face nodes. While the face is hidden, the last values are held.",
            inputs=[
                types.FileInput(
                    "smirk",
                    options=[NONE, *folders.model_files()],
                    tooltip="SMIRK weights in models/imtalker: reads head pose and camera. none: taken from landmarks "
                    "(pose only) or control. Its authors publish {} at {}".format(*PUBLISHED["smirk"]),
                ),
                types.FileInput(
                    "gaze",
                    options=[NONE, *folders.model_files()],
                    tooltip="L2CS-Net weights in models/imtalker: reads eye direction. none: taken from landmarks or "
                    "control. Its authors publish {} at {}".format(*PUBLISHED["gaze"]),
                ),
                io.Combo.Input(
                    "gaze_order",
                    options=list(GAZE_ORDERS),
                    tooltip="Order of the two gaze angles. as published: as L2CS-Net outputs them; swapped: for "
                    "weights with which looking up moves the eyes sideways.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frame rate of images, or of landmarks on their own; a video has its own.",
                ),
                io.Image.Input(
                    "images", optional=True, tooltip="Frames of the person, in order. Connect these or video."
                ),
                io.Video.Input(
                    "video", optional=True, tooltip="Video of the person, streamed from disk. Connect this or images."
                ),
                types.FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="From ComfyUI's Detect Face Landmarks (newer versions), for the same frames. Locates the "
                    "face and gives its pose and a gaze estimate; SMIRK and L2CS-Net take precedence for what they "
                    "read. Without landmarks, the largest face is detected and followed; the first time this "
                    "downloads a detector (0.2 MB) to models/imtalker.",
                ),
                types.Control.Input(
                    "control", optional=True, tooltip="Another control: fills in the parts that are not read here."
                ),
            ],
            outputs=[types.control_output()],
        )

    @classmethod
    def validate_inputs(cls, smirk: str = NONE, gaze: str = NONE) -> bool | str:
        return check_trackers(smirk, gaze)

    @classmethod
    def fingerprint_inputs(cls, smirk: str = NONE, gaze: str = NONE, **_) -> list[tuple]:
        return [folders.fingerprint(folders.local_path(name, "")) for name in filter(None, chosen(smirk, gaze))]

    @classmethod
    @host.answer
    def execute(
        cls,
        smirk: str,
        gaze: str,
        gaze_order: str,
        fps: float,
        images: Pictures | None = None,
        video: Clip | None = None,
        landmarks: dict | None = None,
        control: Control | None = None,
    ) -> io.NodeOutput:
        if images is not None and video is not None:
            raise InputError("Control From Video reads one of the two: connect either images or video, not both.")
        clip = video if images is None else clip_of_pictures(images, fps)
        nets = networks(smirk, gaze)
        if nets and clip is None:
            raise InputError("SMIRK and L2CS-Net need frames: connect images or video to Control From Video.")
        if not nets and landmarks is None:
            raise InputError(
                "Control From Video has nothing to read with: put {} from {} into models/imtalker, press R and set "
                "smirk to it, or connect landmarks.".format(*PUBLISHED["smirk"])
            )
        controls = [] if control is None else [control]
        if landmarks is not None:
            controls.append(control_from_landmarks(landmarks, clip.fps if clip else fps, gaze_order))
        if nets:
            controls.append(track(clip, nets, landmarks, gaze_order))
        return io.NodeOutput(merge(controls))


def check_trackers(smirk: str | None, gaze: str | None) -> bool | str:
    """For validate_inputs: True, or a sentence with the input that it is about, since ComfyUI shows it at both."""
    for name, choice in (("smirk", smirk), ("gaze", gaze)):
        if choice not in (None, NONE, *folders.model_files()):  # None: linked
            file, address = PUBLISHED[name]
            return (
                f"{name}: {choice!r} is not in models/imtalker: download {file} from {address}, put it there and press "
                f'R, or set {name} to "none".'
            )
    return True


def networks(smirk: str, gaze: str, expressions: bool = False) -> host.Handle | None:
    """The chosen networks as one model, so that ComfyUI keeps them on the device together.

    expressions: SMIRK's encoder of expressions too, if its file has it.
    """
    loaders = {"smirk": (load_smirk, smirk), "l2cs": (load_l2cs, gaze)}
    if expressions:
        loaders["expressions"] = load_expressions, smirk
    paths = {key: (load, folders.weights_path(name, "")) for key, (load, name) in loaders.items() if name != NONE}

    def build(dtype: torch.dtype) -> nn.Module:  # fp32, in which they load
        nets = {key: load(path) for key, (load, path) in paths.items()}
        return nn.ModuleDict({key: net for key, net in nets.items() if net is not None})

    return host.load(build, "fp32", half=False) if paths else None


def track(clip: Clip, nets: host.Handle, landmarks: dict | None, gaze_order: str) -> Control:
    """Head and gaze in every frame of the clip, held where the face is hidden."""
    said, boxes = read(clip, nets, landmarks, gaze_order)
    return held(said, [box is not None for box in boxes], clip.fps)


def read(
    clip: Clip, nets: host.Handle, landmarks: dict | None, gaze_order: str
) -> tuple[dict[str, Tensor], list[Box | None]]:
    """What the networks say of each frame that shows the face (`tracking.read_faces`), and where it is.

    Streams the clip twice: first to locate the face (unless landmarks do), then to read it.
    """
    count = clip.count or 1
    progress = host.Progress(count if landmarks is not None else 2 * count)
    if landmarks is None:
        with advising("connect landmarks"):
            boxes = face_boxes(host.counted(clip.frames, progress), **folders.detector())
    else:
        boxes = landmark_boxes(landmarks)
    models = host.on_device(nets, WORKING_MEMORY)
    frames, settings = host.watched(clip.frames), {"gaze_order": gaze_order, "progress": progress.step}
    return read_faces(frames, boxes, clip.fps, **dict(models.items()), **settings), boxes


NODES = [ControlFromVideo]
