"""Control drawn by hand: keyframes per channel, in a JSON format for the editors, people and scripts.

    {"version": 2, "channels": {"yaw": [[0, 0], [0.8, 20, "hold"], [2, 0]], "horizontal": [[0, -5]]}}

Each keyframe is [seconds, value] or [seconds, value, easing]: degrees for angles, a fraction of the crop's side for x
and y, and for distance a factor, 1 = as in the crop. The easing says how the value goes to the next keyframe: "smooth"
(also if none is given), "linear" or "hold", which jumps at the next one. Version 1, without easings, is read as well.
Values are held before the first keyframe and after the last. Smooth is the piecewise cubic of Fritsch and Carlson,
which never overshoots (scipy's PchipInterpolator if all are smooth; a line for two keyframes); a hold counts as flat.
Times are rounded to milliseconds, floor(1000 t + 0.5) / 1000; of several keyframes at one time the last one counts.
web/js/keyframes.js computes the same from the table CHANNELS, which the nodes pass to it.
"""

import json
import logging
import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..media.files import regular_file, unusable
from .control import Control

log = logging.getLogger("imtalker")

VERSION = 2
EASINGS = ("smooth", "linear", "hold")
MAX_SECONDS, MAX_KEYFRAMES, MAX_TEXT = 3600.0, 10_000, 2_000_000
MAX_CHANNELS, MAX_NAME = 200, 80  # where any name is allowed, as in a rig
FPS = 25.0

# Estimate of SMIRK's camera scale for a face in a crop of 1.6 times its size. The authors never published which crop
# they measured on: 6.4 to 7.7 is plausible, and training probably saw 6.5 to 10.
REST_SCALE = 7.7


@dataclass(frozen=True)
class Channel:
    """One animated value: `low`..`high` is what the model probably saw, the wide range is for experiments."""

    label: str
    unit: str
    low: float
    high: float
    wide_low: float
    wide_high: float
    positive: str  # what larger values do, as seen in the image
    rest: float = 0.0  # facing the camera, placed as in the crop
    step: float = 1.0  # per press of an arrow key


POSE = {
    "yaw": Channel("Yaw", "°", -30, 30, -60, 60, "the face turns to the picture's right"),
    "pitch": Channel("Pitch", "°", -17, 17, -60, 60, "chin and nose go up"),
    "roll": Channel("Roll", "°", -15, 15, -60, 60, "the head tilts clockwise, its crown to the picture's right"),
    "distance": Channel("Distance", "×", 0.75, 1.35, 0.5, 2, "further away, so smaller", 1, 0.01),
    "x": Channel("Offset X", "", -0.1, 0.1, -0.5, 0.5, "to the picture's right, in sides of the crop", 0, 0.01),
    "y": Channel("Offset Y", "", -0.1, 0.1, -0.5, 0.5, "up, in sides of the crop", 0, 0.01),
}
GAZE = {
    "horizontal": Channel("Horizontal", "°", -17, 17, -60, 60, "the eyes look to the picture's right"),
    "vertical": Channel("Vertical", "°", -17, 17, -60, 60, "the eyes look up"),
}
CHANNELS = POSE | GAZE

Keyframe = tuple[float, float] | tuple[float, float, str]  # seconds, value, easing unless it is smooth
Curve = list[Keyframe]  # sorted by time
Curves = dict[str, Curve]  # by channel


def parse(content: str | Mapping, channels: Iterable[str] | None = CHANNELS) -> Curves:
    """Reads keyframes from JSON text, or from the decoded document; empty text means no keyframes.

    channels: the ones that are allowed; None allows any name. InputError: any other channel or key, a value that is not
    a finite number.
    """
    document = _decoded(content) if isinstance(content, str) else content
    if not isinstance(document, Mapping) or not isinstance(document.get("channels", {}), Mapping):
        raise InputError('Keyframes must be JSON of the form {"version": 2, "channels": {"yaw": [[0, 10]]}}.')
    version = document.get("version")
    if version not in (1, VERSION) or isinstance(version, bool):
        raise InputError(
            f"These keyframes have version {_shown(document.get('version', 'none'))} but this IMTalker reads 1 and "
            f'{VERSION}: write "version": {VERSION}, or update IMTalker.'
        )
    _refuse_unknown("The keyframes contain", document, ("version", "channels"))
    curves = document.get("channels", {})
    channels = _any_names(curves) if channels is None else channels
    _refuse_unknown("There is a channel", curves, channels)
    easings = EASINGS if version == VERSION else ()
    found = {name: _keyframes(name, curves[name], easings) for name in channels if name in curves}
    return {name: curve for name, curve in found.items() if curve}


