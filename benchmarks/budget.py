"""Where the time of a frame should go on a GPU that is not here: python -m benchmarks.budget --reference PATH

Runs both renderers at full size on a fake device (benchmarks/fake_device.py) and turns the log into launches, bytes,
FLOPs and estimated times by stage and card (benchmarks/cards.py). Needs no GPU, and no Triton compiler, but the triton
package where its kernels are to be counted. With --reference, the published code is logged in the same way.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

from imtalker import AudioFeatures, Motion
from imtalker.live.engine import CHUNK, LOOKAHEAD, latency_frames
from imtalker.media.audio import FPS
from imtalker.models import backend
from imtalker.models.config import PUBLISHED, RendererConfig
from imtalker.models.folding import fold
from imtalker.models.generator import Generator
from imtalker.models.renderer import Renderer

from . import cards, measure, models
from .fake_device import FakeDevice, Operation
from .reference import Published

DEVICE = torch.device("cuda:0")
SECONDS, WINDOW_SECONDS = 4, 2  # of speech, and of the window that is sampled for each chunk
LIVE = CHUNK, LOOKAHEAD
WARM = 2  # calls that probe and record before the one that is logged
CONVOLUTIONS = "up and merge convolutions"
BY_STAGE = ("render", "motion encoder", "source")  # the parts shown in full
DEFAULT_CARDS = ("RTX 4090", "H100")


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, metavar="PATH", help="checkout of the published code to compare with")
    parser.add_argument("--generation", choices=("v1", "v2"), default="v2", help="of the models (%(default)s)")
    parser.add_argument("--dtype", nargs="+", choices=measure.DTYPES, default=["float16", "float32"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[8], help="frames per batch (8)")
    parser.add_argument("--cards", nargs="+", choices=cards.CARDS, default=list(DEFAULT_CARDS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every operation and the tables to a file")
    parser.add_argument("--small", action="store_true", help="tiny models, to try the command")
    options = parser.parse_args(arguments)
    if options.small and options.reference:
        parser.error("The published code has no small size: leave out --small or --reference.")
    chosen = [cards.CARDS[name] for name in options.cards]
    print(cards.assumptions())
    for card in chosen:
        print(f"{card.name}: {card.bandwidth / 1e9:g} GB/s, TFLOP/s half {card.half / 1e12:g}, TF32 "
              f"{card.tf32 / 1e12:g}, float32 {card.single / 1e12:g} ({card.source})")  # fmt: skip
    parts = published(options.reference, options.generation) if options.reference else []
    for dtype in options.dtype:
        for batch in options.batch_size:
            parts += ours(options.generation, dtype, batch, options.small)
        parts += ours_once(options.generation, dtype, options.small)
    for part in parts:
        print("\n" + table(part, chosen))
    compared = ratios(parts, chosen)
    if compared:
        print("\nestimated times against the published code's (float32, a frame at a time, as published)")
    for row in compared:
        print(f"  {row['what']:26} {row['side']:28} " + "  ".join(f"{k} {v:5.1f} x" for k, v in row["ratios"].items()))
    lived = live(parts, chosen)
    for row in lived:
        each = "  ".join(f"{k} {v:5.3f} s" for k, v in row["latency"].items())
        print(f"\nlive, {row['side']}, from sound to its picture: {each}")
    result = {
        "live": lived, "generation": options.generation, "torch": torch.__version__, "assumptions": cards.assumptions(),
        "cards": {card.name: vars(card) for card in chosen}, "ratios": compared,
        "parts": [saved(part, chosen) for part in parts],
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return result


class Part:
    """The log of one piece of work: `count` frames (or seconds) by one side."""

    def __init__(self, side: str, what: str, gpu: FakeDevice, count: float, unit: str = "frame", kept: int = 0):
        self.side, self.what, self.count, self.unit = side, what, count, unit
        self.rows: list[Operation] = list(gpu.operations)
        self.syncs, self.transfers = len(gpu.syncs), list(gpu.transfers)
        self.peak, self.kept = gpu.peak, kept


def run(gpu: FakeDevice, side: str, what: str, count: float, work: Callable[[], object], unit: str = "frame") -> tuple:
    """What `work` returned, and its log."""
    gpu.clear()
    kept, gpu.peak = gpu.live, gpu.live
    with gpu.stage("other"):
        result = work()
    return result, Part(side, what, gpu, count, unit, kept)


def stages(config: RendererConfig) -> dict[str, str]:
    """The stage of each submodule of the renderer."""
    found = {"adapter": "adapter, motion decoder", "motion_decoder": "adapter, motion decoder", "transfer": "transfer"}
    found |= {"motion_encoder": "motion encoder", "identity_encoder": "identity encoder"}
    for level in range(1, config.levels):
        kind = "self attention" if level < config.attention_levels else "Swin"
        found |= {f"synthesis.{part}.{level - 1}": CONVOLUTIONS for part in ("up", "merge")}
        found[f"synthesis.attention.{level - 1}"] = f"{kind} {config.side(level)}"
    return found | {"synthesis": "head, output", "synthesis.head": "head, output"}


def made(cls: type, config, gpu: FakeDevice, dtype: torch.dtype):
    """A model as it is after loading, without values."""
    model = cls(config).eval().requires_grad_(False).to(DEVICE, dtype)
    return fold(model)


def ours(generation: str, dtype: str, batch: int, small: bool) -> list[Part]:
    """A batch rendered, the same as a video file takes it, and a batch of driving frames encoded."""
    config = models.renderer_config(generation, small)
    side, parts = f"ours {dtype} batch {batch}", []
    size = config.input_size
    with FakeDevice(answer=finite) as gpu:
        renderer = made(Renderer, config, gpu, measure.DTYPES[dtype])
        gpu.follow(renderer, stages(config))
        source = renderer.encode_source(torch.zeros(1, size, size, 3))
        motion = Motion(torch.zeros(batch, config.motion_size), generation=generation)
        with gpu.stage("other"):
            for _ in range(WARM):
                list(renderer.stream(source, motion, batch))
        render = run(gpu, side, "render", batch, lambda: list(renderer.stream(source, motion, batch)))[1]
        parts.append(render)
        to_file = run(
            gpu, side, "to a file", batch, lambda: list(backend.to_file(renderer.stream(source, motion, batch)))
        )
        parts.append(to_file[1])
        driving = torch.zeros(batch, size, size, 3)
        parts.append(run(gpu, side, "motion encoder", batch, lambda: renderer.encode_motion(driving, 25, batch))[1])
    return parts


def ours_once(generation: str, dtype: str, small: bool) -> list[Part]:
    """The source, and the motion of a few seconds from their audio features, and those from sound."""
    config = models.renderer_config(generation, small)
    speech = models.generator_config(generation, small)
    side, size = f"ours {dtype}", config.input_size
    with FakeDevice(answer=finite) as gpu:
        renderer = made(Renderer, config, gpu, measure.DTYPES[dtype])
        image = torch.zeros(1, size, size, 3)
        source = run(gpu, side, "source", 1, lambda: renderer.encode_source(image), "image")[1]
        generator = made(Generator, speech, gpu, measure.DTYPES[dtype])
        known = SimpleNamespace(motion=torch.zeros(1, speech.motion_size, device=DEVICE), generation=generation)
        features = AudioFeatures(torch.zeros(25 * SECONDS, speech.audio.hidden_size))
        for _ in range(WARM + 1):
            sample = run(gpu, side, "motion", SECONDS, lambda: generator.sample(features, known), "second")[1]
        sound = torch.zeros(1, 16000 * SECONDS)
        audio = run(gpu, side, "audio", SECONDS, lambda: generator.encode_audio(sound, 16000), "second")[1]
    return [source, sample, audio]


def published(path: Path, generation: str) -> list[Part]:
    """The published code: float32, a frame at a time, as it is published."""
    side, size = "published float32 batch 1", PUBLISHED["renderer"][generation].input_size
    with FakeDevice(answer=finite, watched=(path.resolve(),)) as gpu:
        code = Published(path, generation, DEVICE, filled=False)
        code.renderer.requires_grad_(False)
        follow_published(gpu, code.renderer)
        image, latent = torch.zeros(1, 3, size, size, device=DEVICE), torch.zeros(1, 32, device=DEVICE)
        source, encoded = run(gpu, side, "source", 1, lambda: code.encode_source(image), "image")
        code.render(source, latent)
        driving = torch.zeros(1, 3, size, size)
        return [
            run(gpu, side, "render", 1, lambda: code.render(source, latent))[1],
            run(gpu, side, "to a file", 1, lambda: code.render(source, latent).cpu())[1],
            run(gpu, side, "motion encoder", 1, lambda: code.encode_motion(driving.to(DEVICE)))[1],
            encoded,
        ]


def follow_published(gpu: FakeDevice, renderer: torch.nn.Module) -> None:
    """Names the stages of the published renderer; its transfer runs as two methods of each of its blocks."""
    decoder = "adapter, motion decoder"
    names = {"adapt": decoder, "latent_token_decoder": decoder, "latent_token_encoder": "motion encoder"}
    attention = ("self attention 16", "self attention 32", "self attention 64", "Swin 128", "Swin 256")
    for level, stage in enumerate(attention):
        names |= {f"frame_decoder.{part}.{level}": CONVOLUTIONS for part in ("upconv_blocks", "resblocks")}
        names[f"frame_decoder.transformer_blocks.{level}"] = stage
    gpu.follow(renderer, names | {"frame_decoder": "head, output", "frame_decoder.final_conv": "head, output"})
    for block in renderer.imt:
        for method in ("coarse_stage", "fine_stage"):
            setattr(block, method, gpu.stage("transfer")(getattr(block, method)))


def finite(tensor: torch.Tensor) -> object:
    """What is read from the device: every check finds finite numbers."""
    return tensor.dtype == torch.bool


def by_stage(part: Part, chosen: list[cards.Card]) -> list[dict]:
    """A row for each stage, in the order they begin, and their sum; bytes, FLOPs and us are a frame's."""
    table = []
    for name in [*dict.fromkeys(row.stage for row in part.rows), "total"]:
        rows = [row for row in part.rows if name in (row.stage, "total")]
        table.append({
            "stage": name, "launches": cards.launches(rows),
            "bytes": sum(row.bytes for row in rows if row.kind != "transfer") / part.count,
            "flops": sum(row.flops for row in rows) / part.count,
            "us": {card.name: 1e6 * sum(cards.seconds(row, card) for row in rows) / part.count for card in chosen},
        })  # fmt: skip
    return table


