"""Synthetic speech with known phoneme times: espeak-ng speaks random sentences in many voices.

Only training uses this. espeak-ng (https://github.com/espeak-ng/espeak-ng) is installed separately. Its library keeps
one state per process, so a lock lets one thread speak at a time.
"""

import ctypes
import ctypes.util
import functools
import math
import os
import sys
import threading
from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor

from ..errors import InputError
from ..media.audio import SAMPLE_RATE

# Values of espeak-ng's speak_lib.h
SYNCHRONOUS, PHONEME_EVENTS, AS_IPA, DONT_EXIT = 2, 0x1, 0x2, 0x8000
UTF8, END_PAUSE, FROM_CHARACTER = 0x1, 0x1000, 1
RATE, PITCH, RANGE = 1, 3, 4
PHONEME = 7

VARIANTS = "m1 m2 m3 m4 m5 m6 m8 f1 f2 f3 f4 croak whisper grandma grandpa klatt2 klatt4 Andrea Denis anika"
# held out from training, together with one language, for measuring
HELD_OUT_VARIANTS = "m7 f5 klatt3 Annie"
HELD_OUT_LANGUAGE = "pt"
WORDS = {
    "en-us": "the a map of my house blue river moves slowly people buy apples from farmers before summer we push both "
    "heavy boxes up over five warm evenings maybe you feel happy when music begins father brought bread paper "
    "open window quiet voice thank thought yellow jump child church measure pleasure village bright morning",
    "en": "water over there perhaps a brown bird would fly above the old bridge while people wait for a boat good "
    "afternoon everybody please remember my umbrella it was beautiful weather nothing better than fresh butter",
    "de": "der mond ist schön über dem wald wir wollen morgen früh brot kaufen bevor papa mit dem bus fährt viele "
    "bunte blumen am offenen fenster apfel pfeffer wasser müde bäume höhle zwölf sommer schule freude heute",
    "fr": "le bateau bleu va partir avant midi nous voulons manger du pain beaucoup de fleurs pour ma mère petit "
    "homme bonjour au revoir une femme parle doucement dans la rue vieux pont sous la pluie jeune fille",
    "es": "la mesa blanca está abajo mi padre compra pan para toda la familia buenos días vamos a beber agua fresca "
    "nubes verdes montaña pequeño caballo mujer amigo nuevo puente hombre llamada fuego mañana",
    "it": "il mare è calmo oggi mia madre prepara una buona cena bambini giocano davanti alla porta piove sempre "
    "poco vino rosso bella giornata amico vecchio ponte famiglia acqua fresca luna piena",
    "nl": "de boom bij mijn huis heeft mooie blauwe bloemen wij kopen vers brood voor moeder goedemorgen vrouw water",
    "pt": "o barco pequeno vai para a ilha bom dia minha mãe compra pão e uvas muito vento na ponte azul homem velho",
}
CONSONANTS = "p b m f v w t d n l s z k g h r y sh ch th pl br fr st sp"
VOWELS = "a e i o u a e i o u ai au ee oo ou"


