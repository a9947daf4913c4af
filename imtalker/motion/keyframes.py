"""Control drawn by hand: keyframes per channel, in a JSON format for the editors, people and scripts.

    {"version": 1, "channels": {"yaw": [[0, 0], [0.8, 20], [2, 0]], "horizontal": [[0, -5]]}}

Each keyframe is [seconds, value]: degrees for angles, a fraction of the crop's side for x and y, and for distance a
factor, 1 = as in the crop. Values are held before the first keyframe and after the last. In between, they follow the
piecewise cubic of Fritsch and Carlson, which never overshoots (scipy's PchipInterpolator; a line for two keyframes).
Times are rounded to milliseconds, floor(1000 t + 0.5) / 1000; of several keyframes at one time the last one counts.
web/js/keyframes.js computes the same from the tables CHANNELS and PRESETS, which the nodes pass to it.
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
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..media.files import regular_file, unusable
from .control import Control

log = logging.getLogger("imtalker")

VERSION = 1
MAX_SECONDS, MAX_KEYFRAMES, MAX_TEXT = 3600.0, 10_000, 2_000_000
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

Curves = dict[str, list[tuple[float, float]]]  # keyframes (seconds, value) of each channel, sorted by time


def parse(content: str | Mapping, channels: Iterable[str] = CHANNELS) -> Curves:
    """Reads keyframes from JSON text, or from the decoded document; empty text means no keyframes.

    channels: the ones that are allowed. InputError: any other channel or key, a value that is not a finite number.
    """
    document = _decoded(content) if isinstance(content, str) else content
    if not isinstance(document, Mapping) or not isinstance(document.get("channels", {}), Mapping):
        raise InputError('Keyframes must be JSON of the form {"version": 1, "channels": {"yaw": [[0, 10]]}}.')
    if document.get("version") != VERSION or isinstance(document["version"], bool):
        found = _shown(document.get("version", "none"))
        raise InputError(
            f"These keyframes have version {found} but this IMTalker reads {VERSION}: "
            f'write "version": {VERSION}, or update IMTalker.'
        )
    _refuse_unknown("The keyframes contain", document, ("version", "channels"))
    curves = document.get("channels", {})
    _refuse_unknown("There is a channel", curves, channels)
    found = {name: _keyframes(name, curves[name]) for name in channels if name in curves}
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


def _keyframes(name: str, values: object) -> list[tuple[float, float]]:
    if not isinstance(values, list | tuple):
        raise InputError(f"Channel {name!r} must be a list of keyframes [seconds, value], not {_shown(values)}.")
    if len(values) > MAX_KEYFRAMES:
        raise InputError(f"Channel {name!r} has {len(values)} keyframes: use {MAX_KEYFRAMES} or fewer.")
    curve = {}
    for number, keyframe in enumerate(values, 1):
        where = f"Keyframe {number} of channel {name!r}"
        if not isinstance(keyframe, list | tuple) or len(keyframe) != 2 or not all(map(_is_number, keyframe)):
            raise InputError(f"{where} must be [seconds, value], two numbers, not {_shown(keyframe)}.")
        time, value = keyframe
        if not 0 <= time <= MAX_SECONDS:
            raise InputError(f"{where} is at {time:g} s: move it between 0 and {MAX_SECONDS:g} s.")
        curve[_rounded(time, 1000)] = float(value)
    return sorted(curve.items())


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer larger than any float
        return False


def _rounded(value: float, parts: int) -> float:
    """Rounds to 1 / `parts`, half up, as JavaScript does; Python rounds half to even."""
    return math.floor(value * parts + 0.5) / parts


def limit(curves: Curves, allow_more: bool = False) -> Curves:
    """Clamps values to their channel's limits, or the wide ones; a warning names the channels that were clamped."""
    limited, names = {}, []
    for name, curve in curves.items():
        channel = CHANNELS[name]
        low, high = (channel.wide_low, channel.wide_high) if allow_more else (channel.low, channel.high)
        limited[name] = [(time, min(max(value, low), high)) for time, value in curve]
        if limited[name] != curve:
            names.append(f"{name} ({low:g} to {high:g})")
    if names:
        more = "" if allow_more else "; turn on allow_more to go further"
        log.warning("Keyframes were limited: %s%s.", ", ".join(names), more)
    return limited


