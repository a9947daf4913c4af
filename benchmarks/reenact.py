"""From driving frames to motion to frames, ours against the published code: python -m benchmarks.reenact"""

import torch

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
                return list(renderer.stream(source, renderer.encode_motion(driving[1:], batch_size=batch), batch))

            name = f"ours {dtype} batch {batch or 'auto'}"
            sides[name], frames[name] = ours, torch.cat(ours()).cpu()
    if published:
        driving_frames = driving.permute(0, 3, 1, 2).to(options.device)
        reference = published.encode_source(driving_frames[:1])

        def theirs():
            return [published.render(reference, published.encode_motion(frame[None])) for frame in driving_frames[1:]]

        sides["published"], frames["published"] = theirs, torch.cat(theirs()).cpu().permute(0, 2, 3, 1)
    found = measure.alternate(sides, options.rounds, options.device)
    base = "published" if published else next(iter(frames))
    table = measure.rows(found, options.frames, "published" if published else None)
    for row in table:
        row.update(measure.agreement(frames[row["side"]], frames[base]))
    more = measure.profile(renderer, ours, options) if options.profile else {}
    return measure.report(options, "reenact", table, **more)


if __name__ == "__main__":
    measure.run(main)
