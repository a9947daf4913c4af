"""Checks GPU-only code against plain PyTorch on the same GPU: python -m benchmarks.gpu_checks triton|graph|golden

`python -m benchmarks.gpu` runs them with all other parts.
"""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

from imtalker import AudioFeatures, Motion
from imtalker.errors import InputError
from imtalker.models import backend, matching

from . import measure, models

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("check", choices=CHECKS)
    options = measure.parse(parser, arguments)
    if options.check != "golden" and options.device.type != "cuda":
        raise InputError(f"The {options.check} check needs a CUDA device, not {options.device}.")
    return measure.report(options, options.check, CHECKS[options.check](options))


@torch.inference_mode()
def triton(options) -> list[dict]:
    """The Triton kernel against the blocks, at the size of a rendered batch of 8, with ties, huge and tiny inputs."""
    device = options.device
    kernel = backend._triton_kernel(device)
    if kernel is None:
        raise InputError("Triton does not work on this machine; the log says why.")
    random = torch.Generator("cpu").manual_seed(3)
    table = []
    for dtype in (torch.float32, torch.float16):
        for scale in (0.0, 1e-3, 1.0, 30.0):
            for tied in (False, True):
                q, k, v = (torch.randn(n, 8, 4096, 16, generator=random) for n in (8, 1, 1))
                if tied:  # every key three times: the first copy must win
                    k = k[:, :, : (4096 + 2) // 3].repeat(1, 1, 3, 1)[:, :, :4096]
                q, k, v = ((x * scale if x is q else x).to(device, dtype).contiguous() for x in (q, k, v))
                output, match = kernel(q, k, v)
                expected, where = matching.attend_and_match(q, k, v, backend.working_set(device))
                row = {"dtype": str(dtype), "scale": scale, "tied": tied}
                row["max_difference"] = (output.float() - expected.float()).abs().max().item()
                row["same_match"] = (match == where).float().mean().item()
                row["not_first"] = (match >= (4096 + 2) // 3).float().mean().item() if tied else 0.0
                row["ms"] = _milliseconds(lambda q=q, k=k, v=v: kernel(q, k, v), options)
                table.append(row)
    return table


def graph(options) -> list[dict]:
    """Recorded sampling against plain: results, also after the weights have moved away and back; seconds; memory."""
    table = []
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
            table.append(row | {"max_difference": max(difference), "failed": recording._failed})
    return table


def golden(options) -> list[dict]:
    """Golden frames: float32 (no TF32) against the golden numbers, and half precision against our own float32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    table = []
    for generation in ("v2", "v1"):
        figures = load_file(GOLDEN / f"{generation}.safetensors")
        motion = Motion(figures["render.latents"], generation=generation)
        renderer = models.renderer(generation, False).to(options.device)
        image = models.waves(101, renderer.config.input_size)
        frames = renderer.render(renderer.encode_source(image), motion)
        kept = frames.permute(0, 3, 1, 2)[:, :, ::8, ::8]
        difference = (kept - figures["render.frames.sub8"]).abs().max().item()
        table.append({"generation": generation, "dtype": "float32", "max_difference": difference})
        for dtype in set(options.dtype) - {"float32"}:
            renderer.to(dtype=measure.DTYPES[dtype])
            found = renderer.render(renderer.encode_source(image), motion)
            each = [measure.agreement(a, b)["psnr"] for a, b in zip(found, frames)]
            table.append({"generation": generation, "dtype": dtype, "lowest_psnr": min(each), "frames": len(each)})
    return table


CHECKS: dict[str, Callable] = {"triton": triton, "graph": graph, "golden": golden}


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
