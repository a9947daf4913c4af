"""From driving frames to motion to frames, ours against the published code: python -m benchmarks.reenact

Both sides start from float frames on the CPU and end with float frames on the CPU.
"""

import torch

from imtalker.models import backend

from . import measure, models
from .reference import load_published


def main(arguments: list[str] | None = None) -> dict:
    options = measure.parse(measure.parser(__doc__), arguments)
    published = load_published(options)
    sides, frames = {}, {}
    for dtype in options.dtype:
        renderer = models.renderer(options.generation, options.small).to(options.device, measure.DTYPES[dtype])
        driving = models.images(options.frames + 1, renderer.config.input_size)
        source = renderer.encode_source(driving[:1])
        for batch in options.batch_size or [None]:

            def ours(renderer=renderer, source=source, driving=driving, batch=batch):
                motion = renderer.encode_motion(driving[1:], batch_size=batch)
                return list(backend.to_cpu(renderer.stream(source, motion, batch)))

            name = f"ours {dtype} batch {batch or 'auto'}"
            sides[name], frames[name] = ours, torch.cat(ours())
    if published:
        channels_first = driving.permute(0, 3, 1, 2).contiguous()
        reference = published.encode_source(channels_first[:1].to(options.device))

        def theirs():
            latents = (published.encode_motion(frame[None].to(options.device)) for frame in channels_first[1:])
            return [published.render(reference, latent).cpu() for latent in latents]

        sides["published"], frames["published"] = theirs, torch.cat(theirs()).permute(0, 2, 3, 1)
    found = measure.alternate(sides, options.rounds, options.device)
    base = "published" if published else next(iter(frames))
    table = measure.rows(found, options.frames, "published" if published else None)
    for row in table:
        row.update(measure.agreement(frames[row["side"]], frames[base]))
    more = measure.profile(renderer, ours, options) if options.profile else {}
    return measure.report(options, "reenact", table, **more)


if __name__ == "__main__":
    measure.run(main)