def table(part: Part, chosen: list[cards.Card]) -> str:
    rows, unit = by_stage(part, chosen), part.unit
    names = "".join(f"{card.name:>10}" for card in chosen)
    lines = [
        f"{part.side}: {part.what}, a {unit} (launches: a call's)",
        f"  {'stage':26}{'launches':>9}{'MB':>9}{'GFLOP':>8}  us{names}",
    ]
    for row in rows if part.what in BY_STAGE else rows[-1:]:
        numbers = f"{row['launches']:9}{row['bytes'] / 1e6:9.1f}{row['flops'] / 1e9:8.2f}    "
        lines.append(f"  {row['stage']:26}{numbers}" + "".join(f"{row['us'][card.name]:10.0f}" for card in chosen))
    lines.append(f"  {'with launches from Python':26}{'':26}    " + "".join(
        f"{1e6 * cards.step_seconds(part.rows, card) / part.count:10.0f}" for card in chosen
    ))  # fmt: skip
    lines.append(f"  {'as one CUDA graph':26}{'':26}    " + "".join(
        f"{1e6 * cards.device_seconds(part.rows, card, captured=True) / part.count:10.0f}" for card in chosen
    ))  # fmt: skip
    copied = sum(transfer.bytes for transfer in part.transfers) / part.count
    lines.append(
        f"  waits for the device: {part.syncs}; copied from or to it: {copied / 1e6:.2f} MB; "
        f"memory at the peak: {part.peak / 1e6:.0f} MB, {part.kept / 1e6:.0f} of it weights and source"
    )
    return "\n".join(lines)


