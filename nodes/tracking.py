"""Head pose, camera and gaze of a person in a video, as a control for somebody else's motion."""

from collections.abc import Iterator

import torch
from comfy_api.latest import Input, io
from torch import Tensor, nn

from ..imtalker import Control, InputError
from ..imtalker.motion.control import merge
from ..imtalker.tracking import (
    BATCH_SIZE,
    GAZE_ORDERS,
    L2CS_SIDE,
    control_from_frames,
    control_from_landmarks,
    face_boxes,
    landmark_boxes,
)
from ..imtalker.weights.checkpoints import load_l2cs, load_smirk
from . import folders, host, types
from .control import NONE, chosen
from .encode import Clip, open_video

# bytes that L2CS-Net's largest maps of one batch need, six times 64 channels of half the side; SMIRK's are far smaller
WORKING_MEMORY = BATCH_SIZE * 6 * 64 * (L2CS_SIDE // 2) ** 2 * 4


class ControlFromVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerControlFromVideo",
            display_name="IMTalker Control From Video",
            category="IMTalker/control",
            description="Reads head pose, camera and gaze off a person in a video or in images, for Sample Motion to "
            "follow. By networks whose files you choose (SMIRK for pose and camera, L2CS-Net for gaze), or from the "
            "landmarks of ComfyUI's own face nodes. Where the face is not seen, the last values are held.",
            inputs=[
                io.Combo.Input(
                    "smirk",
                    options=[NONE, *folders.model_files()],
                    tooltip="SMIRK's weights in models/imtalker, as its authors publish them (SMIRK_em1.pt): head pose "
                    "and camera. none: they come from landmarks (pose only) or control.",
                ),
                io.Combo.Input(
                    "gaze",
                    options=[NONE, *folders.model_files()],
                    tooltip="L2CS-Net's weights in models/imtalker, as its authors publish them "
                    "(L2CSNet_gaze360.pkl): direction of the eyes. none: the gaze comes from landmarks or control.",
                ),
                io.Combo.Input(
                    "gaze_order",
                    options=list(GAZE_ORDERS),
                    tooltip="Order of the gaze's two angles. as published: as L2CS-Net puts them out. swapped: "
                    "exchanges them, if up and down should move the eyes sideways.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of images, and of landmarks alone; a video brings its own.",
                ),
                io.Image.Input("images", optional=True, tooltip="The person's frames, in order; or connect video."),
                io.Video.Input(
                    "video", optional=True, tooltip="A video of the person; read from its file bit by bit. Or images."
                ),
                types.FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="From ComfyUI's Detect Face Landmarks (newer versions have it), of the same frames: where "
                    "the face is, its pose and an estimate of its gaze; what SMIRK or L2CS-Net is chosen for comes "
                    "from there. Without it a face detector looks for the largest face.",
                ),
                types.Control.Input(
                    "control", optional=True, tooltip="Another control: gives the parts that are not read here."
                ),
            ],
            outputs=[types.Control.Output(display_name="control", tooltip="For Sample Motion, or a further control.")],
        )

    @classmethod
    def validate_inputs(cls, smirk: str = NONE, gaze: str = NONE) -> bool | str:
        return folders.check_files(*chosen(smirk, gaze))

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
        images: Tensor | None = None,
        video: Input.Video | None = None,
        landmarks: dict | None = None,
        control: Control | None = None,
    ) -> io.NodeOutput:
        if images is not None and video is not None:
            raise InputError("Connect either images or video to Control From Video, not both: it reads one of the two.")
        clip = None if images is None else Clip(images, fps, len(images), None)
        clip = clip if video is None else open_video(video)
        nets = networks(smirk, gaze)
        if nets and clip is None:
            raise InputError("SMIRK and L2CS-Net look at pictures: connect images or video to Control From Video.")
        if not nets and landmarks is None:
            raise InputError(
                "Control From Video has nothing to read with: choose a SMIRK or a gaze file from models/imtalker, or "
                "connect landmarks."
            )
        rate = clip.fps if clip else fps
        found = [] if control is None else [control]
        if landmarks is not None:
            found.append(control_from_landmarks(landmarks, rate, gaze_order))
        if nets:
            found.append(read(clip, nets, landmarks, gaze_order))
        return io.NodeOutput(merge(found))


def networks(smirk: str, gaze: str) -> host.Handle | None:
    """Those chosen as one model, so that ComfyUI has both on the device at a time."""
    loaders = {"smirk": (load_smirk, smirk), "l2cs": (load_l2cs, gaze)}
    paths = {key: (load, folders.weights_path(name, "")) for key, (load, name) in loaders.items() if name != NONE}

    def build(dtype: torch.dtype) -> nn.Module:
        return nn.ModuleDict({key: load(path) for key, (load, path) in paths.items()})

    return host.load(build, "fp32", half=False) if paths else None


def read(clip: Clip, nets: host.Handle, landmarks: dict | None, gaze_order: str) -> Control:
    """Two passes over the clip, neither of which holds it in memory: where the face is, then what it does."""
    count = clip.count or 1
    progress = host.Progress(count if landmarks is not None else 2 * count)
    if landmarks is None:
        boxes = face_boxes(looked_at(clip, progress), model_dirs=folders.detector_folders())
    else:
        boxes = landmark_boxes(landmarks)
    models = host.on_device(nets, WORKING_MEMORY)
    return control_from_frames(
        clip.pictures(), boxes, clip.fps, **dict(models.items()), gaze_order=gaze_order, progress=progress.step
    )


def looked_at(clip: Clip, progress: host.Progress) -> Iterator[Tensor]:
    for picture in clip.pictures():
        yield picture
        progress.step()


NODES = [ControlFromVideo]
