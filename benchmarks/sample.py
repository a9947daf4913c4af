"""From speech to motion, ours against the published code: python -m benchmarks.sample [--seconds 10]

Both sides sample from the same audio features; only ours is also timed with encoding the audio.
"""

from imtalker.drawn import example as drawn

from . import measure, models
from .reference import load_published


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="length of the speech (%(default)s)")
    options = measure.parse(parser, arguments)
    options.frames = 25 * options.seconds
    speech = drawn.speech(options.seconds)
    image = models.images(1, 64)
    renderer = models.renderer(options.generation, options.small)
    source = renderer.encode_source(image)
    published = load_published(options)
    sides = {}
    for dtype in options.dtype:
        generator = models.generator(options.generation, options.small).to(options.device, measure.DTYPES[dtype])
        features = generator.encode_audio(speech.waveform, speech.sample_rate)

        def ours(generator=generator, features=features):
            return generator.sample(features, source)

        def with_audio(generator=generator):
            return generator.sample(generator.encode_audio(speech.waveform, speech.sample_rate), source)

        sides |= {f"ours {dtype}": ours, f"ours {dtype} with audio encoding": with_audio}
    if published:
        published.load_generator()
        given, motion = features.features[None].to(options.device), source.motion.to(options.device)
        sides["published"] = lambda: published.sample(given, motion, generator.config.cfg)
    found = measure.alternate(sides, options.rounds, options.device)
    table = measure.rows(found, options.frames, "published" if published else None)
    for row in table:
        if "with audio" in row["side"]:
            row.pop("ratio", None)  # the published side does not encode audio
    more = measure.profile(generator, with_audio, options) if options.profile else {}
    return measure.report(options, "sample", table, **more)


if __name__ == "__main__":
    measure.run(main)
