"""The doors of IMAGE and MASK."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...imtalker.errors import InputError
from ...imtalker.media.image import check_image
from .opening import kind_of, tensor_of

MAX_SIDE = 32768  # pixels


class Pictures(Sequence):
    """A batch of pictures of one size; each is converted when it is taken out, so a long clip is never copied whole.

    Items are (H,W,3) float32 RGB in 0..1, on the device of the batch: grey is repeated, alpha composited over white.
    """

    def __init__(self, batch: Tensor):
        """batch: (N,H,W,C), as `pictures` checks it."""
        self.batch = batch
        self.height, self.width = batch.shape[1:3]

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, number: int | slice) -> "Tensor | Pictures":
        return Pictures(self.batch[number]) if isinstance(number, slice) else check_image(self.batch[number])[0]

    def one(self, what: str) -> Tensor:
        """The only picture, (1,H,W,3). InputError: there are several."""
        if len(self) != 1:
            raise InputError(f"{what} must be one picture, not a batch of {len(self)}: choose one of them.")
        return self[0][None]


def pictures(name: str, value: object) -> Pictures:
    """An IMAGE (N,H,W,C) or (H,W,C): 1, 3 or 4 channels, uint8 or float of any precision.

    InputError: empty, another shape or type, NaN.
    """
    if not isinstance(value, Tensor) and not hasattr(value, "__array__") and not isinstance(value, (list, tuple)):
        raise InputError(f"The input {name} got {kind_of(value)} instead of pictures: connect an IMAGE output.")
    batch = tensor_of(name, value)
    shape = tuple(batch.shape)
    if batch.ndim not in (3, 4) or shape[-1] not in (1, 3, 4):
        raise InputError(
            f"The input {name} has the shape {shape}: pictures must be (count, height, width, channels) with 1, 3 or 4 "
            "channels."
        )
    if not batch.numel():
        raise InputError(f"The input {name} is empty, an image batch of shape {shape}: connect pictures.")
    batch = batch[None] if batch.ndim == 3 else batch
    if max(batch.shape[1:3]) > MAX_SIDE:
        raise InputError(f"The pictures of {name} are {shape[-2]}x{shape[-3]}: scale them to {MAX_SIDE} or less first.")
    if batch.dtype != torch.uint8 and not batch.is_floating_point():
        kind = str(batch.dtype).removeprefix("torch.")
        raise InputError(f"The pictures of {name} are {kind}: they must be uint8, or floats from 0 to 1.")
    if batch.dtype.itemsize == 1 and batch.is_floating_point():
        batch = batch.half()  # float8 cannot be computed with
    if batch.is_floating_point() and any(_has_nan(picture) for picture in batch):
        raise InputError(f"The pictures of {name} contain NaN: load them again or fix the node that made them.")
    return Pictures(batch)


def masks(name: str, value: object) -> Tensor:
    """A MASK (H,W), (H,W,1), (N,H,W), (N,1,H,W) or (N,H,W,1) of any type as (N,H,W) float32 in 0..1.

    It stays on its device. Only (N,1,1) is N masks of one pixel.

    Whole numbers above 1 count to 255. InputError: empty, another shape, NaN.
    """
    mask = tensor_of(name, value)
    shape = tuple(mask.shape)
    if mask.ndim == 4 and shape[1] == 1:
        mask = mask[:, 0]
    elif mask.ndim == 4 and shape[3] == 1:
        mask = mask[..., 0]
    elif mask.ndim == 3 and shape[2] == 1 < shape[1]:
        mask = mask[None, ..., 0]
    elif mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or mask.is_complex():
        raise InputError(f"The input {name} has the shape {shape}: connect a MASK, (count, height, width).")
    if not mask.numel():
        raise InputError(f"The input {name} is empty, a mask of shape {shape}: connect another, or none.")
    whole = not mask.is_floating_point()
    mask = mask.float()
    low, high = mask.aminmax()
    if high.isnan():
        raise InputError(f"The mask of {name} contains NaN: make it again or fix the node that made it.")
    mask = mask / 255 if whole and high > 1 else mask
    return mask.clamp(0, 1) if low < 0 or high > 1 else mask


def _has_nan(picture: Tensor) -> bool:
    return bool(picture.aminmax().max.isnan())  # unlike isnan, makes no copy
