"""Synthetic speech. Needs espeak-ng on the machine."""

import ctypes.util

import numpy as np
import pytest
import torch

from imtalker.avatar import speech
from imtalker.errors import InputError

espeak = pytest.mark.skipif(not speech.available(), reason="espeak-ng is not installed")
SIBILANT = set("szʃʒ")


def energies(utterance, matches):
    """RMS of the middle half of every phoneme whose name matches."""
    values = []
    for phoneme in utterance.phonemes:
        quarter = (phoneme.end - phoneme.start) / 4
        first, last = (round(t * 16000) for t in (phoneme.start + quarter, phoneme.end - quarter))
        if matches(phoneme.name) and last - first > 160:
            values.append(utterance.waveform[first:last].square().mean().sqrt().item())
    return np.array(values)


def noisiness(utterance, matches):
    """Share of sign changes between samples in the middle of matching phonemes: high for hiss, low for a voice."""
    values = []
    for phoneme in utterance.phonemes:
        middle = round((phoneme.start + phoneme.end) * 8000)
        part = utterance.waveform[max(0, middle - 160) : middle + 160]
        if matches(phoneme.name):
            values.append((part[1:].sign() != part[:-1].sign()).float().mean().item())
    return np.array(values)


@espeak
def test_phonemes_cover_the_sound():
    utterance = speech.say("Bob met a happy baby, and we moved on.", "en-us+f2")
    names = "".join(phoneme.name for phoneme in utterance.phonemes)
    assert names.startswith("b")
    assert "h" in names
    assert "v" in names
    edges = [utterance.phonemes[0].start, *(p.end for p in utterance.phonemes)]
    assert edges[0] == 0
    assert edges[-1] == pytest.approx(utterance.seconds, abs=1e-3)
    assert all(p.end == q.start for p, q in zip(utterance.phonemes, utterance.phonemes[1:]))


@espeak
@pytest.mark.parametrize("voice", ["en-us+f2", "de+m3", "fr"])
def test_times_are_those_of_the_sound(voice):
    """Where the phonemes say so, vowels are loud and pauses quiet, and sibilants hiss while vowels do not."""
    utterance = speech.joined(
        [speech.say("papa mama, sasa su. si sa so.", voice), speech.say("saso, sisi", voice, rate=220)]
    )
    assert (
        energies(utterance, lambda name: name[:1] in set("aɑoiu")).min()
        > 10 * energies(utterance, lambda name: not name).max()
    )
    assert (
        noisiness(utterance, lambda name: name in SIBILANT).min()
        > noisiness(utterance, lambda n: n[:1] in set("aɑou")).max()
    )


@espeak
def test_rate_pitch_and_voice_change_the_speech():
    slow, fast = (speech.say("people buy apples", rate=rate) for rate in (100, 300))
    assert slow.seconds > 1.8 * fast.seconds
    one, other = (speech.say("people buy apples", voice) for voice in ("en-us+m1", "en-us+f2"))
    assert not torch.equal(one.waveform[:16000], other.waveform[:16000])


@espeak
def test_random_speech_follows_the_seed():
    def names(seed, **settings):
        return [phoneme.name for phoneme in speech.random_utterance(seed, 4.0, **settings).phonemes]

    assert names(3)[:-2] == names(3)[:-2]  # the end may shift by a few milliseconds
    assert names(3)[:20] != names(4)[:20]
    assert names(3)[:20] != names(3, held_out=True)[:20]


@espeak
def test_random_speech_has_the_given_length():
    utterance = speech.random_utterance(5, 3.2)
    assert utterance.waveform.shape == (51200,)
    assert utterance.waveform.dtype == torch.float32
    assert utterance.waveform.abs().max() <= 1
    assert utterance.phonemes[-1].end == pytest.approx(3.2)


@espeak
def test_held_out_voices_are_not_in_training():
    assert not set(speech.HELD_OUT_VARIANTS.split()) & set(speech.VARIANTS.split())
    voices = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech, "say", lambda text, voice, *settings: voices.append(voice) or speech.silence(2.0))
        for seed in range(60):
            speech.random_utterance(seed, 2.0)
    assert voices
    kept = {voice.split("+")[1] for voice in voices} & set(speech.HELD_OUT_VARIANTS.split())
    assert not kept
    assert not [voice for voice in voices if voice.startswith(speech.HELD_OUT_LANGUAGE)]


@espeak
def test_unknown_voice():
    with pytest.raises(InputError, match="no voice"):
        speech.say("hello", "nowhere")


def test_a_missing_espeak_is_reported(monkeypatch):
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(speech, "_espeak", speech._Espeak)
    monkeypatch.setattr("sys.platform", "linux")
    assert not speech.available()
    with pytest.raises(InputError, match="install it"):
        speech.say("hello")


def test_a_broken_espeak_is_reported(monkeypatch, tmp_path):
    (tmp_path / "broken").write_bytes(b"no library")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: str(tmp_path / "broken"))
    with pytest.raises(InputError, match="cannot be loaded"):
        speech._Espeak()
