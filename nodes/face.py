"""The face cut out of a picture, and pasted back into it."""

import logging
from collections.abc import Iterator

import torch
from comfy_api.latest import io
from torch import Tensor

from ..imtalker import InputError
from ..imtalker.face.crop import Box, Crop, apply_crop, centre_crop, paste_back, square_crop
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

FPS = 25.0  # an IMAGE batch does not say how fast it is


class FaceCrop(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerFaceCrop",
            display_name="IMTalker Face Crop",
            category="IMTalker/face",
            description="Cuts a square around one face, as the models were trained with, from a picture or from each "
            "frame of a video. The crop leads back: give it to Paste Back or Render Video.",
            inputs=[
                io.Image.Input("image", tooltip="A picture of any size, or the frames of one video in order."),
                io.Combo.Input(
                    "face",
                    options=["largest", "left to right", "nearest to centre", "best score"],
                    tooltip="The order in which faces are counted where there are several. In a video the choice is "
                    "made where a face first appears, and that face is followed.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=99,
                    tooltip="Which face in that order: 0 is the first. More than there are faces is an error.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.6,
                    min=1.0,
                    max=4.0,
                    step=0.05,
                    tooltip="Side of the square as a multiple of the face's longer side; the models were trained with "
                    "1.6. More shows more hair and shoulders and less detail.",
                ),
                io.Combo.Input(
                    "tracking",
                    options=["steady", "smooth"],
                    tooltip="For several frames. steady: one square for all, for a head that stays about where it is. "
                    "smooth: it follows the head like a camera, without jitter quicker than 0.4 s (at 25 fps).",
                ),
                io.Combo.Input(
                    "padding",
                    options=["edge", "black"],
                    tooltip="What fills the part of the square that is beyond the picture: its edge drawn out, or "
                    "black.",
                ),
                io.Combo.Input(
                    "no_face",
                    options=["error", "whole picture"],
                    tooltip="Where no face is found. error: stop and say so; whole picture: use its middle square.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=1024,
                    step=8,
                    tooltip="Side of the result in pixels. The models read 512 (v2) or 256 (v1) and bring others to "
                    "that themselves.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The face in white, brow to chin, instead of detection: the square goes around the "
                    "rectangle of its white part. One for all frames or one for each.",
                ),
                io.MultiType.Input(
                    "box",
                    types=[io.Custom("BOUNDING_BOX"), io.Custom("BBOX")],
                    optional=True,
                    tooltip="A face found by another node instead of detection: x, y, width, height in pixels, as "
                    "numbers or by these names; a list of boxes, or one such list for each frame.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The square or squares, for Encode Source or Motion."),
                types.Crop.Output(display_name="crop", tooltip="Where it was cut out, for Paste Back, Render Video."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="A soft ellipse that fills the square, to change or blur and give to Paste Back.",
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
        progress = host.Progress(2 * count)  # looked at, then cut
        try:
            found = given_boxes(mask, box, count, height, width)
            crop = find(image, found, face, index, scale, tracking, progress)
        except (FaceNotFound, DetectorMissing) as error:
            if no_face == "error":
                raise
            log.warning("%s Using the middle square of the whole picture.", error)
            crop = centre_crop(height, width)
        squares = []
        for picture, place in zip(image, in_turn(crop, count), strict=True):
            picture = check_image(picture).cpu()
            squares.append(apply_crop(picture, place, size, "zero" if padding == "black" else "edge"))
            progress.step()
        return io.NodeOutput(torch.cat(squares).to(host.result_device()), crop, ellipse(size).to(host.result_device()))


class PasteBack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerPasteBack",
            display_name="IMTalker Paste Back",
            category="IMTalker/face",
            description="Puts rendered faces back into the picture or video they were cropped from, with a soft edge. "
            "For a long clip use Render Video's crop and background, which needs less memory.",
            inputs=[
                io.Image.Input("images", tooltip="Square frames from Render, of any size."),
                io.Image.Input(
                    "background",
                    tooltip="What went into Face Crop: one picture for all frames, or a frame for each; frames beyond "
                    "the last image are cut.",
                ),
                types.Crop.Input("crop", tooltip="From Face Crop: where the faces belong."),
                io.Float.Input(
                    "feather",
                    default=0.15,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="Width of the soft edge, as a share of the square's side. 0: hard; 0.5: soft to the "
                    "middle.",
                ),
                io.Combo.Input(
                    "shape",
                    options=["ellipse", "square"],
                    tooltip="What is pasted: the ellipse that fills the square, or all of it. A mask replaces this.",
                ),
                io.Float.Input(
                    "colour_match",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far each face takes the colours that the background has along the soft edge. 0: not "
                    "at all; 1: fully.",
                ),
                io.Boolean.Input(
                    "even_size",
                    default=True,
                    tooltip="Cuts the last row or column of a picture with an odd height or width, which video files "
                    "cannot hold.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What of the square to paste, in white, over the square and not the whole picture; of any "
                    "size, one or one for each image. It still fades at the square's border.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="Whole pictures; where the mask is black they are the background."
                ),
                io.Mask.Output(display_name="mask", tooltip="How much of each pixel was pasted, 0 to 1."),
            ],
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        images: Tensor,
        background: Tensor,
        crop: Crop | list[Crop],
        feather: float,
        shape: str,
        colour_match: float,
        even_size: bool,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        count = len(images) if len(images) > 1 else len(background)
        height, width = (side - side % 2 if even_size else side for side in background.shape[1:3])
        host.check_room(
            count * height * width * 4 * 4,
            f"{count} frames of {width}x{height}",
            "use Render Video with crop and background, which needs no more for a long clip than for a short one.",
        )
        pictures = torch.empty(count, height, width, 3, device=host.result_device())
        masks = torch.empty(count, height, width, device=host.result_device())
        progress = host.Progress(count)
        parts = paste(images, background, crop, mask, count, feather, shape, colour_match)
        for number, (picture, alpha) in enumerate(parts):
            pictures[number], masks[number] = picture[:height, :width], alpha[:height, :width]
            progress.step(1, picture)
        return io.NodeOutput(pictures, masks)


def given_boxes(mask: Tensor | None, box: object, count: int, height: int, width: int) -> list[list[Box]] | None:
    """The faces in each picture where the artist says so."""
    if mask is not None and box is not None:
        raise InputError("Connect mask or box to Face Crop, not both: each says where the face is.")
    if mask is None and box is None:
        return None
    read, given = (boxes.boxes_of_input, box) if mask is None else (boxes.boxes_of_mask, mask)
    found = read(given, count, height, width)
    if not any(found):
        raise FaceNotFound(
            "The box input holds no box: choose another picture, or disconnect it to look for a face."
            if mask is None
            else "The mask is empty: paint the face white, or disconnect it to look for a face."
        )
    return found


def find(
    images: Tensor,
    found: list[list[Box]] | None,
    which: str,
    index: int,
    scale: float,
    tracking: str,
    progress: host.Progress,
) -> Crop | list[Crop]:
    """One crop, or with smooth tracking one for each picture."""
    count, height, width = images.shape[:3]
    if count == 1 and found is None:
        return find_crop(check_image(images).cpu(), scale, which, index, model_dirs=folders.detector_folders())
    if found is not None:
        track = follow_boxes(((one, (height, width)) for one in found), which, index)
    elif tracking == "steady":
        return steady_crop(looked_at(images, progress), count, scale, which, index, folders.detector_folders())
    else:
        track = follow_face(looked_at(images, progress), which, index, model_dirs=folders.detector_folders())
    if tracking == "steady" or count == 1:
        return square_crop(steady_box(track), height, width, scale)
    return [square_crop(box, height, width, scale) for box in smooth_boxes(track, FPS)]


def looked_at(images: Tensor, progress: host.Progress) -> Iterator[Tensor]:
    for image in images:
        yield check_image(image)[0].cpu()
        progress.step()


def in_turn(value: object, count: int) -> list:
    """One for each of `count` pictures, from one or many."""
    many = value if isinstance(value, (list, Tensor)) else [value]
    return [many[0]] * count if len(many) == 1 else many


def ellipse(size: int) -> Tensor:
    """(1,size,size): what Paste Back uses over the crop without a mask."""
    blank = torch.zeros(1, size, size, 3)
    return paste_back(blank, blank, centre_crop(size, size))[1]


def paste(
    images: Tensor,
    background: Tensor,
    crop: Crop | list[Crop],
    mask: Tensor | None,
    count: int,
    feather: float,
    shape: str,
    colour_match: float,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures (H,W,3) and the masks used (H,W), one at a time."""
    masks = None if mask is None else mask.reshape(-1, *mask.shape[-2:]).float()
    if masks is not None and not masks.any():
        raise InputError("The mask of Paste Back is empty, nothing would be pasted: paint white what is to be pasted.")
    given = {"images": images, "background": background, "crop": crop, "mask": masks}
    for name, value in given.items():
        found = len(value) if isinstance(value, (list, Tensor)) else 1
        if 1 < found < count:
            raise InputError(f"{name} of Paste Back has {found} frames where {count} are wanted: give 1 or {count}.")
        if found > count:
            log.warning("%s of Paste Back has %d frames where %d are wanted; it is cut.", name, found, count)
    for face, picture, place, shade in zip(*(in_turn(value, count) for value in given.values()), strict=False):
        shade = None if shade is None else shade[None].cpu().clamp(0, 1)
        pasted, alpha = paste_back(
            check_image(picture).cpu(), check_image(face).cpu(), place, shade, feather, shape, colour_match
        )
        yield pasted[0], alpha[0]


NODES = [FaceCrop, PasteBack]
