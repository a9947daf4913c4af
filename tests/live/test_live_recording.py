"""What a live page records and reads aloud: pictures and sound in step, a mark, and texts that are never commands."""

import sys

import av
import pytest
import torch

from imtalker import InputError
from imtalker.live import voices
from imtalker.live.engine import Moment
from imtalker.live.recording import Recording
from imtalker.media.audio import read_audio
from imtalker.media.video import VideoReader

RATE = 48000


def test_a_recording_holds_pictures_and_sound_in_step_and_says_what_it_is(tmp_path):
    recording = Recording(tmp_path / "out.mp4", RATE)
    for number in range(50):
        tone = 0.5 * torch.sin(torch.arange(1920) * 0.06) * (number >= 25)
        picture = torch.full((64, 64, 3), 255 if number >= 25 else 0, dtype=torch.uint8)
        assert recording.put(Moment(number, number / 25, picture, tone, True))
    path = recording.finish()
    with VideoReader(path) as reader:
        brightness = torch.stack(list(reader)).float().mean(dim=(1, 2, 3))
    sound = read_audio(path)
    assert len(brightness) == 50
    assert int((brightness > 128).nonzero()[0]) == 25
    begin = int((sound.waveform[0].abs() > 0.1).nonzero()[0]) / sound.sample_rate
    assert abs(begin - 1) < 0.045
    with av.open(str(path)) as container:
        assert container.metadata["comment"] == "Synthetic video made with IMTalker"
    empty = Recording(tmp_path / "none.mp4", RATE)
    empty.discard()
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_a_voice_speaks_texts_of_any_kind_and_runs_none_of_them(tmp_path):
    script = tmp_path / "voice.py"
    script.write_text(
        "import sys, wave\ntext = sys.stdin.buffer.read()\nfile = wave.open(sys.argv[1], 'wb')\n"
        "file.setparams((1, 2, 16000, 0, 'NONE', ''))\nfile.writeframes(bytes(2 * 160 * len(text)))\n"
    )
    voice = voices.Voice("test", (sys.executable, str(script), "{}"))
    for text in ("hello", "; rm -rf /", "$(reboot)", "--help", "{}", "ünï\u0000\ncode"):
        assert voice.speak(text).seconds == pytest.approx(len(" ".join(text.replace("\0", " ").split()).encode()) / 100)
    for wrong, words in (("", "no text"), (" \n", "no text"), ("x" * 2001, "2001")):
        with pytest.raises(InputError, match=words):
            voice.speak(wrong)
    with pytest.raises(InputError, match="could not say"):
        voices.Voice("broken", (sys.executable, "-c", "raise SystemExit(1)")).speak("hello")
    found = voices.find_voice()
    if found is not None:
        assert 0.2 < found.speak("hello").seconds < 5
