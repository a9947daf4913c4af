"""Checks GPU-only code against plain PyTorch on the same GPU: python -m benchmarks.gpu_checks CHECK

`python -m benchmarks.gpu` runs them with all other parts.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor

from imtalker import AudioFeatures, Motion
from imtalker.errors import InputError
from imtalker.models import backend, transfer
from imtalker.models.renderer import Renderer, Source

from . import measure, models

TO_THE_MATCH = ("adapter", "motion_decoder", "transfer")  # the renderer's parts up to the attention with matches
GOLDEN = Path(__file__).parent.parent / "tests" / "golden"


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("check", choices=CHECKS)
    options = measure.parse(parser, arguments)
    if options.check != "golden" and options.device.type != "cuda":
        raise InputError(f"The {options.check} check needs a CUDA device, not {options.device}.")
    table = []
    for row in CHECKS[options.check](options):
        table.append(row)
        measure.save_rows(options, table)
    return measure.report(options, options.check, table)


@torch.inference_mode()
def triton(options) -> Iterator[dict]:
    """The Triton kernel against the truth, at the size of a rendered batch of 8, with ties, huge and tiny inputs."""
    device = options.device
    try:
        from imtalker.models.kernels.matching import attend_and_match as kernel
    except ImportError as error:
        raise InputError(f"Triton does not work on this machine: {error}.") from error
    random = torch.Generator("cpu").manual_seed(3)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for scale in (0.0, 1e-3, 1.0, 30.0):
            for tied in (False, True):
                q, k, v = (torch.randn(n, 8, 4096, 16, generator=random) for n in (8, 1, 1))
                if tied:  # every key three times: the first copy must win
                    k = k[:, :, : (4096 + 2) // 3].repeat(1, 1, 3, 1)[:, :, :4096]
                q, k, v = ((x * scale if x is q else x).to(device, dtype).contiguous() for x in (q, k, v))
                with backend.guard(device):
                    output, match = kernel(q, k, v)
                row = {"dtype": str(dtype).removeprefix("torch."), "scale": scale, "tied": tied}
                row |= attention_agreement(output, match, q, k, v)
                row["not_first"] = (match >= (4096 + 2) // 3).float().mean().item() if tied else 0.0
                row["ms"] = _milliseconds(lambda q=q, k=k, v=v: kernel(q, k, v), options)
                yield row


@torch.inference_mode()
def attention_agreement(output: Tensor, match: Tensor, q: Tensor, k: Tensor, v: Tensor) -> dict[str, float]:
    """How near an attention's output (B,h,N,d) and matches (B,N) come to the truth: float32 on the inputs as they are.

    attention_error: the error's RMS in that of the output. right_matches: the share of queries whose match has the
    largest head-averaged weight, to 1e-5 of it, which float32 itself may round away.
    """
    right, errors, size = [], [], 0.0
    keys, values = k[0].float().transpose(1, 2) * q.shape[-1] ** -0.5, v[0].float()
    chunk = max(1, backend.working_set(q.device) // (q.shape[1] * k.shape[2] * 4))
    for image in range(len(q)):
        parts = (x.split(chunk, dim=dim) for x, dim in ((q[image], 1), (output[image], 1), (match[image], 0)))
        for queries, found, chosen in zip(*parts):
            weights = torch.bmm(queries.float(), keys).softmax(dim=-1)
            expected, total = torch.bmm(weights, values), weights.sum(dim=0)
            reached = total.gather(1, chosen[:, None])[:, 0]
            right.append(reached >= (1 - 1e-5) * total.amax(dim=1))
            errors.append((found.float() - expected).square().sum().item())
            size += expected.square().sum().item()
    return {
        "attention_error": (sum(errors) / max(size, 1e-30)) ** 0.5,
        "right_matches": torch.cat(right).float().mean().item(),
    }


def graph(options) -> Iterator[dict]:
    """Recorded sampling against plain: results, also after the weights have moved away and back; seconds; memory."""
    for generation in ("v2", "v1"):
        for dtype in (torch.float32, torch.float16):
            generator = models.generator(generation, options.small).to(options.device, dtype)
            random = torch.Generator("cpu").manual_seed(5)
            features = AudioFeatures(torch.randn(500, generator.config.audio.hidden_size, generator=random))
            motion = torch.randn(1, generator.config.motion_size, generator=random)
            source = SimpleNamespace(motion=motion, generation=generation)

            def work(generator=generator, features=features, source=source, cfg=None):
                return generator.sample(features, source, cfg=cfg).latents

            with _plain():
                expected, other = work(), work(cfg=1.0)
                plain = _milliseconds(work, options)
            recording = generator.flow.recording
            before = torch.cuda.memory_reserved(options.device)
            difference = [(work() - expected).abs().max().item()]
            row = {"generation": generation, "dtype": str(dtype), "recorded": recording._replay is not None}
            row["reserved_bytes"] = torch.cuda.memory_reserved(options.device) - before
            difference += [(work() - expected).abs().max().item(), (work(cfg=1.0) - other).abs().max().item()]
            work()
            row["plain_ms"], row["ms"] = plain, _milliseconds(work, options)
            generator.to("cpu")
            generator.to(options.device)
            difference += [(work() - expected).abs().max().item() for _ in range(2)]
            row["recorded_again"] = recording._replay is not None
            yield row | {"max_difference": max(difference), "failed": recording._failed}


def golden(options) -> Iterator[dict]:
    """Golden frames: float32 (no TF32) against the golden numbers, and half precision against our own float32.

    The source is encoded in float32 in every case, so half precision is judged by what it renders. Frames alone forgive
    much of the matches, so the attention that makes them is compared with the truth as well.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for generation in ("v2", "v1"):
        figures = load_file(GOLDEN / f"{generation}.safetensors")
        motion = Motion(figures["render.latents"], generation=generation)
        renderer = models.renderer(generation, False).to(options.device)
        source = renderer.encode_source(models.waves(101, renderer.config.input_size))
        frames = renderer.render(source, motion)
        kept = frames.permute(0, 3, 1, 2)[:, :, ::8, ::8]
        difference = (kept - figures["render.frames.sub8"]).abs().max().item()
        yield {"generation": generation, "dtype": "float32", "max_difference": difference}
        for dtype in [dtype for dtype in options.dtype if dtype != "float32"]:
            half = models.renderer(generation, False).to(options.device, measure.DTYPES[dtype])
            found = half.render(source, motion)
            each = [measure.agreement(a, b)["psnr"] for a, b in zip(found, frames)]
            row = {"generation": generation, "dtype": dtype, "lowest_psnr": min(each), "frames": len(each)}
            yield row | golden_attention(half, source, motion.latents[:1])


