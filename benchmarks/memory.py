"""Peak memory of talk() from a sound file to an mp4, by length: python -m benchmarks.memory --minutes 1 10 60

Each length runs in a process of its own, on the tiny model unless --full-size.
"""

import json
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import torch

from imtalker import drawn, talk

from . import measure, models


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("--minutes", nargs="+", type=float, default=[1, 10])
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--sound", type=Path, help="used by the command itself: one length, in this process")
    options = measure.parse(parser, arguments)
    options.small = not options.full_size
    if options.sound:
        print(json.dumps(one(options)))
        return {}
    table = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in options.minutes:
            sound = Path(folder) / "sound.wav"
            write_sound(sound, minutes)
            command = [sys.executable, "-m", "benchmarks.memory", "--sound", str(sound)]
            command += ["--device", str(options.device), "--dtype", options.dtype[0]]
            command += ["--generation", options.generation]
            command += ["--full-size"] if options.full_size else []
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            table.append({"minutes": minutes} | json.loads(done.stdout.splitlines()[-1]))
    flat = {}
    for column in ("host_bytes", "device_bytes"):
        peaks = [row[column] for row in table if column in row]
        if len(peaks) > 1:
            flat[f"{column}_flat_within_5_percent"] = max(peaks) <= 1.05 * min(peaks)
    return measure.report(options, "memory", table, **flat)


def write_sound(path: Path, minutes: float) -> None:
    """A WAV file of 10 s of speech over and over, written without ever holding it whole."""
    voice = drawn.speech(10)
    pcm = (voice.waveform[0] * 32767).short().numpy()
    left = round(60 * minutes * voice.sample_rate)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, voice.sample_rate, left, "NONE", ""))
        while left:
            part = pcm[:left]
            file.writeframes(part.tobytes())
            left -= len(part)


def one(options) -> dict:
    dtype = measure.DTYPES[options.dtype[0]]
    renderer = models.renderer(options.generation, options.small).to(options.device, dtype)
    generator = models.generator(options.generation, options.small).to(options.device, dtype)
    cpu = torch.device("cpu")
    row = {"models_bytes": measure.peak_bytes(cpu)}
    clip = talk(renderer, generator, drawn.portrait(), options.sound, crop="none")
    row["audio_bytes"] = measure.peak_bytes(cpu)
    row["frames"] = clip.save(options.sound.with_name("out.mp4"))
    row["host_bytes"] = measure.peak_bytes(cpu)
    if options.device.type == "cuda":
        row["device_bytes"] = measure.peak_bytes(options.device)
    return row


if __name__ == "__main__":
    measure.run(main)
