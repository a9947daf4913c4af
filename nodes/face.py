"""Face Crop: a face out of a picture or video."""

import contextlib
import logging
from collections.abc import Iterator

import torch
from comfy_api.latest import io
from torch import Tensor

from ..imtalker import InputError
from ..imtalker.face.crop import CROP_SCALE, Box, Crop, apply_crop, centre_crop, framed, paste_back
from ..imtalker.face.detectors import NoFace
from ..imtalker.face.follow import (
    FaceNotFound,
    find_crop,
    follow_boxes,
    follow_face,
    smooth_boxes,
    steady_box,
    steady_view,
)
from . import folders, host, types
from .doors.boxes import AUTO, CORNERS, ORDERS, SIZES, Frame, boxes_of_input, boxes_of_mask
from .doors.opening import enter
from .doors.pictures import Pictures
from .schema import schema

log = logging.getLogger("imtalker")

FPS = 25.0  # assumed: an IMAGE batch has no frame rate
ORDERS_OF_FACES = ["largest", "left to right", "nearest to centre", "best score"]


def scale_input() -> io.Float.Input:
    return io.Float.Input(
        "scale",
        default=CROP_SCALE,
        min=1.0,
        max=4.0,
        step=0.05,
        tooltip="Side of the square as a multiple of the face's longer side; the models were trained with 1.6. Higher "
        "shows more hair and shoulders, but less detail in the face. A square that would leave the picture is moved "
        "and shrunk by up to a sixth of its side.",
    )


def no_face_input() -> io.Combo.Input:
    return io.Combo.Input(
        "no_face",
        options=["error", "whole picture"],
        tooltip="If no face is found. error: stops with a message; whole picture: uses its middle square. The first "
        "search for a real person's face downloads a detector (0.2 MB) to models/imtalker; drawn heads need none.",
    )


@contextlib.contextmanager
def advising(instead: str) -> Iterator[None]:
    """Where no face is found, the sentence says what to do at this node: `instead`, with the name of its input."""
    try:
        yield
    except NoFace as error:
        raise type(error)(error.what, instead) from error


class FaceCrop(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerFaceCrop",
            display_name="IMTalker Face Crop",
            category="IMTalker/face",
            description="Crops a square around a face, framed as in training, from a picture or from every frame of a "
            "video. Connect crop to Paste Back or Render Video to put the rendered face back.",
            inputs=[
                io.Image.Input("image", tooltip="A picture of any size, or the frames of one video in order."),
                io.Combo.Input(
                    "face",
                    options=ORDERS_OF_FACES,
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
                # optional, so that graphs saved before it existed still run
                io.Combo.Input(
                    "box_order",
                    options=list(ORDERS),
                    default=AUTO,
                    optional=True,
                    tooltip="Order of a box's four numbers. x y width height: top left corner and size; x0 y0 x1 y1: "
                    "two opposite corners; auto: what the connected node says, otherwise the first, or the second if "
                    "the numbers cannot be a size. A box with named numbers needs no order.",
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
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        image: Pictures,
        face: str,
        index: int,
        scale: float,
        tracking: str,
        padding: str,
        no_face: str,
        size: int,
        mask: Tensor | None = None,
        box: object = None,
        box_order: str = AUTO,
    ) -> io.NodeOutput:
        frame = Frame(len(image), image.height, image.width)
        progress = host.Progress(2 * frame.count)  # every frame is searched, then cropped
        try:
            order = box_order if box_order != AUTO else order_of_giver(cls.hidden)
            given = given_boxes(mask, box, frame, order)
            with advising('set no_face to "whole picture"'):
                crop = find_crops(image, given, face, index, scale, tracking, progress)
        except NoFace as error:
            if no_face == "error":
                raise
            log.warning("%s Using the middle square of the whole picture.", error)
            crop = centre_crop(frame.height, frame.width)
        pad = "zero" if padding == "black" else "edge"
        host.check_room(
            frame.count * size * size * 3 * 4, f"{frame.count} squares of {size}x{size}", "choose a smaller size."
        )
        squares = torch.empty(frame.count, size, size, 3, device=host.result_device())
        for number, square in enumerate(types.one_per_frame("crop", crop, frame.count)):
            squares[number] = apply_crop(image[number][None], square, size, pad)[0]
            progress.step()
        return io.NodeOutput(squares, crop, ellipse(size).to(host.result_device()))


def order_of_giver(hidden: io.HiddenHolder) -> str:
    """The order of a box's numbers that the connected node states, as KJNodes' points editor does; AUTO if none."""
    prompt = hidden.prompt or {}
    link = prompt.get(hidden.unique_id, {}).get("inputs", {}).get("box")
    giver = prompt.get(link[0], {}).get("inputs", {}) if isinstance(link, list) and link else {}
    stated = giver.get("bbox_format")
    return {"xyxy": CORNERS, "xywh": SIZES}.get(stated, AUTO) if isinstance(stated, str) else AUTO


def given_boxes(mask: Tensor | None, box: object, frame: Frame, order: str) -> list[list[Box]] | None:
    """The faces of each picture from mask or box; None if neither is connected. FaceNotFound if they are empty."""
    if mask is not None and box is not None:
        raise InputError("Face Crop takes mask or box, not both: disconnect one, each says where the face is.")
    if mask is None and box is None:
        return None
    faces = boxes_of_mask(mask, frame) if box is None else enter("box", boxes_of_input, box, frame=frame, order=order)
    if not any(faces):
        raise FaceNotFound(
            "The box input holds no box: choose another picture"
            if mask is None
            else "The mask is empty: paint the face white",
            "disconnect it to detect the face",
        )
    return faces


def find_crops(
    images: Pictures,
    given: list[list[Box]] | None,
    which: str,
    index: int,
    scale: float,
    tracking: str,
    progress: host.Progress,
) -> Crop | list[Crop]:
    """One crop, or with smooth tracking one per picture. given: boxes of each picture, instead of detection."""
    count, height, width = len(images), images.height, images.width
    detector = folders.detector()
    if count == 1 and given is None:
        return find_crop(images[0], scale, which, index, **detector)
    frames = host.counted(images, progress)
    if given is not None:
        track = follow_boxes(((faces, (height, width)) for faces in given), which, index)
    elif tracking == "steady":
        return steady_view(frames, count, scale, which, index, **detector).crop
    else:
        track = follow_face(frames, which, index, **detector)
    if tracking == "steady" or count == 1:
        return framed(steady_box(track), height, width, scale)
    return [framed(box, height, width, scale) for box in smooth_boxes(track, FPS)]


def ellipse(size: int) -> Tensor:
    """(1,size,size): the mask that Paste Back uses if none is connected."""
    blank = torch.zeros(1, size, size, 3)
    return paste_back(blank, blank, centre_crop(size, size))[1]


NODES = [FaceCrop]