@dataclass(frozen=True)
class Phoneme:
    """One sound by its IPA name, "" for silence, from `start` to `end` in seconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """Mono speech (samples,), float32 at 16 kHz in -1..1, and its phonemes, without gaps from 0 to the end."""

    waveform: Tensor
    phonemes: tuple[Phoneme, ...]

    @property
    def seconds(self) -> float:
        return len(self.waveform) / SAMPLE_RATE


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),  # a union, which holds the name of a phoneme
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Espeak:
    """The espeak-ng library, loaded once per process."""

    def __init__(self):
        name = ctypes.util.find_library("espeak-ng") or ctypes.util.find_library("libespeak-ng")
        if name is None and sys.platform == "win32":
            path = os.path.join(os.environ.get("PROGRAMFILES", ""), "eSpeak NG", "libespeak-ng.dll")
            name = path if os.path.exists(path) else None
        if name is None:
            raise InputError("Training on synthetic speech needs espeak-ng, which was not found: install it first.")
        try:
            self._library = ctypes.CDLL(name)
        except OSError as error:
            raise InputError(f"espeak-ng ({name}) cannot be loaded ({error}): reinstall it.") from error
        self._samples: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        self._receive = _Callback(self._received)  # referenced, or it would be collected while the library calls it
        self._lock = threading.Lock()
        self.rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEME_EVENTS | AS_IPA | DONT_EXIT)
        if self.rate <= 0:
            raise InputError("espeak-ng does not find its voices: install its data package (espeak-ng-data) too.")
        self._library.espeak_SetSynthCallback(self._receive)

    def _received(self, samples, count, events) -> int:
        if samples and count > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type:
            if events[index].type == PHONEME:
                self._events.append((events[index].sample, bytes(events[index].name).decode("utf-8", "ignore")))
            index += 1
        return 0

    def say(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> tuple[np.ndarray, list]:
        with self._lock:
            if self._library.espeak_SetVoiceByName(voice.encode()):
                raise InputError(f"espeak-ng has no voice {voice!r}: `espeak-ng --voices` lists the available ones.")
            for parameter, value in ((RATE, rate), (PITCH, pitch), (RANGE, pitch_range)):
                self._library.espeak_SetParameter(parameter, value, 0)
            self._samples, self._events = [], []
            data = text.encode()
            flags = UTF8 | END_PAUSE
            self._library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, FROM_CHARACTER, 0, flags, None, None)
            samples = np.concatenate(self._samples) if self._samples else np.zeros(0, np.int16)
            return samples, self._events


@functools.cache
def _espeak() -> _Espeak:
    return _Espeak()


def available() -> bool:
    """Whether espeak-ng is installed."""
    try:
        _espeak()
    except InputError:
        return False
    return True


def say(text: str, voice: str = "en-us", rate: int = 175, pitch: int = 50, pitch_range: int = 50) -> Utterance:
    """Speaks a text.

    voice: espeak-ng's "language" or "language+variant"; rate: words a minute, 80..450; pitch and pitch_range: 0..99.
    Raises InputError without espeak-ng, for an unknown voice, and for a text without any sound.
    """
    samples, events = _espeak().say(text, voice, rate, pitch, pitch_range)
    if not len(samples):
        raise InputError(f"espeak-ng finds nothing to speak in {text[:40]!r}: give it words.")
    source_rate = _espeak().rate
    # seven times as fast as media.resample on short pieces, and good enough for speech
    divisor = math.gcd(SAMPLE_RATE, source_rate)
    resampled = resample_poly(samples.astype(np.float32) / 32768, SAMPLE_RATE // divisor, source_rate // divisor)
    waveform = torch.from_numpy(resampled.astype(np.float32))
    # "(de)" marks a language switch, not a sound
    starts = [(sample / source_rate, name) for sample, name in events if not name.startswith("(")]
    seconds = len(waveform) / SAMPLE_RATE
    starts = [(0.0, ""), *starts, (seconds, "")]
    phonemes = [
        Phoneme(name, start, min(end, seconds)) for (start, name), (end, _) in zip(starts, starts[1:]) if end > start
    ]
    return Utterance(waveform, tuple(phonemes))


def joined(parts: list[Utterance]) -> Utterance:
    """Joins utterances into one."""
    phonemes, start = [], 0.0
    for part in parts:
        phonemes += [Phoneme(p.name, p.start + start, p.end + start) for p in part.phonemes]
        start += part.seconds
    return Utterance(torch.cat([part.waveform for part in parts]), tuple(phonemes))


def silence(seconds: float) -> Utterance:
    """An utterance of silence, rounded to samples."""
    samples = round(seconds * SAMPLE_RATE)
    return Utterance(torch.zeros(samples), (Phoneme("", 0.0, samples / SAMPLE_RATE),))


def random_text(random: np.random.Generator, language: str) -> str:
    """Random words of the language, some of them nonsense syllables, with a comma or full stop here and there."""
    words = WORDS[language].split()
    spoken = []
    for _ in range(random.integers(3, 10)):
        if random.random() < 0.3:
            syllables = random.integers(1, 4)
            word = "".join(random.choice(CONSONANTS.split()) + random.choice(VOWELS.split()) for _ in range(syllables))
        else:
            word = str(random.choice(words))
        spoken.append(word + random.choice(["", "", "", "", ",", "."]))
    return " ".join(spoken) + "."


def random_utterance(seed: int, seconds: float, held_out: bool = False) -> Utterance:
    """Speech with pauses, cut to `seconds` (rounded to samples); text, voice and noise follow from the seed.

    Each utterance has one voice, rate and pitch, a random loudness, faint noise and a random spectral tilt.
    held_out: uses voices that training never has, and in half of the clips a language that training never has.

    espeak-ng carries glottal phase and hiss over from earlier calls in the process: the same calls in the same order
    give the same samples; another order shifts samples and phonemes together by milliseconds.
    """
    random = np.random.default_rng((seed, int(held_out)))
    variants = HELD_OUT_VARIANTS if held_out else VARIANTS
    languages = [language for language in WORDS if language != HELD_OUT_LANGUAGE]
    language = str(random.choice(languages))
    if held_out and random.random() < 0.5:
        language = HELD_OUT_LANGUAGE
    voice = f"{language}+{random.choice(variants.split())}"
    rate, pitch, spread = random.integers(110, 240), random.integers(10, 90), random.integers(20, 90)
    parts = [silence(random.uniform(0, 0.8))]
    while sum(part.seconds for part in parts) < seconds:
        parts.append(say(random_text(random, language), voice, int(rate), int(pitch), int(spread)))
        if random.random() < 0.4:
            parts.append(silence(random.uniform(0.1, 1.2)))
    whole = joined(parts)
    waveform = whole.waveform[: round(seconds * SAMPLE_RATE)].numpy()
    end = len(waveform) / SAMPLE_RATE
    phonemes = tuple(Phoneme(p.name, p.start, min(p.end, end)) for p in whole.phonemes if p.start < end)
    return Utterance(torch.from_numpy(_recorded(waveform, random)), phonemes)


def _recorded(waveform: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Imitates a recording: a spectral tilt of up to about 6 dB an octave, and noise 20 to 60 dB below the speech."""
    tilt = random.uniform(-0.5, 0.5)
    tilted = waveform + tilt * np.concatenate([waveform[:1], waveform[:-1]])
    loudness = float(np.sqrt(np.mean(np.square(tilted)))) + 1e-4
    noise = random.standard_normal(len(waveform), dtype=np.float32)
    tilted = tilted + loudness * 10 ** (-random.uniform(20, 60) / 20) * noise
    return (tilted * random.uniform(0.3, 1) / max(1e-3, float(np.abs(tilted).max()))).astype(np.float32)
