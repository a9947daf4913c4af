"""From portrait and speech to an mp4 on disk, and the time to the first frame: python -m benchmarks.end_to_end

The published side uses our audio features and our video writer (its own audio encoder does not run on current
transformers, and it writes with ffmpeg). Encoding the portrait, sampling and rendering are its own.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from imtalker import talk
from imtalker.drawn import example as drawn
from imtalker.media.image import resize
from imtalker.media.video_writer import write_video

from . import measure, models
from .reference import load_published


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="length of the speech (%(default)g)")
    options = measure.parse(parser, arguments)
    speech, portrait = drawn.speech(options.seconds), drawn.portrait()
    batch = options.batch_size[0] if options.batch_size else None
    published = load_published(options)
    if published:
        published.load_generator()
    table, more = [], {}
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
                    for number, block in enumerate(clip.rendered):
                        if not number:
                            measure.synchronise(options.device)
                            waits.append(time.perf_counter() - started)
                        yield block

                return replace(clip, rendered=watched()).save(Path(folder) / "out.mp4")

            options.frames = ours()
            sides = {f"ours {dtype}": ours}
            if published:

                def theirs(generator=generator, side=renderer.config.input_size):
                    square = resize(portrait, side).permute(0, 3, 1, 2)
                    source = published.encode_source(square.to(options.device))
                    features = generator.encode_audio(speech.waveform, speech.sample_rate).features[None]
                    latents = published.sample(features.to(options.device), source[-1], generator.config.cfg)
                    blocks = (published.render(source, latents[:, t]) for t in range(latents.shape[1]))
                    frames = (block.clamp(0, 1).permute(0, 2, 3, 1) for block in blocks)
                    write_video(Path(folder) / "published.mp4", frames, 25, speech)

                sides["published"] = theirs
            found = measure.alternate(sides, options.rounds, options.device)
            measured = measure.rows(found, options.frames, "published" if published else None)
            measured[0]["first_frame_seconds"] = statistics.median(waits[2:])
            table += measured
            if options.profile:
                more = measure.profile(renderer, ours, options)
    return measure.report(options, "end to end", table, **more)


if __name__ == "__main__":
    measure.run(main)
