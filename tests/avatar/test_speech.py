"""What holds of made-up speech. Needs espeak-ng on the machine."""

import ctypes.util

import numpy as np
import pytest
import torch

from imtalker.avatar import speech
from imtalker.errors import InputError

espeak = pytest.mark.skipif(not speech.available(), reason="espeak-ng is not installed")
SIBILANT = set("szʃʒ")


def energies(said, wanted):
    """Root mean square of the middle half of every phoneme for which wanted(name) holds."""
    values = []
    for phoneme in said.phonemes:
        quarter = (phoneme.end - phoneme.start) / 4
        first, last = (round(t * 16000) for t in (phoneme.start + quarter, phoneme.end - quarter))
        if wanted(phoneme.name) and last - first > 160:
            values.append(said.waveform[first:last].square().mean().sqrt().item())
    return np.array(values)


def noisiness(said, wanted):
    """Share of sign changes between samples in the middle of such phonemes: high for hiss, low for a voice."""
    values = []
    for phoneme in said.phonemes:
        middle = round((phoneme.start + phoneme.end) * 8000)
        part = said.waveform[max(0, middle - 160) : middle + 160]
        if wanted(phoneme.name):
            values.append((part[1:].sign() != part[:-1].sign()).float().mean().item())
    return np.array(values)


@espeak
def test_phonemes_cover_the_sound():
    said = speech.say("Bob met a happy baby, and we moved on.", "en-us+f2")
    names = "".join(phoneme.name for phoneme in said.phonemes)
    assert names.startswith("b")
    assert "h" in names
    assert "v" in names
    edges = [said.phonemes[0].start, *(p.end for p in said.phonemes)]
    assert edges[0] == 0
    assert edges[-1] == pytest.approx(said.seconds, abs=1e-3)
    assert all(p.end == q.start for p, q in zip(said.phonemes, said.phonemes[1:]))


@espeak
@pytest.mark.parametrize("voice", ["en-us+f2", "de+m3", "fr"])
def test_times_are_those_of_the_sound(voice):
    """Vowels are loud and pauses still, hisses hiss and vowels do not, where the phonemes say so."""
    said = speech.joined(
        [speech.say("papa mama, sasa su. si sa so.", voice), speech.say("saso, sisi", voice, rate=220)]
    )
    assert (
        energies(said, lambda name: name[:1] in set("aɑoiu")).min() > 10 * energies(said, lambda name: not name).max()
    )
    assert noisiness(said, lambda name: name in SIBILANT).min() > noisiness(said, lambda n: n[:1] in set("aɑou")).max()


@espeak
def test_rate_pitch_and_voice_change_the_speech():
    slow, fast = (speech.say("people buy apples", rate=rate) for rate in (100, 300))
    assert slow.seconds > 1.8 * fast.seconds
    one, other = (speech.say("people buy apples", voice) for voice in ("en-us+m1", "en-us+f2"))
    assert not torch.equal(one.waveform[:16000], other.waveform[:16000])


@espeak
def test_random_speech_follows_the_seed():
    def names(seed, **how):
        return [phoneme.name for phoneme in speech.random_utterance(seed, 4.0, **how).phonemes]

    assert names(3)[:-2] == names(3)[:-2]  # the end may be cut a few milliseconds earlier or later
    assert names(3)[:20] != names(4)[:20]
    assert names(3)[:20] != names(3, held_out=True)[:20]


@espeak
def test_random_speech_is_as_long_as_asked():
    said = speech.random_utterance(5, 3.2)
    assert said.waveform.shape == (51200,)
    assert said.waveform.dtype == torch.float32
    assert said.waveform.abs().max() <= 1
    assert said.phonemes[-1].end == pytest.approx(3.2)


@espeak
def test_held_out_voices_are_not_in_training():
    assert not set(speech.HELD_OUT_VARIANTS.split()) & set(speech.VARIANTS.split())
    heard = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech, "say", lambda text, voice, *how: heard.append(voice) or speech.silence(2.0))
        for seed in range(60):
            speech.random_utterance(seed, 2.0)
    assert heard
    kept = {voice.split("+")[1] for voice in heard} & set(speech.HELD_OUT_VARIANTS.split())
    assert not kept
    assert not [voice for voice in heard if voice.startswith(speech.HELD_OUT_LANGUAGE)]


@espeak
def test_unknown_voice():
    with pytest.raises(InputError, match="no voice"):
        speech.say("hello", "nowhere")


def test_missing_espeak_is_said(monkeypatch):
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(speech, "_espeak", speech._Espeak)
    monkeypatch.setattr("sys.platform", "linux")
    assert not speech.available()
    with pytest.raises(InputError, match="install it"):
        speech.say("hello")


def test_broken_espeak_is_said(monkeypatch, tmp_path):
    (tmp_path / "broken").write_bytes(b"no library")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: str(tmp_path / "broken"))
    with pytest.raises(InputError, match="cannot be loaded"):
        speech._Espeak()
