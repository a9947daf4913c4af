"""Expressions drawn by hand: named channels of a face as curves, which a rig adds to any motion.

    {"version": 2, "channels": {"blink left": [[1, 0], [1.12, 1], [1.3, 0]], "smile": [[0, 0.5]]}}

The format is that of motion/keyframes.py, with other channels: the ones of EXPRESSION, and every name that a rig has.
Values are shares of what the rig saw: 1 is as far from the neutral face as the channel went, -1 as far the other way, 0
leaves the motion as it is. Left and right are the person's own.
"""

import logging
import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .keyframes import MAX_SECONDS, Channel, Curves, limit, parse, values_at
from .motion import Motion
from .presets import EXPRESSION_PRESETS, EYES, expand
from .rig import Rig

log = logging.getLogger("imtalker")


def _share(label: str, positive: str) -> Channel:
    return Channel(label, "", -1, 1, -2, 2, positive, step=0.05)


EXPRESSION = {
    "blink left": _share("Blink left", "the person's left eye shuts"),
    "blink right": _share("Blink right", "the person's right eye shuts"),
    "brows": _share("Brows", "the brows go up"),
    "squint": _share("Squint", "the eyes narrow"),
    "smile": _share("Smile", "the corners of the mouth go up"),
    "mouth open": _share("Mouth open", "the mouth opens"),
    "mouth wide": _share("Mouth wide", "the mouth gets wider"),
    "mouth round": _share("Mouth round", "the lips get round"),
    "gaze horizontal": _share("Look aside", "the eyes look to the picture's right"),
    "gaze vertical": _share("Look up", "the eyes look up"),
}

# What rigs call these, as `_plain` compares names: of these lines, the first of which the rig has a channel that moves
# the same way. A minus: one that moves the other way. The last lines are the names of ARKit.
CALLED = {
    "blink left": ("blinkLeft -eyesWide", "blink -eyesWide", "eyeBlinkLeft -eyeWideLeft"),
    "blink right": ("blinkRight -eyesWide", "blink -eyesWide", "eyeBlinkRight -eyeWideRight"),
    "brows": ("brows -browsDown", "browInnerUp browOuterUpLeft browOuterUpRight -browDownLeft -browDownRight"),
    "squint": ("squint", "eyeSquintLeft eyeSquintRight"),
    "smile": (
        "smile -frown",
        "smileLeft smileRight -frown",
        "mouthSmileLeft mouthSmileRight -mouthFrownLeft -mouthFrownRight",
    ),
    "mouth open": ("mouthOpen", "jawOpen"),
    "mouth wide": ("mouthWide", "mouthWidth", "mouthStretchLeft mouthStretchRight"),
    "mouth round": ("mouthRound", "mouthPucker mouthFunnel"),
    "gaze horizontal": (
        "gazeHorizontal",
        "gazeX",
        "eyeLookOutLeft eyeLookInRight -eyeLookInLeft -eyeLookOutRight",
    ),
    "gaze vertical": ("gazeVertical", "gazeY", "eyeLookUpLeft eyeLookUpRight -eyeLookDownLeft -eyeLookDownRight"),
}

ABSENT, WEAK = "not in this rig", "too weak in this rig"  # why a channel cannot be moved
BLINK_SECONDS = EXPRESSION_PRESETS["blink"].length
LEAST_PAUSE, MAX_BLINKS = 0.6, 60.0  # seconds from the start of one blink to the next at least; blinks a minute at most


def targets(rig: Rig, name: str) -> dict[str, float]:
    """The rig's channels that a channel of keyframes moves, and which way, 1 or -1; {} if the rig has none to use."""
    usable = {_plain(rig.names[number]): rig.names[number] for number in rig.usable()}
    if name not in CALLED:
        return {usable[_plain(name)]: 1.0} if _plain(name) in usable else {}
    for line in CALLED[name]:
        signs = {word.lstrip("-"): -1.0 if word.startswith("-") else 1.0 for word in line.split()}
        found = {usable[_plain(word)]: sign for word, sign in signs.items() if _plain(word) in usable}
        if 1.0 in found.values():
            return found
    return {}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower() or name


def lacking(rig: Rig, names: Iterable[str] = EXPRESSION) -> dict[str, str]:
    """Of these channels, the ones that the rig cannot move as they are named, each with the reason."""
    weak = {_plain(c.name) for c in rig.channels} - {_plain(rig.names[number]) for number in rig.usable()}
    reasons = {}
    for name in names:
        if not targets(rig, name):
            known = weak & {_plain(name), *(_plain(word) for line in CALLED.get(name, ()) for word in line.split())}
            reasons[name] = WEAK if known else ABSENT
    return reasons


def one_for_both(rig: Rig) -> bool:
    """Whether the rig moves both eyes with one channel: a wink is then a blink."""
    left = targets(rig, "blink left")
    return bool(left) and left == targets(rig, "blink right")


