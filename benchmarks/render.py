"""From motion latents to frames, ours against the published code: python -m benchmarks.render --reference PATH"""

import torch

from imtalker.motion.motion import Motion

from . import measure, models
from .reference import load_published


def main(arguments: list[str] | None = None) -> dict:
    options = measure.parse(measure.parser(__doc__), arguments)
    published = load_published(options)
    sides, frames, facts = {}, {}, {}
    for dtype in options.dtype:
        renderer = models.renderer(options.generation, options.small).to(options.device, measure.DTYPES[dtype])
        image = models.images(1, renderer.config.input_size)
        latents = models.latents(options.frames, renderer.config.motion_size)
        source = renderer.encode_source(image)
        motion = Motion(latents, generation=options.generation)
        for batch in options.batch_size or [None]:
            name = f"ours {dtype} batch {batch or 'auto'}"

            def ours(renderer=renderer, source=source, batch=batch, motion=motion):
                for _ in renderer.stream(source, motion, batch):
                    pass

            sides[name] = ours
            frames[name] = renderer.render(source, motion, batch)
            facts[name] = {"dtype": dtype, "batch": str(batch or "auto")}
    if published:
        reference = published.encode_source(image.permute(0, 3, 1, 2).to(options.device))
        moved = latents.to(options.device)

        def theirs():
            for latent in moved:
                published.render(reference, latent[None])

        kept = [published.render(reference, latent[None]).cpu() for latent in moved]
        frames["published"] = torch.cat(kept).permute(0, 2, 3, 1)
        sides["published"] = theirs
        facts["published"] = {"dtype": "float32", "batch": "1"}
    found = measure.alternate(sides, options.rounds, options.device)
    table = measure.rows(found, options.frames, "published" if published else None)
    for row in table:
        row.update(facts[row["side"]])
        base = "published" if published else next(iter(frames))
        row.update(measure.agreement(frames[row["side"]], frames[base]))
    more = {}
    if not options.small:
        limit = measure.arithmetic_limit(options.device, measure.DTYPES[options.dtype[0]], options.small)
        best = max(limit.values())
        more = {"limit": limit, "share_of_limit": measure.GFLOP_PER_FRAME * table[0]["frames_per_second"] / best}
    if options.profile:
        more |= measure.profile(renderer, ours, options)
    return measure.report(options, "render", table, **more)


if __name__ == "__main__":
    measure.run(main)
