"""Live sessions: latency, real-time factor, and how far motion in chunks differs from offline motion.

    python -m benchmarks.session --chunk 0.2 0.4 0.8 2 [--small] [--device cuda] [--generation v1]

Motion is timed chunk by chunk with a full history, rendering separately: the first frame takes motion + first batch.
Untrained weights hardly react to speech (it moves their conditions by 1 %). --stress standardises their projected
speech, which magnifies any difference in what a live session hears about 70 times: a worst case.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import imtalker
from imtalker.drawn.example import speech
from imtalker.media.audio import Audio, read_audio

from . import models
from .measure import save_rows, synchronise


class LatentRenderer:
    """Stands for the renderer and passes latents through, one block per chunk."""

    def __init__(self, generation: str):
        self.generation = generation

    def stream(self, source: imtalker.Source, motion: imtalker.Motion, batch_size: int | None) -> Iterator[Tensor]:
        yield motion.latents


def with_features(session: imtalker.Session, rows: Tensor) -> imtalker.Session:
    """The session, given the offline features (T,condition_size), to measure the cost of chunks alone."""
    session._stream._speech.projected = lambda begin, first, end: rows[first:end]
    return session


class Standardised(nn.Module):
    """Standardises the projected speech to zero mean and unit deviation over one clip."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.mean, self.deviation = rows.mean(dim=0), rows.std(dim=0) + 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def time_rendering(renderer, source, latents: Tensor, device: torch.device) -> tuple[float, float]:
    """Medians of the seconds until the first batch, and of the seconds per frame in it."""
    motion = imtalker.Motion(latents, generation=renderer.generation)
    first, each = [], []
    for _ in range(4):  # the first warms up
        start = time.perf_counter()
        blocks = renderer.stream(source, motion)
        count = len(next(blocks))
        synchronise(device)
        first.append(time.perf_counter() - start)
        each.append(first[-1] / count)
    return statistics.median(first[1:]), statistics.median(each[1:])


