"""Link types, one meaning each, and the door through which every node takes its inputs."""

import logging
from collections.abc import Sequence
from functools import partial

from comfy_api.latest import io
from torch import Tensor

from ..imtalker.errors import InputError
from . import temporary
from .doors import clips, numbers, ours, pictures, sound
from .doors.opening import enter

log = logging.getLogger("imtalker")

Renderer = io.Custom("IMTALKER_RENDERER")  # host.Handle on an imtalker.Renderer
Generator = io.Custom("IMTALKER_GENERATOR")  # host.Handle on an imtalker.Generator
Source = io.Custom("IMTALKER_SOURCE")  # imtalker.Source
AudioFeatures = io.Custom("IMTALKER_AUDIO")  # imtalker.AudioFeatures
Motion = io.Custom("IMTALKER_MOTION")  # imtalker.Motion
Control = io.Custom("IMTALKER_CONTROL")  # imtalker.Control
Rig = io.Custom("IMTALKER_RIG")  # imtalker.Rig
Crop = io.Custom("IMTALKER_CROP")  # imtalker.face.crop.Crop, or a list with one for each picture

# ComfyUI's own type; versions before its face nodes have no node that outputs it
FaceLandmarks = io.Custom("FACE_LANDMARKS")


class FileInput(io.Combo.Input):
    """A combo of files, which the node checks itself: the list may be older than the file."""


# What `execute` gets for an input of each type. Types that are not here, such as boxes, need more than their value.
DOORS = {
    "AUDIO": sound.sound,  # -> imtalker.media.audio.Audio
    "VIDEO": partial(clips.video, new_file=temporary.new_temporary),  # -> clips.Clip
    "IMAGE": pictures.pictures,  # -> pictures.Pictures
    "MASK": pictures.masks,  # -> Tensor (N,H,W)
    "BOOLEAN": numbers.switch,
    "STRING": numbers.text,
    Renderer.io_type: ours.renderer,
    Generator.io_type: ours.generator,
    Source.io_type: ours.source,
    AudioFeatures.io_type: ours.features,
    Motion.io_type: ours.motion,
    Control.io_type: ours.control,
    Rig.io_type: ours.rig,
    Crop.io_type: ours.crops,
    FaceLandmarks.io_type: ours.landmarks,
}


def read(node: type[io.ComfyNode], inputs: dict[str, object]) -> dict[str, object]:
    """Takes all inputs of a node through their doors; an optional one that is None or silent counts as not connected.

    InputError: an input that cannot be used, by name.
    """
    found = {}
    for place in (node.SCHEMA or node.GET_SCHEMA()).inputs:
        if place.id not in inputs or (place.optional and inputs[place.id] is None):
            continue
        try:
            found[place.id] = enter(place.id, _door(place), inputs[place.id])
        except sound.NoSound as silent:
            if not place.optional:
                raise
            log.info("%s", silent)
    return found


def _door(place: io.Input):
    if isinstance(place, io.Int.Input):
        return partial(numbers.whole, low=place.min, high=place.max)
    if isinstance(place, io.Float.Input):
        return partial(numbers.real, low=place.min, high=place.max)
    if isinstance(place, FileInput):
        return numbers.text
    if isinstance(place, io.Combo.Input):
        return partial(numbers.choice, options=place.options)
    return DOORS.get(place.get_io_type(), _as_it_is)


def _as_it_is(name: str, value: object) -> object:
    return value


def control_output() -> Control.Output:
    return Control.Output(display_name="control", tooltip="For Sample Motion, or the control input of another control.")


def one_per_frame(what: str, value: object, count: int) -> Sequence:
    """`count` items: a single one is repeated, extra ones are dropped with a warning. InputError for too few."""
    items = value if isinstance(value, (Sequence, Tensor)) else [value]
    if len(items) == 1:
        return [items[0]] * count
    if len(items) < count:
        raise InputError(f"{what} has {len(items)} frames but {count} are needed: connect 1 or {count}.")
    if len(items) > count:
        log.warning("%s has %d frames but only %d are needed; the rest is ignored.", what, len(items), count)
    return items[:count]
