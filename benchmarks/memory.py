"""Peak memory of talk() from a sound file to an mp4, by length: python -m benchmarks.memory --minutes 1 10 60

Each length runs in a process of its own, on the tiny model unless --full-size.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from imtalker import drawn, talk
from imtalker.audio import Audio
from imtalker.video import write_video

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
            sound = Path(folder) / "sound.mp4"
            write_sound(sound, minutes)
            command = [sys.executable, "-m", "benchmarks.memory", "--sound", str(sound)]
            command += ["--device", str(options.device), "--dtype", options.dtype[0]]
            command += ["--generation", options.generation]
            command += ["--full-size"] if options.full_size else []
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            table.append({"minutes": minutes} | json.loads(done.stdout.splitlines()[-1]))
    host = [row["host_bytes"] for row in table]
    return measure.report(options, "memory", table, flat_within_5_percent=max(host) <= 1.05 * min(host))


def write_sound(path: Path, minutes: float) -> None:
    """Speech of that length, repeated from 10 s, with one dark small picture a second."""
    voice = drawn.speech(10)
    samples = round(60 * minutes * voice.sample_rate)
    waveform = voice.waveform.repeat(1, -(-samples // voice.waveform.shape[1]))[:, :samples]
    pictures = (torch.zeros(1, 16, 16, 3) for _ in range(max(1, round(60 * minutes))))
    write_video(path, pictures, 1, Audio(waveform, voice.sample_rate))


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