def express(
    motion: Motion,
    rig: Rig,
    content: str | Mapping,
    *,
    seconds: float = 0.0,
    allow_more: bool = False,
    blinks: float = 0.0,
    seed: int = 0,
) -> Motion:
    """The motion with the expressions of the keyframes added.

    content: keyframes as JSON text or decoded. What the rig cannot move is left out; a warning names it. seconds: the
    length of the result, whose last latent is held in a longer one; 0 keeps the length. allow_more: values up to 2, and
    sums of motion and keyframes beyond what the rig saw. blinks: so many a minute are added, 0..60, placed by the seed.
    InputError: as for `keyframes.parse`, a rig of other weights, numbers out of range.
    """
    if not 0 <= seconds <= MAX_SECONDS:
        raise InputError(f"A motion can be made 0 to {MAX_SECONDS:g} seconds long, not {seconds:g}.")
    frames = math.ceil(seconds * motion.fps - 1e-6) if seconds else len(motion)
    motion = motion.at_fps(motion.fps, frames)
    return next(express_stream([motion], rig, content, allow_more=allow_more, blinks=blinks, seed=seed))


def express_stream(
    blocks: Iterable[Motion],
    rig: Rig,
    content: str | Mapping,
    *,
    allow_more: bool = False,
    blinks: float = 0.0,
    seed: int = 0,
) -> Iterator[Motion]:
    """`express` for motion that arrives in blocks at one frame rate, whose first frame is at 0 s.

    Bad keyframes and numbers raise at once, a rig of other weights with the first block.
    """
    curves = _limited(content, allow_more)
    asked = {**curves, **dict.fromkeys(EYES if blinks else ())}
    if missing := lacking(rig, asked):
        log.warning("%s", cannot_move(missing))
    curves = {name: curve for name, curve in curves.items() if name not in missing}
    blink_times(blinks, seed, 0)
    return _added(blocks, rig, curves, allow_more, blinks, seed)


def _added(
    blocks: Iterable[Motion], rig: Rig, curves: Curves, allow_more: bool, blinks: float, seed: int
) -> Iterator[Motion]:
    start = 0
    for motion in blocks:
        times = (start + np.arange(len(motion))) / motion.fps
        shares = _shares(rig, curves, times, blinks, seed)
        read = {} if allow_more else rig.read(motion)
        yield rig.add(motion, {name: _change(rig, name, share, read.get(name)) for name, share in shares.items()})
        start += len(motion)


def _limited(content: str | Mapping, allow_more: bool) -> Curves:
    curves = parse(content, None)
    return limit(curves, allow_more, {name: EXPRESSION.get(name) or _share(name, name) for name in curves})


def cannot_move(missing: Mapping[str, str]) -> str:
    """One sentence on channels that have keyframes but no part in the rig."""
    names = ", ".join(f"{name} ({reason})" for name, reason in missing.items())
    return f"The rig cannot move {names}, so that is left out: connect another rig."


def _shares(rig: Rig, curves: Curves, times: np.ndarray, blinks: float, seed: int) -> dict[str, np.ndarray]:
    """By channel of the rig, the values of the curves over time; of several that move one, the strongest counts."""
    values = {name: values_at(curve, times) for name, curve in curves.items()}
    if blinks:
        closed = _blinking(times, blinks, seed)
        for name in EYES:
            own = values.get(name, np.zeros(len(times)))
            values[name] = np.minimum(own + closed, np.maximum(own, 1))
    found: dict[str, np.ndarray] = {}
    for name, value in values.items():
        for target, sign in targets(rig, name).items():
            before = found.get(target, np.zeros(len(times)))
            found[target] = np.where(np.abs(value) > np.abs(before), sign * value, before)
    return found


def _change(rig: Rig, name: str, share: np.ndarray, read: Tensor | None) -> Tensor:
    """What is added to a channel, in its own unit; read: its values so far, where the sum must stay within the seen."""
    channel = rig.channels[rig.names.index(name)]
    neutral = min(max(0.0, channel.low), channel.high)
    change = torch.from_numpy(share).float() * max(channel.high - neutral, neutral - channel.low)
    if read is None:
        return change
    read = read.to(change)
    return (read + change).clamp(read.clamp_max(channel.low), read.clamp_min(channel.high)) - read


def blink_times(rate: float, seed: int, seconds: float) -> list[float]:
    """When blinks start, in seconds, below `seconds`: `rate` a minute on average, 0..60, with natural pauses.

    Pauses between blinks are skewed, many short and few long ones; 17 a minute is usual at rest, 26 in conversation and
    4 or 5 in reading (Bentivoglio et al. 1997). The same seed gives the same times, however long the motion is.
    """
    if not 0 <= rate <= MAX_BLINKS:
        raise InputError(f"There can be 0 to {MAX_BLINKS:g} blinks a minute, not {rate:g}.")
    if not rate:
        return []
    chance = random.Random(seed)
    longer = (60 / rate - LEAST_PAUSE) / 2
    found, time = [], chance.random() * 60 / rate
    while time < seconds:
        found.append(round(time, 3))
        # a gamma distribution of shape 2; `random` alone gives the same numbers in every version of Python
        time += LEAST_PAUSE - longer * (math.log(1 - chance.random()) + math.log(1 - chance.random()))
    return found


def _blinking(times: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """How far the eyes are shut at these times, 0..1."""
    shape = expand(EXPRESSION_PRESETS["blink"], BLINK_SECONDS, 1, EXPRESSION)["blink left"]
    closed = np.zeros(len(times))
    for start in blink_times(rate, seed, times[-1] + 1e-6 if len(times) else 0):
        if start + BLINK_SECONDS >= times[0]:
            closed = np.maximum(closed, values_at(shape, times - start))
    return closed