def live(session: imtalker.Session, audio: Audio, device: torch.device) -> tuple[Tensor, list[float]]:
    """The session's latents, and for each chunk the seconds from feeding its last samples to its motion."""
    latents, seconds = [], []
    for samples in audio.waveform.split(audio.sample_rate // 25, dim=1):
        start = time.perf_counter()
        blocks = list(session.feed(samples))
        synchronise(device)
        if blocks:
            latents += blocks
            seconds.append((time.perf_counter() - start) / len(blocks))
    return torch.cat(latents + list(session.finish())), seconds


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.session", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--chunk",
        type=float,
        nargs="+",
        default=[0.2, 0.4, 0.8, 2.0],
        metavar="SECONDS",
        help="chunk lengths (0.2 0.4 0.8 2)",
    )
    parser.add_argument(
        "--lookahead", type=float, nargs="+", default=[0.2], metavar="SECONDS", help="audio a chunk waits for (0.2)"
    )
    parser.add_argument(
        "--history", type=float, default=8.0, metavar="SECONDS", help="audio kept in memory (%(default)g)"
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="length of the speech (%(default)g)")
    parser.add_argument("--audio", help="your speech file instead of a synthesised voice")
    parser.add_argument("--generation", choices=["v1", "v2"], default="v2")
    parser.add_argument("--small", action="store_true", help="small models instead of full-size ones")
    parser.add_argument("--stress", action="store_true", help="standardise the projected speech: a worst case")
    parser.add_argument("--renderer", help="weights, with --generator, instead of untrained ones")
    parser.add_argument("--generator", help="weights, with --renderer")
    parser.add_argument("--nfe", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table to a file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    options = parser.parse_args(arguments)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)

    if options.renderer:
        renderer, generator = imtalker.load_renderer(options.renderer), imtalker.load_generator(options.generator)
    else:
        renderer = models.renderer(options.generation, options.small)
        generator = models.generator(options.generation, options.small)
    renderer, generator = renderer.to(device, dtype), generator.to(device, dtype)
    audio = read_audio(options.audio) if options.audio else speech(options.seconds)
    audio = Audio(audio.waveform[:, : int(options.seconds * audio.sample_rate)], audio.sample_rate)
    image = torch.rand(1, 512, 512, 3, generator=torch.Generator().manual_seed(1))
    source = renderer.encode_source(image)

    features = generator.encode_audio(audio.waveform, audio.sample_rate)
    with torch.inference_mode():
        rows = generator.audio_projection(features.features.to(device, dtype))
        if options.stress:
            generator.audio_projection = nn.Sequential(*generator.audio_projection, Standardised(rows))
            rows = generator.audio_projection(features.features.to(device, dtype))
    offline = generator.sample(features, source, nfe=options.nfe).latents
    steps = (offline[1:] - offline[:-1]).norm(dim=1)
    at_joins = torch.arange(len(steps)) % 50 == 49
    quiet = type(features)(torch.zeros_like(features.features) + features.features.mean(dim=0))
    references = {"another seed": {"audio": features, "seed": 1}, "the same seed, no speech": {"audio": quiet}}
    first, each = time_rendering(renderer, source, offline[:16], device)

    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    size = "your weights" if options.renderer else "small" if options.small else "full size"
    print(f"{renderer.generation}, {size}, {options.dtype}, {name}; ", end="")
    print(f"{audio.seconds:g} s of speech, history {options.history:g} s, nfe {options.nfe}")
    print(f"rendering: first batch {first * 1000:.0f} ms, {each * 1000:.0f} ms per frame")
    print(f"offline: rms {rms(offline):.3f}; step per frame {steps[~at_joins].mean():.3f}, ", end="")
    print(f"where windows meet {steps[at_joins].mean():.3f}")
    for label, settings in references.items():
        other = generator.sample(source=source, nfe=options.nfe, **settings).latents
        print(f"for scale, {label} differs by rms {rms(other - offline):.5f}")
    print()
    print(
        "chunk  ahead  latency  motion  first frame  real time"
        "  step at joins  inside  offline there  rms to offline  same features"
    )
    print("    s      s        s      ms           ms          x")
    table = []
    for chunk in options.chunk:
        for lookahead in options.lookahead:
            settings = {"chunk": chunk, "lookahead": lookahead, "history": options.history, "nfe": options.nfe}
            parts = LatentRenderer(renderer.generation), generator, source
            session = imtalker.Session(*parts, sample_rate=audio.sample_rate, **settings)
            latents, seconds = live(session, audio, device)
            same = with_features(imtalker.Session(*parts, sample_rate=audio.sample_rate, **settings), rows)
            same_latents, _ = live(same, audio, device)
            motion = statistics.median(seconds[len(seconds) // 2 :])
            frames = round(chunk * 25)
            moves = (latents[1:] - latents[:-1]).norm(dim=1)
            position = torch.arange(1, len(latents)) % 50
            joins = (position % frames == 0) & (position > 0)  # offline motion has the windows' own joins too
            inside = position % frames != 0
            at, there = (f"{x[joins].mean():.3f}" if joins.any() else "-" for x in (moves, steps))
            print(
                f"{chunk:5.2f}  {lookahead:5.2f}  {session.latency:7.3f}  {motion * 1000:6.0f}"
                f"  {(motion + first) * 1000:11.0f}  {chunk / (motion + frames * each):9.2f}"
                f"  {at:>13}  {moves[inside].mean():6.3f}  {there:>13}"
                f"  {rms(latents - offline):14.5f}  {rms(same_latents - offline):13.5f}",
                flush=True,
            )
            table.append({
                "chunk": chunk, "lookahead": lookahead, "latency": session.latency, "motion_ms": 1000 * motion,
                "first_frame_ms": 1000 * (motion + first), "real_time": chunk / (motion + frames * each),
                "rms_to_offline": rms(latents - offline),
            })  # fmt: skip
            save_rows(options, table)
    return {"rows": table}


if __name__ == "__main__":
    main()
