"""Peak memory of talk() from an audio file to an mp4, by length: python -m benchmarks.memory --minutes 1 10 60

Each length runs in its own process, with tiny models unless --full-size.
"""

import argparse
import json
from pathlib import Path

import torch

from imtalker import talk
from imtalker.drawn import example as drawn

from . import measure, models


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("--minutes", nargs="+", type=float, default=[1, 10], help="clip lengths (1 10)")
    parser.add_argument("--full-size", action="store_true", help="full-size instead of tiny models")
    parser.add_argument("--sound", type=Path, help=argparse.SUPPRESS)
    options = measure.parse(parser, arguments)
    options.small = not options.full_size
    if options.sound:
        print(json.dumps(measure_file(options)))
        return {}
    command = ["benchmarks.memory", "--dtype", options.dtype[0]]
    command += ["--full-size"] if options.full_size else []
    table = measure.by_length(command, options, options.minutes)
    flat = {}
    for column in ("host_bytes", "device_bytes"):
        peaks = [row[column] for row in table if column in row]
        if len(peaks) > 1:
            flat[f"{column}_flat_within_5_percent"] = max(peaks) <= 1.05 * min(peaks)
    return measure.report(options, "memory", table, **flat)


def measure_file(options) -> dict:
    """The row of one audio file, measured in this process."""
    dtype = measure.DTYPES[options.dtype[0]]
    renderer = models.renderer(options.generation, options.small).to(options.device, dtype)
    generator = models.generator(options.generation, options.small).to(options.device, dtype)
    cpu = torch.device("cpu")
    row = {"models_bytes": measure.peak_bytes(cpu)}
    clip = talk(renderer, generator, drawn.portrait(), options.sound, crop="none")
    row["audio_bytes"] = measure.peak_bytes(cpu)
    row["frames"] = clip.save(options.sound.with_name("out.mp4"))
    return row | measure.peaks(options.device)


if __name__ == "__main__":
    measure.run(main)
