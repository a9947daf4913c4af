"""Face Crop: a face out of a picture or video."""

import logging

import torch
from comfy_api.latest import io
from torch import Tensor

from ..imtalker import InputError
from ..imtalker.face.crop import CROP_SCALE, Box, Crop, apply_crop, centre_crop, paste_back, square_crop
from ..imtalker.face.detectors import DetectorMissing
from ..imtalker.face.follow import (
    FaceNotFound,
    find_crop,
    follow_boxes,
    follow_face,
    smooth_boxes,
    steady_box,
    steady_crop,
)
from ..imtalker.media.image import check_image
from . import boxes, folders, host, types

log = logging.getLogger("imtalker")

FPS = 25.0  # assumed: an IMAGE batch has no frame rate


def scale_input() -> io.Float.Input:
    return io.Float.Input(
        "scale",
        default=CROP_SCALE,
        min=1.0,
        max=4.0,
        step=0.05,
        tooltip="Side of the square as a multiple of the face's longer side; the models were trained with 1.6. Higher "
        "shows more hair and shoulders, but less detail in the face.",
    )


def no_face_input() -> io.Combo.Input:
    return io.Combo.Input(
        "no_face",
        options=["error", "whole picture"],
        tooltip="If no face is found. error: stops with a message; whole picture: uses its middle square.",
    )


class FaceCrop(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerFaceCrop",
            display_name="IMTalker Face Crop",
            category="IMTalker/face",
            description="Crops a square around a face, framed as in training, from a picture or from every frame of a "
            "video. Connect crop to Paste Back or Render Video to put the rendered face back.",
            inputs=[
                io.Image.Input("image", tooltip="A picture of any size, or the frames of one video in order."),
                io.Combo.Input(
                    "face",
                    options=["largest", "left to right", "nearest to centre", "best score"],
                    tooltip="How faces are ordered if there are several. largest: by size; left to right: by position; "
                    "nearest to centre: by distance to the middle; best score: by detection confidence. In a video, "
                    "the face is chosen in the first frame that shows one, then followed.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=99,
                    tooltip="Which face in that order. 0 is the first; asking for one that is not there is an error.",
                ),
                scale_input(),
                io.Combo.Input(
                    "tracking",
                    options=["steady", "smooth"],
                    tooltip="For several frames. steady: one square for all, for a head that stays in place. smooth: "
                    "the square follows the head smoothly (over 0.4 s at 25 fps).",
                ),
                io.Combo.Input(
                    "padding",
                    options=["edge", "black"],
                    tooltip="Fills the part of the square outside the picture. edge: repeats the picture's edge; "
                    "black: fills it with black.",
                ),
                no_face_input(),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=1024,
                    step=8,
                    tooltip="Side of the output in pixels. The models work at 512 (v2) or 256 (v1) and resize anything "
                    "else.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Replaces detection: the face in white, from brow to chin. The square is placed around the "
                    "white area. One mask for all frames, or one per frame.",
                ),
                io.MultiType.Input(
                    "box",
                    types=[io.Custom("BOUNDING_BOX"), io.Custom("BBOX")],
                    optional=True,
                    tooltip="Replaces detection: a face box from another node, as four numbers or keys x, y, width, "
                    "height in pixels. Also takes a list of boxes, or one list per frame.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="The cropped square or squares, for Encode Source or Encode Motion."
                ),
                types.Crop.Output(
                    display_name="crop", tooltip="Where the square was cut out, for Paste Back and Render Video."
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="A soft ellipse that fills the square. Edit or blur it, then connect it to Paste Back.",
                ),
            ],
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        image: Tensor,
        face: str,
        index: int,
        scale: float,
        tracking: str,
        padding: str,
        no_face: str,
        size: int,
        mask: Tensor | None = None,
        box: object = None,
    ) -> io.NodeOutput:
        count, height, width = image.shape[:3]
        progress = host.Progress(2 * count)  # every frame is searched, then cropped
        try:
            given = given_boxes(mask, box, count, height, width)
            crop = find_crops(image, given, face, index, scale, tracking, progress)
        except (FaceNotFound, DetectorMissing) as error:
            if no_face == "error":
                raise
            log.warning("%s Using the middle square of the whole picture.", error)
            crop = centre_crop(height, width)
        pad = "zero" if padding == "black" else "edge"
        squares = []
        for picture, square in zip(image, types.one_per_frame("crop", crop, count), strict=True):
            squares.append(apply_crop(check_image(picture).cpu(), square, size, pad))
            progress.step()
        return io.NodeOutput(torch.cat(squares).to(host.result_device()), crop, ellipse(size).to(host.result_device()))


def given_boxes(mask: Tensor | None, box: object, count: int, height: int, width: int) -> list[list[Box]] | None:
    """The faces of each picture from mask or box; None if neither is connected. FaceNotFound if they are empty."""
    if mask is not None and box is not None:
        raise InputError("Face Crop takes mask or box, not both: disconnect one, each says where the face is.")
    if mask is None and box is None:
        return None
    read, given = (boxes.boxes_of_input, box) if mask is None else (boxes.boxes_of_mask, mask)
    faces = read(given, count, height, width)
    if not any(faces):
        raise FaceNotFound(
            "The box input holds no box: choose another picture, or disconnect it to detect the face."
            if mask is None
            else "The mask is empty: paint the face white, or disconnect it to detect the face."
        )
    return faces


def find_crops(
    images: Tensor,
    given: list[list[Box]] | None,
    which: str,
    index: int,
    scale: float,
    tracking: str,
    progress: host.Progress,
) -> Crop | list[Crop]:
    """One crop, or with smooth tracking one per picture. given: boxes of each picture, instead of detection."""
    count, height, width = images.shape[:3]
    model_dirs = folders.detector_folders()
    if count == 1 and given is None:
        return find_crop(check_image(images).cpu(), scale, which, index, model_dirs=model_dirs)
    frames = host.counted((check_image(image)[0].cpu() for image in images), progress)
    if given is not None:
        track = follow_boxes(((faces, (height, width)) for faces in given), which, index)
    elif tracking == "steady":
        return steady_crop(frames, count, scale, which, index, model_dirs)
    else:
        track = follow_face(frames, which, index, model_dirs=model_dirs)
    if tracking == "steady" or count == 1:
        return square_crop(steady_box(track), height, width, scale)
    return [square_crop(box, height, width, scale) for box in smooth_boxes(track, FPS)]


def ellipse(size: int) -> Tensor:
    """(1,size,size): the mask that Paste Back uses if none is connected."""
    blank = torch.zeros(1, size, size, 3)
    return paste_back(blank, blank, centre_crop(size, size))[1]


NODES = [FaceCrop]