def _decoded(text: str) -> object:
    def refuse(constant: str) -> None:
        raise InputError(f"The keyframes contain {constant}, which is not a number: replace it.")

    if len(text) > MAX_TEXT:
        raise InputError(f"The keyframes are {len(text) / 1e6:.1f} MB of text: use {MAX_TEXT / 1e6:.0f} MB or less.")
    if not text.strip():
        return {"version": VERSION}
    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"The keyframes are not valid JSON: {error.msg} at {where}.") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, very deep nesting
        raise InputError("The keyframes are not valid JSON: a number is too long or the nesting too deep.") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"The keyframes have {_shown(name)} twice: remove one.")
        found[name] = value
    return found


def _shown(value: object) -> str:
    """The start of any value for a message, however deep or long it is."""
    try:
        return reprlib.repr(value)[:60]
    except (ValueError, RecursionError):  # more digits than Python writes
        return f"a very long {type(value).__name__}"


def _refuse_unknown(what: str, found: Mapping, known: Iterable[str]) -> None:
    for name in found:
        if name not in known:
            raise InputError(f"{what} {_shown(name)}, which is unknown here: use {', '.join(known)}.")


def _any_names(found: Mapping) -> list[str]:
    if len(found) > MAX_CHANNELS:
        raise InputError(f"The keyframes have {len(found)} channels: use {MAX_CHANNELS} or fewer.")
    for name in found:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise InputError(f"There is a channel {_shown(name)}: a name is a text of 1 to {MAX_NAME} characters.")
    return list(found)


def _keyframes(name: str, values: object, easings: tuple[str, ...]) -> Curve:
    """easings: the ones that are known; none in version 1."""
    form = "[seconds, value]" + ("".join(f' or [seconds, value, "{one}"]' for one in easings[1:]))
    if not isinstance(values, list | tuple):
        raise InputError(f"Channel {name!r} must be a list of keyframes {form}, not {_shown(values)}.")
    if len(values) > MAX_KEYFRAMES:
        raise InputError(f"Channel {name!r} has {len(values)} keyframes: use {MAX_KEYFRAMES} or fewer.")
    curve = {}
    for number, keyframe in enumerate(values, 1):
        where = f"Keyframe {number} of channel {name!r}"
        if not _is_keyframe(keyframe, easings):
            raise InputError(f"{where} must be {form}, not {_shown(keyframe)}.")
        time, value, *easing = keyframe
        if not 0 <= time <= MAX_SECONDS:
            raise InputError(f"{where} is at {time:g} s: move it between 0 and {MAX_SECONDS:g} s.")
        curve[rounded(time, 1000)] = (float(value), *(one for one in easing if one != "smooth"))
    return [(time, *rest) for time, rest in sorted(curve.items())]


def _is_keyframe(value: object, easings: tuple[str, ...]) -> bool:
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= 3 or not all(map(_is_number, value[:2])):
        return False
    return all(isinstance(easing, str) and easing in easings for easing in value[2:])


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer larger than any float
        return False


def rounded(value: float, parts: int) -> float:
    """Rounds to 1 / `parts`, half up, as JavaScript does; Python rounds half to even."""
    return math.floor(value * parts + 0.5) / parts


def limit(curves: Curves, allow_more: bool = False, channels: Mapping[str, Channel] = CHANNELS) -> Curves:
    """Clamps values to their channel's limits, or the wide ones; a warning names the channels that were clamped."""
    limited, names = {}, []
    for name, curve in curves.items():
        channel = channels[name]
        low, high = (channel.wide_low, channel.wide_high) if allow_more else (channel.low, channel.high)
        limited[name] = [(time, min(max(value, low), high), *easing) for time, value, *easing in curve]
        if limited[name] != curve:
            names.append(f"{name} ({low:g} to {high:g})")
    if names:
        more = "" if allow_more else "; turn on allow_more to go further"
        log.warning("Keyframes were limited: %s%s.", ", ".join(names), more)
    return limited


def values_at(curve: Curve, times: np.ndarray) -> np.ndarray:
    """Evaluates a curve of at least one keyframe at `times` in seconds -> float64 of the same shape."""
    from scipy.interpolate import CubicHermiteSpline  # scipy takes half of this package's import time

    knots, values = np.array([keyframe[:2] for keyframe in curve], np.float64).T
    if len(knots) == 1:
        return np.full(np.shape(times), values[0])
    easings = np.array([keyframe[2] if len(keyframe) > 2 else "smooth" for keyframe in curve[:-1]])
    steps = np.diff(knots)
    rises = np.where(easings == "hold", 0, np.diff(values) / steps)
    times = np.clip(times, knots[0], knots[-1])
    smooth = CubicHermiteSpline(knots, values, _slopes(steps, rises))(times)
    at = np.clip(np.searchsorted(knots, times, side="right") - 1, 0, len(steps) - 1)
    straight = np.where(times == knots[-1], values[-1], values[at] + rises[at] * (times - knots[at]))
    return np.where(easings[at] == "smooth", smooth, straight)


