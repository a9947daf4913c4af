"""Text to speech with the voice that the machine brings: espeak-ng, `say` on macOS, SAPI on Windows.

Texts go in by standard input and no shell is involved, so that nothing in them is ever a command.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..media.audio import Audio, read_audio

LONGEST = 2000  # characters
SECONDS = 30  # after which a voice is given up
OUTPUT = "IMTALKER_VOICE_OUTPUT"
SAPI = (
    "[Console]::InputEncoding = [System.Text.Encoding]::UTF8; Add-Type -AssemblyName System.Speech; "
    "$voice = New-Object System.Speech.Synthesis.SpeechSynthesizer; "
    f"$voice.SetOutputToWaveFile($env:{OUTPUT}); $voice.Speak([Console]::In.ReadToEnd()); $voice.Dispose()"
)


@dataclass(frozen=True)
class Voice:
    """A program that reads text from standard input and writes a .wav file: {} in a word stands for its path."""

    name: str
    command: tuple[str, ...]

    def speak(self, text: str) -> Audio:
        """The spoken text. InputError: nothing to say, more than 2,000 characters, or the program fails."""
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if not text:
            raise InputError("There is no text to say: write some first.")
        if len(text) > LONGEST:
            raise InputError(f"The text has {len(text)} characters: say at most {LONGEST} at a time.")
        with tempfile.TemporaryDirectory(prefix="imtalker-") as folder:
            path = str(Path(folder) / "speech.wav")
            command = [word.replace("{}", path) for word in self.command]
            try:
                subprocess.run(
                    command, input=text.encode(), env=_environment(path), timeout=SECONDS, check=True,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                return read_audio(path)
            except (OSError, subprocess.SubprocessError, InputError) as error:
                raise InputError(f"{self.name} could not say this text: try another one.") from error


def find_voice() -> Voice | None:
    """The machine's voice; None if it has none."""
    if sys.platform == "darwin" and (program := shutil.which("say")):
        return Voice("say", (program, "-f", "-", "-o", "{}", "--data-format=LEI16@22050"))
    if os.name == "nt" and (program := shutil.which("powershell")):
        return Voice("SAPI", (program, "-NoProfile", "-NonInteractive", "-Command", SAPI))
    for name in ("espeak-ng", "espeak"):
        if program := shutil.which(name):
            return Voice(name, (program, "-b", "1", "--stdin", "-w", "{}"))
    return None


def _environment(output: str) -> Mapping[str, str]:
    return os.environ | {OUTPUT: output}
