"""Paste Back: rendered faces back into the picture or video they were cropped from."""

from collections.abc import Iterator

import torch
from comfy_api.latest import io
from torch import Tensor

from ..imtalker import InputError
from ..imtalker.face.crop import SOFT_SQUARE, Crop, paste_back
from . import host, types
from .doors.pictures import Pictures
from .schema import schema


class PasteBack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerPasteBack",
            display_name="IMTalker Paste Back",
            category="IMTalker/face",
            description="Pastes rendered faces back into the picture or video they were cropped from, with a soft "
            "edge. For long clips use crop and background of Render Video, which needs less memory.",
            inputs=[
                io.Image.Input("images", tooltip="Square frames from Render, of any size."),
                io.Image.Input(
                    "background",
                    tooltip="The picture or video that went into Face Crop: one picture for all frames, or one frame "
                    "per image. Extra frames are dropped.",
                ),
                types.Crop.Input("crop", tooltip="From Face Crop: where the faces go."),
                io.Float.Input(
                    "feather",
                    default=SOFT_SQUARE["feather"],
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="Width of the soft edge as a fraction of the square's side. 0: hard edge; 0.5: fades all "
                    "the way to the middle. In a wide edge the old head shows beside one that moves.",
                ),
                io.Combo.Input(
                    "shape",
                    options=["ellipse", "square"],
                    default=SOFT_SQUARE["shape"],
                    tooltip="Area to paste. ellipse: the ellipse that fills the square, for a face that hardly moves; "
                    "square: all of it, so that no old outline shows beside a moving head. A connected mask replaces "
                    "both.",
                ),
                io.Float.Input(
                    "colour_match",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How closely each face matches the colours of the background along the soft edge. 0: not "
                    "at all; 1: fully.",
                ),
                io.Boolean.Input(
                    "even_size",
                    default=True,
                    tooltip="Repeats the last row or column if the height or width is odd, because video files need "
                    "even sizes. Render Video does the same.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Area to paste, in white. It covers the square, not the whole picture. Any size; one mask, "
                    "or one per image. It still fades out at the square's border.",
                ),
                # optional, so that graphs saved before it existed still run
                io.Float.Input(
                    "seam",
                    default=SOFT_SQUARE["seam"],
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="How far colours are joined along the soft edge, so that it does not show. 0: not at all; "
                    "1: fully. The middle of the face keeps its colours.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip="Whole pictures; identical to the background where the mask is black.",
                ),
                io.Mask.Output(display_name="mask", tooltip="How much of each pixel was pasted, 0 to 1."),
            ],
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        images: Pictures,
        background: Pictures,
        crop: Crop | list[Crop],
        feather: float,
        shape: str,
        colour_match: float,
        even_size: bool,
        mask: Tensor | None = None,
        seam: float = SOFT_SQUARE["seam"],
    ) -> io.NodeOutput:
        count = len(images) if len(images) > 1 else len(background)
        height, width = (side + side % 2 if even_size else side for side in (background.height, background.width))
        host.check_room(
            count * height * width * 4 * 4,
            f"{count} frames of {width}x{height}",
            "use Render Video with crop and background, which needs no more memory for a long clip.",
        )
        pictures = torch.empty(count, height, width, 3, device=host.result_device())
        masks = torch.empty(count, height, width, device=host.result_device())
        progress = host.Progress(count)
        style = {"feather": feather, "shape": shape, "colour_match": colour_match, "seam": seam}
        rows = torch.arange(height).clamp_max(background.height - 1)[:, None]
        columns = torch.arange(width).clamp_max(background.width - 1)
        for number, (picture, alpha) in enumerate(paste(images, background, crop, mask, count, style)):
            pictures[number], masks[number] = picture[rows, columns], alpha[rows, columns]
            progress.step(1, picture)
        return io.NodeOutput(pictures, masks)


def paste(
    images: Pictures, background: Pictures, crop: Crop | list[Crop], mask: Tensor | None, count: int, style: dict
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures (H,W,3) and the masks used (H,W), one at a time. style: keyword arguments of `paste_back`."""
    if mask is not None and not mask.any():
        raise InputError("The mask of Paste Back is empty, nothing would be pasted: paint the area to paste white.")
    inputs = {"images": images, "background": background, "crop": crop, "mask": mask}
    columns = [types.one_per_frame(f"{name} of Paste Back", value, count) for name, value in inputs.items()]
    for face, picture, square, shade in zip(*columns, strict=True):
        shade = None if shade is None else shade[None]
        pasted, alpha = paste_back(picture[None], face[None], square, shade, **style)
        yield pasted[0], alpha[0]


NODES = [PasteBack]
