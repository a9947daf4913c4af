"""A portrait and speech to an mp4 on disk, with the time to the first frame: python -m benchmarks.end_to_end

Times our side only: the published way also needs its face detector and ffmpeg.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from imtalker import drawn, talk

from . import measure, models


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    options = measure.parse(parser, arguments)
    speech, portrait = drawn.speech(options.seconds), drawn.portrait()
    batch = options.batch_size[0] if options.batch_size else None
    table, sides = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in options.dtype:
            precision = measure.DTYPES[dtype]
            renderer = models.renderer(options.generation, options.small).to(options.device, precision)
            generator = models.generator(options.generation, options.small).to(options.device, precision)
            waits: list[float] = []

            def ours(renderer=renderer, generator=generator, waits=waits):
                started = time.perf_counter()
                clip = talk(renderer, generator, portrait, speech, crop="none", batch_size=batch)

                def watched():
                    for number, block in enumerate(clip.blocks):
                        if not number:
                            measure.synchronise(options.device)
                            waits.append(time.perf_counter() - started)
                        yield block

                return replace(clip, blocks=watched()).save(Path(folder) / "out.mp4")

            options.frames = ours()
            sides = {f"ours {dtype}": ours}
            found = measure.alternate(sides, options.rounds, options.device)
            row = measure.rows(found, options.frames, None)[0]
            table.append(row | {"first_frame_seconds": statistics.median(waits[2:])})
    return measure.report(options, "end to end", table)


if __name__ == "__main__":
    measure.run(main)
