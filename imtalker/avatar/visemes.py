"""Motion for synthetic speech: the mouth from its phonemes, the rest of the head at random from a seed.

The avatar's motion latent is not learned: its channels are the named values of drawn.head.MOTION.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from ..drawn.head import DEGREES, GROWTH, MOTION, MOTION_SIZE, TRAVEL
from ..drawn.portraits import ZOOM
from ..media.audio import FPS
from ..motion.control import Control
from ..motion.keyframes import camera, eye_angles, head_pose
from .speech import Phoneme

MOUTH = ("mouth_open", "mouth_width", "mouth_round", "smile")
CHANNEL = {name: number for number, name in enumerate(MOTION)}

# What a value of 1 means: degrees for angles, shares of the image side for x and y, relative growth for scale. Signs as
# in keyframes.py: yaw, x and gaze_x to the image's right; pitch, y and gaze_y up; roll clockwise; scale larger.
SIDES = TRAVEL * ZOOM / 2
LIMITS = {**DEGREES, "x": SIDES, "y": SIDES, "scale": GROWTH, "gaze_x": 30.0, "gaze_y": 30.0}

RATE = 200  # points a second at which mouth shapes are blended
SMOOTHING = 0.035  # seconds, standard deviation of the Gaussian blend
LIPS_MOVE = 0.03  # seconds from closed lips to half-open ones

# (mouth_open, mouth_width, mouth_round, weight in the blend)
VOWEL = {
    "a": (0.90, 0.1, 0.0), "ɑ": (0.95, -0.1, 0.0), "æ": (0.85, 0.4, 0.0), "ɐ": (0.70, 0.1, 0.0),
    "ʌ": (0.70, 0.0, 0.0), "ɒ": (0.80, -0.3, 0.4), "ɔ": (0.65, -0.4, 0.7), "o": (0.50, -0.6, 0.8),
    "ʊ": (0.35, -0.5, 0.8), "u": (0.25, -0.8, 1.0), "ɯ": (0.25, 0.0, 0.2), "e": (0.50, 0.5, 0.0),
    "ɛ": (0.60, 0.4, 0.0), "ə": (0.40, 0.0, 0.0), "ɜ": (0.45, -0.1, 0.1), "ɚ": (0.40, -0.1, 0.2),
    "ɝ": (0.45, -0.1, 0.2), "ɪ": (0.35, 0.4, 0.0), "i": (0.25, 0.8, 0.0), "ɨ": (0.30, 0.3, 0.0),
    "y": (0.25, -0.6, 0.9), "ʏ": (0.30, -0.5, 0.8), "ø": (0.45, -0.5, 0.8), "œ": (0.55, -0.4, 0.6),
    "ɵ": (0.45, -0.4, 0.6), "ɤ": (0.50, 0.0, 0.1), "ᵻ": (0.35, 0.3, 0.0),
}  # fmt: skip
CONSONANT = {
    "p": (0.00, 0.0, 0.0, 2.0), "b": (0.00, 0.0, 0.0, 2.0), "m": (0.00, 0.0, 0.0, 2.0),
    "f": (0.10, 0.1, 0.0, 1.5), "v": (0.10, 0.1, 0.0, 1.5), "β": (0.10, 0.0, 0.0, 1.0), "ʋ": (0.15, 0.0, 0.1, 1.0),
    "w": (0.15, -0.8, 1.0, 1.2), "ɥ": (0.15, -0.7, 0.9, 1.2),
    "ʃ": (0.20, -0.4, 0.6, 0.8), "ʒ": (0.20, -0.4, 0.6, 0.8), "ɹ": (0.25, -0.2, 0.4, 0.5),
    "s": (0.12, 0.4, 0.0, 0.7), "z": (0.12, 0.4, 0.0, 0.7), "t": (0.18, 0.2, 0.0, 0.5), "d": (0.18, 0.2, 0.0, 0.5),
    "n": (0.20, 0.2, 0.0, 0.5), "l": (0.30, 0.2, 0.0, 0.5), "θ": (0.20, 0.2, 0.0, 0.7), "ð": (0.20, 0.2, 0.0, 0.7),
    "j": (0.25, 0.6, 0.0, 0.6), "ɲ": (0.25, 0.5, 0.0, 0.6), "ʎ": (0.25, 0.5, 0.0, 0.6),
}  # fmt: skip
THROAT = (0.30, 0.0, 0.0, 0.25)  # all other consonants: the neighbours shape the mouth
REST = (0.0, 0.0, 0.0, 0.8)  # silence
VOWEL_WEIGHT = 1.0
LIPS = "pbm"
TEETH = "fv"
BURST = 0.045  # seconds: for a stop shorter than this espeak-ng reports the burst without its closure


def mouth_shapes(phonemes: Sequence[Phoneme], frames: int) -> np.ndarray:
    """The mouth at the middle of each frame, (frames,4) float32 in the order of MOUTH, at 25 frames a second.

    Every sound has a shape and a weight, blended with its neighbours by a Gaussian. Whatever surrounds them, p, b and m
    close the lips and f and v nearly do; silence closes them too.
    """
    count = max(1, frames * RATE // FPS)
    shapes = np.tile(np.array(REST), (count, 1))
    closed, biting = np.zeros(count), np.zeros(count)
    for number, phoneme in enumerate(phonemes):
        letters = _letters(phoneme.name)
        edges = np.linspace(phoneme.start, phoneme.end, len(letters) + 1)
        for sound, start, end in zip(letters, edges, edges[1:]):
            shapes[round(start * RATE) : round(end * RATE)] = _shape(sound)
            if sound in (*LIPS, *TEETH):
                before = phonemes[number - 1] if number else None
                mask = closed if sound in LIPS else biting
                first, last = _closure(sound, start, end, before)
                mask[max(0, round(first * RATE)) : max(0, round(last * RATE))] = 1
    weight = gaussian_filter1d(shapes[:, 3], SMOOTHING * RATE, mode="nearest")[:, None]
    blended = gaussian_filter1d(shapes[:, :3] * shapes[:, 3:], SMOOTHING * RATE, axis=0, mode="nearest") / weight
    blended[:, 0] *= 1 - _eased(closed)
    blended[:, 0] = np.minimum(blended[:, 0], 1 - 0.88 * _eased(biting))
    smile = 0.3 * gaussian_filter1d(blended[:, 1], 0.15 * RATE, mode="nearest").clip(0)
    points = ((np.arange(frames) + 0.5) * RATE / FPS).astype(int).clip(max=count - 1)
    return np.column_stack([blended, smile])[points].astype(np.float32)


SOUNDS = ("", *VOWEL, *CONSONANT, "other")


def sound_labels(phonemes: Sequence[Phoneme], frames: int) -> np.ndarray:
    """The index into SOUNDS of the sound at the middle of each frame, (frames,) int64; unlisted sounds are "other"."""
    indices = {sound: index for index, sound in enumerate(SOUNDS)}
    labels, times = np.zeros(frames, np.int64), (np.arange(frames) + 0.5) / FPS
    for phoneme in phonemes:
        letters = _letters(phoneme.name)
        edges = np.linspace(phoneme.start, phoneme.end, len(letters) + 1)
        for sound, start, end in zip(letters, edges, edges[1:]):
            labels[(times >= start) & (times < end)] = indices.get(sound, indices["other"])
    return labels


def _letters(name: str) -> list[str]:
    """The letters of an IPA name that have a shape: both vowels of a diphthong, but no lengths, tones or accents."""
    letters = [c for c in unicodedata.normalize("NFD", name) if unicodedata.category(c) in ("Ll", "Lo")]
    return letters or [""]


def _shape(sound: str) -> tuple[float, float, float, float]:
    if not sound:
        return REST
    if sound in VOWEL:
        return (*VOWEL[sound], VOWEL_WEIGHT)
    return CONSONANT.get(sound, THROAT)


def _closure(sound: str, start: float, end: float, before: Phoneme | None) -> tuple[float, float]:
    """From when until when the lips touch, or the teeth touch the lip, in seconds."""
    if sound in "pb" and end - start < BURST:
        earliest = before.start + 0.4 * (before.end - before.start) if before else start
        return max(earliest, start - 0.06), start + 0.25 * (end - start)
    return start, start + (0.75 if sound in "pb" else 0.9) * (end - start)


def _eased(mask: np.ndarray) -> np.ndarray:
    """1 inside the mask, falling off smoothly on both sides."""
    distance = np.full(len(mask), np.inf)
    for order in (slice(None), slice(None, None, -1)):
        steps, here = np.inf, distance[order]
        for index, value in enumerate(mask[order]):
            steps = 0 if value else steps + 1
            here[index] = min(here[index], steps)
    return np.exp(-np.square(distance / (1.2 * LIPS_MOVE * RATE)))


def head_motion(phonemes: Sequence[Phoneme], frames: int, seed: int) -> np.ndarray:
    """The whole head, (frames,16) float32 in the order of MOTION: the mouth from the phonemes, the rest from the seed.

    Each clip has its own pose, head position, head size and liveliness. The head sways about the pose and nods on some
    long vowels; position and size drift a little; the gaze jumps and rests; eyes blink every few seconds.
    """
    random = np.random.default_rng(seed)
    rows = np.zeros((frames, MOTION_SIZE), np.float32)
    liveliness = np.exp(random.uniform(np.log(0.04), np.log(0.3)))
    for name, centre, sway in (("yaw", 0.18, 1.0), ("pitch", 0.14, 0.7), ("roll", 0.1, 0.5)):
        noise = _wander(random, frames, random.uniform(0.3, 0.9))
        rows[:, CHANNEL[name]] = random.normal(0, centre) + liveliness * sway * noise
    for name, centre in (("x", 0.25), ("y", 0.25), ("scale", 0.25)):
        rows[:, CHANNEL[name]] = random.normal(0, centre) + 0.6 * liveliness * _wander(random, frames, 1.0)
    nods, raised = _accents(random, phonemes, frames)
    rows[:, CHANNEL["pitch"]] -= nods
    rows[:, CHANNEL["brows"]] = random.normal(0, 0.1) + raised + 0.08 * _wander(random, frames, 0.8)
    rows[:, [CHANNEL["gaze_x"], CHANNEL["gaze_y"]]] = _glances(random, frames)
    rows[:, CHANNEL["blink"]] = _blinks(random, frames)
    rows[:, CHANNEL["mouth_open"] : CHANNEL["smile"] + 1] = mouth_shapes(phonemes, frames)
    rows[:, CHANNEL["smile"]] += random.normal(0.05, 0.15) + 0.05 * _wander(random, frames, 1.0)
    return rows.clip(-1, 1)


def _wander(random: np.random.Generator, frames: int, seconds: float) -> np.ndarray:
    """A smooth random curve (frames,) of unit variance that changes over about `seconds`."""
    sigma = seconds * FPS
    margin = int(4 * sigma)
    noise = gaussian_filter1d(random.standard_normal(frames + 2 * margin), sigma)[margin : margin + frames]
    return noise * np.sqrt(2 * sigma * np.sqrt(np.pi))


def _accents(random: np.random.Generator, phonemes: Sequence[Phoneme], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Nods and raised brows on some long vowels, both (frames,) and 0 or more."""
    times = (np.arange(frames) + 0.5) / FPS
    nods, raised = np.zeros(frames), np.zeros(frames)
    for phoneme in phonemes:
        long_vowel = phoneme.end - phoneme.start > 0.12 and _letters(phoneme.name)[0] in VOWEL
        if long_vowel and random.random() < 0.4:
            bump = np.exp(-0.5 * np.square((times - (phoneme.start + phoneme.end) / 2) / 0.12))
            nods += random.uniform(0.03, 0.12) * bump
            raised += random.uniform(0, 0.3) * bump
    return nods, raised