def ratios(parts: list[Part], chosen: list[cards.Card]) -> list[dict]:
    """How much faster ours should be: rendering, the same with copies to where a file is written, and video-driven."""
    what = {"render": ["render"], "end to end": ["to a file"], "video-driven": ["to a file", "motion encoder"]}
    compared = []
    base = {part.what: part for part in parts if part.side == "published float32 batch 1"}
    for side in dict.fromkeys(part.side for part in parts if part.side.startswith("ours") and "batch" in part.side):
        own = {part.what: part for part in parts if part.side == side}
        for name, pieces in what.items() if base else ():
            values = {}
            for card in chosen:
                theirs, mine = (
                    sum(cards.step_seconds(found[piece].rows, card) / found[piece].count for piece in pieces)
                    for found in (base, own)
                )
                values[card.name] = theirs / mine
            compared.append({"what": name, "side": side, "ratios": values})
    return compared


def live(parts: list[Part], chosen: list[cards.Card]) -> list[dict]:
    """The latency of `imtalker.Live` on each card: chunk and look-ahead, and a frame or more for computing.

    A chunk takes one window of motion, the sound of 4 seconds and a picture, with motion and picture as CUDA graphs.
    """
    own, table = {(part.side, part.what): part for part in parts}, []
    for (side, what), render in own.items():
        dtype, _, batch = side.removeprefix("ours ").partition(" batch ")
        if what != "render" or batch not in ("1", "2"):
            continue
        audio, motion = own[f"ours {dtype}", "audio"], own[f"ours {dtype}", "motion"]
        seconds, latency = {}, {}
        for card in chosen:
            window = cards.device_seconds(motion.rows, card, captured=True) * WINDOW_SECONDS / SECONDS
            picture = cards.device_seconds(render.rows, card, captured=True)
            seconds[card.name] = cards.step_seconds(audio.rows, card) + window + picture
            latency[card.name] = latency_frames(*LIVE, seconds[card.name]) / FPS
        table.append({"side": side, "seconds": seconds, "latency": latency})
    return table


def saved(part: Part, chosen: list[cards.Card]) -> dict:
    names = ("name", "stage", "source", "kind", "bytes_read", "bytes_written", "flops", "replayed")
    operations = [{name: getattr(row, name) for name in names} for row in part.rows]
    for operation, row in zip(operations, part.rows):
        operation |= {"inputs": str(row.inputs), "outputs": str(row.outputs)}
    return {
        "side": part.side,
        "what": part.what,
        "count": part.count,
        "unit": part.unit,
        "waits": part.syncs,
        "copied_bytes": sum(transfer.bytes for transfer in part.transfers),
        "peak_bytes": part.peak,
        "kept_bytes": part.kept,
        "stages": by_stage(part, chosen),
        "operations": operations,
    }


if __name__ == "__main__":
    measure.run(main)
