"""Movements to start from: presets that the keyframe editors and Idle Motion turn into keyframes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .keyframes import CHANNELS, Channel, Curves, rounded


@dataclass(frozen=True)
class Preset:
    """A movement: keyframes (fraction of its length, offset from rest) per channel.

    length: seconds that it takes unless someone chooses others. repeats: in a longer time it is done several times, a
    whole number of them, rather than slower.
    """

    label: str
    channels: Mapping[str, list[tuple[float, float]]]
    length: float
    repeats: bool = True


def _times(pattern: list[tuple[float, float]], factor: float) -> list[tuple[float, float]]:
    return [(share, value * factor) for share, value in pattern]


POSE_PRESETS = {
    "still": Preset("Still", {"yaw": [(0, 0)], "pitch": [(0, 0)], "roll": [(0, 0)]}, 1.0, False),
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
        4.0,
        False,
    ),
    "slow_turn": Preset("Slow turn", {"yaw": [(0, -24), (1, 24)]}, 4.0, False),
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
    "look_at_camera": Preset("Look at camera", {"horizontal": [(0, 0)], "vertical": [(0, 0)]}, 1.0, False),
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
    "slow_turn": Preset("Slow turn", {"horizontal": [(0, -14), (1, 14)]}, 4.0, False),
    "idle_sway": Preset(
        "Idle",
        {
            "horizontal": [(0, 0), (0.3, 0), (0.31, 2), (0.55, 2), (0.56, -2.5), (0.8, -2.5), (0.81, 0), (1, 0)],
            "vertical": [(0, 0), (0.3, 0), (0.31, -1), (0.55, -1), (0.56, 1), (0.8, 1), (0.81, 0), (1, 0)],
        },
        3.0,
    ),
}
EYES = ("blink left", "blink right")
# shares of what a rig saw, see motion/expression.py; lids fall faster than they rise (VanderWerf et al. 2003)
SHUT = [(0, 0), (0.3, 1), (0.45, 1), (1, 0)]
HELD = [(0, 0), (0.25, 1), (0.75, 1), (1, 0)]
EXPRESSION_PRESETS = {
    "blink": Preset("Blink", dict.fromkeys(EYES, SHUT), 0.32, False),
    "wink": Preset("Wink", {"blink left": HELD, "smile": _times(HELD, 0.3)}, 0.6, False),
    "smile": Preset("Smile", {"smile": HELD, "squint": _times(HELD, 0.4)}, 2.0, False),
    "surprise": Preset(
        "Surprise",
        {
            "brows": HELD,
            "mouth open": _times(HELD, 0.6),
            "mouth round": _times(HELD, 0.4),
            **dict.fromkeys(EYES, _times(HELD, -0.5)),
        },
        1.4,
        False,
    ),
    "frown": Preset(
        "Frown", {"brows": _times(HELD, -1), "squint": _times(HELD, 0.5), "smile": _times(HELD, -0.6)}, 2.0, False
    ),
    "look_away": Preset(
        "Look away",
        {
            "gaze horizontal": [(0, 0), (0.06, 0.9), (0.9, 0.9), (0.96, 0), (1, 0)],
            "gaze vertical": [(0, 0), (0.06, -0.3), (0.9, -0.3), (0.96, 0), (1, 0)],
        },
        1.5,
        False,
    ),
}


def expand(preset: Preset, seconds: float, amount: float = 1.0, channels: Mapping[str, Channel] = CHANNELS) -> Curves:
    """Turns a preset into keyframes from 0 to `seconds`, with its offsets from rest multiplied by `amount`.

    Times are rounded to milliseconds and values to hundredths, half up, as web/js/keyframes.js does.
    """
    times = max(1, math.floor(seconds / preset.length + 0.5)) if preset.repeats else 1
    length = seconds / times
    curves = {}
    for name, pattern in preset.channels.items():
        curve = {}
        for repeat in range(times):
            for share, value in pattern:
                curve[rounded((repeat + share) * length, 1000)] = rounded(channels[name].rest + value * amount, 100)
        curves[name] = sorted(curve.items())
    return curves