def _glances(random: np.random.Generator, frames: int) -> np.ndarray:
    """Gaze (frames,2): it rests for 0.3 to 2.5 s, then jumps within two frames, every third time to the front."""
    rows, start = np.zeros((frames, 2)), 0
    spread = np.exp(random.uniform(np.log(0.08), np.log(0.4)))
    target = random.normal(0, spread, 2)
    while start < frames:
        end = start + int(random.uniform(0.3, 2.5) * FPS)
        rows[start:end] = target
        target = np.zeros(2) if random.random() < 1 / 3 else random.normal(0, spread, 2) * (1, 0.6)
        start = end
    return gaussian_filter1d(rows, 0.6, axis=0, mode="nearest")


def _blinks(random: np.random.Generator, frames: int) -> np.ndarray:
    """Eyelids (frames,): a blink every 1.5 to 6 s that takes 0.2 to 0.35 s and closes faster than it opens."""
    times, lids = (np.arange(frames) + 0.5) / FPS, np.zeros(frames)
    time = random.uniform(0, 4)
    while time < frames / FPS:
        closing, shut, opening = random.uniform(0.06, 0.1), random.uniform(0.03, 0.08), random.uniform(0.1, 0.17)
        knots = np.cumsum([time, closing, shut, opening])
        lids = np.maximum(lids, np.interp(times, knots, [0, 1, 1, 0]))
        time += random.uniform(1.5, 6)
    return lids


def motion_control(motion: np.ndarray) -> Control:
    """The control (pose, cam and gaze) that describes a motion (frames,16), in the units of LIMITS and keyframes.py."""
    value = {name: motion[:, CHANNEL[name]].astype(np.float64) * limit for name, limit in LIMITS.items()}
    pose = head_pose(value["yaw"], value["pitch"], value["roll"])
    cam = camera(1 / (1 + value["scale"]), value["x"], value["y"])
    gaze = eye_angles(value["gaze_x"], value["gaze_y"])
    return Control(*(torch.from_numpy(part).float() for part in (pose, cam, gaze)), fps=float(FPS))