@torch.inference_mode()
def golden_attention(renderer: Renderer, source: Source, latents: Tensor) -> dict[str, float]:
    """`attention_agreement` of the attention that finds matches, in a renderer, for motion latents (B,motion_size)."""
    anchor, seen = renderer.motion_decoder.const, {}
    source, attend = source.to(anchor.device, anchor.dtype), transfer.attend_and_match

    def watched(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        output, match = attend(q, k, v)
        seen.update(attention_agreement(output, match, q, k, v))
        return output, match

    with mock.patch.object(transfer, "attend_and_match", watched):
        renderer.transfer(
            renderer.motion_decoder(renderer.adapter(latents.to(anchor), source.identity)), source.reference
        )
    return seen


@torch.inference_mode()
def offload(options) -> Iterator[dict]:
    """Weights that leave the device, all or half of the layers as ComfyUI does it, and come back: frames, seconds."""
    device = options.device
    renderer = models.renderer(options.generation, options.small).to(device, torch.float16)
    source = renderer.encode_source(models.images(1, renderer.config.input_size))
    motion = Motion(models.latents(8, renderer.config.motion_size), generation=options.generation)
    expected = renderer.render(source, motion)
    layers = [module for module in renderer.modules() if not list(module.children())]
    for name, moved in (("all", [renderer]), ("half", layers[::2])):
        before = torch.cuda.memory_allocated(device)
        seconds = []
        for place in ("cpu", device):
            measure.synchronise(device)
            started = time.perf_counter()
            for module in moved:
                module.to(place)
            measure.synchronise(device)
            seconds.append(time.perf_counter() - started)
            if place == "cpu":
                freed = before - torch.cuda.memory_allocated(device)
        row = {"moved": name, "freed_bytes": freed, "seconds_off": seconds[0], "seconds_back": seconds[1]}
        yield row | {"max_difference": measure.agreement(renderer.render(source, motion), expected)["max_difference"]}


def halving(options) -> Iterator[dict]:
    """Rendering where a batch of 8 does not fit: it must go on with smaller ones, and be whole again afterwards."""
    device = options.device
    renderer = models.renderer(options.generation, options.small).to(device, torch.float16)
    source = renderer.encode_source(models.images(1, renderer.config.input_size))
    motion = Motion(models.latents(16, renderer.config.motion_size), generation=options.generation)
    expected = renderer.render(source, motion, 2)
    torch.cuda.reset_peak_memory_stats(device)
    sizes = []
    renderer.render(source, motion, 8)
    needed = torch.cuda.max_memory_allocated(device)
    allowed = (torch.cuda.memory_allocated(device) + needed) / 2  # half of what a batch of 8 works with
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(device).total_memory, device)
    try:
        blocks = []
        for block in renderer.stream(source, motion, 8):
            sizes.append(len(block))
            blocks.append(block.cpu())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    difference = measure.agreement(torch.cat(blocks), expected)["max_difference"]
    whole = max(len(block) for block in renderer.stream(source, motion, 8))
    yield {"batches": str(sizes), "largest_batch": max(sizes), "afterwards": whole, "max_difference": difference}


def plain(options) -> Iterator[dict]:
    """A rendered batch with the Triton kernels and without them."""
    renderer = models.renderer(options.generation, options.small).to(options.device, torch.float16)
    source = renderer.encode_source(models.images(1, renderer.config.input_size))
    motion = Motion(models.latents(32, renderer.config.motion_size), generation=options.generation)
    frames = {}
    for name in ("kernels", "plain"):
        with without_kernels() if name == "plain" else nullcontext():
            milliseconds = _milliseconds(lambda: list(renderer.stream(source, motion, 8)), options) / len(motion)
            frames[name] = renderer.render(source, motion, 8)
        yield {"side": name, "ms_per_frame": milliseconds} | measure.agreement(frames[name], frames["kernels"])


CHECKS: dict[str, Callable] = {
    "triton": triton,
    "graph": graph,
    "golden": golden,
    "offload": offload,
    "halving": halving,
    "plain": plain,
}


class _All:
    def __contains__(self, case: object) -> bool:
        return True


def without_kernels():
    """A context in which no Triton kernel is tried, as where Triton is missing."""
    return mock.patch.object(backend, "_refused", _All())


@contextmanager
def _plain():
    kept, backend.recorder = backend.recorder, lambda device: None
    try:
        yield
    finally:
        backend.recorder = kept


def _milliseconds(work: Callable[[], object], options) -> float:
    """The shortest of --rounds rounds, after a warm-up."""
    found = measure.alternate({"work": work}, options.rounds, options.device)
    return 1000 * min(found["work"]["seconds"])


if __name__ == "__main__":
    measure.run(main)