def _slopes(steps: np.ndarray, rises: np.ndarray) -> np.ndarray:
    """The slopes at the keyframes after Fritsch and Carlson, from the seconds between them and the rise per second."""
    if len(steps) == 1:
        return np.repeat(rises, 2)
    turns = (np.sign(rises[:-1]) != np.sign(rises[1:])) | (rises[:-1] == 0)
    before, after = 2 * steps[1:] + steps[:-1], steps[1:] + 2 * steps[:-1]
    safe = np.where(turns, 1, rises[:-1]), np.where(turns, 1, rises[1:])
    inner = np.where(turns, 0, (before + after) / (before / safe[0] + after / safe[1]))
    ends = _end_slope(*steps[:2], *rises[:2]), _end_slope(*steps[:-3:-1], *rises[:-3:-1])
    return np.concatenate([ends[:1], inner, ends[1:]])


def _end_slope(step: float, next_step: float, rise: float, next_rise: float) -> float:
    slope = ((2 * step + next_step) * rise - step * next_rise) / (step + next_step)
    if np.sign(slope) != np.sign(rise):
        return 0.0
    return 3 * rise if np.sign(rise) != np.sign(next_rise) and abs(slope) > 3 * abs(rise) else slope


def to_control(
    content: str | Mapping,
    seconds: float = 0.0,
    allow_more: bool = False,
    channels: Iterable[str] = CHANNELS,
) -> Control:
    """Turns keyframes into a control at 25 fps.

    content: as for `parse`. seconds: the length; 0 ends with the last keyframe. allow_more: use the wide limits.
    A part (pose, camera, gaze) without keyframes stays free; if only some of its channels have keyframes, the others
    stay at rest. InputError: as for `parse`, or seconds outside 0..3600.
    """
    if not 0 <= seconds <= MAX_SECONDS:
        raise InputError(f"A control can be 0 to {MAX_SECONDS:g} seconds long, not {seconds:g}.")
    curves = limit(parse(content, channels), allow_more)
    last = max((curve[-1][0] for curve in curves.values()), default=0.0)
    # plus one frame, the first at or after the last keyframe
    frames = max(1, math.ceil(seconds * FPS - 1e-6)) if seconds else math.ceil(last * FPS - 1e-6) + 1
    times = np.arange(frames) / FPS

    def rows(*names: str) -> list[np.ndarray] | None:
        if not any(name in curves for name in names):
            return None
        return [values_at(curves[n], times) if n in curves else np.full(frames, CHANNELS[n].rest, float) for n in names]

    pose, cam, gaze = rows("yaw", "pitch", "roll"), rows("distance", "x", "y"), rows("horizontal", "vertical")
    parts = {
        "pose": pose and head_pose(*pose),
        "cam": cam and camera(*cam),
        "gaze": gaze and eye_angles(*gaze),
    }
    return Control(**{n: torch.from_numpy(p).float() for n, p in parts.items() if p is not None}, fps=FPS)


def head_pose(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Converts degrees (T,) to SMIRK's pose_params (T,3), axis-angle in radians.

    The head rolls around its nose, then pitches around its ears, then yaws around the vertical axis: Ry(yaw) Rx(-pitch)
    Rz(-roll), with FLAME's axes: x to the image's right, y up, z to the camera.
    """
    from scipy.spatial.transform import Rotation  # scipy takes half of this package's import time

    return Rotation.from_euler("YXZ", np.stack([yaw, -pitch, -roll], axis=-1), degrees=True).as_rotvec()


def camera(distance: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Converts to SMIRK's weak-perspective cam (T,3): scale, and shifts that move the face scale * shift / 2 crops."""
    scale = REST_SCALE / distance
    return np.stack([scale, 2 * x / scale, 2 * y / scale], axis=-1)


def eye_angles(horizontal: np.ndarray, vertical: np.ndarray) -> np.ndarray:
    """Converts degrees (T,) to L2CS-Net's angles (T,2) in radians: the first to the image's left, the second up."""
    return np.radians(np.stack([-horizontal, vertical], axis=-1))


def load(path: str | Path) -> str:
    """Reads the text of a keyframe file, for `to_control`. InputError: no such file, not text."""
    try:
        # utf-8-sig: some editors write a byte order mark
        with open(regular_file(path), encoding="utf-8-sig") as file:
            return file.read(MAX_TEXT + 1)
    except OSError as error:
        raise unusable(path, "read", error) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: save the keyframes in that encoding.") from error