def values_at(curve: list[tuple[float, float]], times: np.ndarray) -> np.ndarray:
    """Evaluates a curve of at least one keyframe at `times` in seconds -> float64 of the same shape."""
    knots, values = np.array(curve, np.float64).T
    if len(knots) == 1:
        return np.full(np.shape(times), values[0])
    return PchipInterpolator(knots, values)(np.clip(times, knots[0], knots[-1]))


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


@dataclass(frozen=True)
class Preset:
    """A movement: keyframes (fraction of the period, offset from rest) per channel.

    period: seconds; it is repeated a whole number of times and stretched to fit. 0: once over the whole duration.
    """

    label: str
    channels: Mapping[str, list[tuple[float, float]]]
    period: float = 0.0


POSE_PRESETS = {
    "still": Preset("Still", {"yaw": [(0, 0)], "pitch": [(0, 0)], "roll": [(0, 0)]}),
    "nod": Preset("Nod", {"pitch": [(0, 0), (0.25, -9), (0.5, 3), (0.75, -6), (1, 0)]}, 1.6),
    "shake": Preset("Shake", {"yaw": [(0, 0), (0.2, 12), (0.45, -12), (0.7, 9), (1, 0)]}, 1.6),
    "look_around": Preset(
        "Look around",
        {
            "yaw": [(0, 0), (0.15, 20), (0.35, 20), (0.55, -20), (0.78, -20), (1, 0)],
            "pitch": [(0, 0), (0.15, 4), (0.35, 1), (0.45, -3), (0.6, 3), (0.78, 5), (1, 0)],
        },
        6.0,
    ),
    "look_at_camera": Preset(
        "Look at camera",
        {"yaw": [(0, -18), (0.1, -18), (0.35, 0), (1, 0)], "pitch": [(0, -5), (0.1, -5), (0.35, 0), (1, 0)]},
    ),
    "slow_turn": Preset("Slow turn", {"yaw": [(0, -24), (1, 24)]}),
    "idle_sway": Preset(
        "Idle sway",
        {
            "yaw": [(0, 0), (0.2, 3), (0.45, -2), (0.7, 2), (0.85, -1.5), (1, 0)],
            "pitch": [(0, 0), (0.15, -1.5), (0.4, 1.5), (0.65, -1), (0.9, 1), (1, 0)],
            "roll": [(0, 0), (0.3, 1.5), (0.6, -1.5), (0.8, 1), (1, 0)],
        },
        7.0,
    ),
}
GAZE_PRESETS = {
    "look_at_camera": Preset("Look at camera", {"horizontal": [(0, 0)], "vertical": [(0, 0)]}),
    "look_around": Preset(
        "Look around",
        {
            "horizontal": [(0, 0), (0.2, 0), (0.22, 12), (0.45, 12), (0.47, -12), (0.75, -12), (0.77, 0), (1, 0)],
            "vertical": [(0, 0), (0.2, 0), (0.22, 4), (0.45, 4), (0.47, -2), (0.75, -2), (0.77, 0), (1, 0)],
        },
        4.0,
    ),
    "glance": Preset(
        "Glance aside", {"horizontal": [(0, 0), (0.5, 0), (0.53, 13), (0.75, 13), (0.78, 0), (1, 0)]}, 3.0
    ),
    "slow_turn": Preset("Slow turn", {"horizontal": [(0, -14), (1, 14)]}),
    "idle_sway": Preset(
        "Idle",
        {
            "horizontal": [(0, 0), (0.3, 0), (0.31, 2), (0.55, 2), (0.56, -2.5), (0.8, -2.5), (0.81, 0), (1, 0)],
            "vertical": [(0, 0), (0.3, 0), (0.31, -1), (0.55, -1), (0.56, 1), (0.8, 1), (0.81, 0), (1, 0)],
        },
        3.0,
    ),
}


def expand(preset: Preset, seconds: float, amount: float = 1.0) -> Curves:
    """Turns a preset into keyframes over `seconds`, with its offsets from rest multiplied by `amount`.

    Times are rounded to milliseconds and values to hundredths, half up.
    """
    times = max(1, math.floor(seconds / preset.period + 0.5)) if preset.period else 1
    period = seconds / times
    curves = {}
    for name, pattern in preset.channels.items():
        curve = {}
        for repeat in range(times):
            for share, value in pattern:
                curve[_rounded((repeat + share) * period, 1000)] = _rounded(CHANNELS[name].rest + value * amount, 100)
        curves[name] = sorted(curve.items())
    return curves
