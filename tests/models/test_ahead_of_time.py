"""Every Triton kernel, as the published sizes launch it, compiled for the GPUs that users have: none is needed here."""

import functools
import importlib
import pkgutil
import sys
from types import SimpleNamespace

import pytest
import torch

from imtalker.models import backend, kernels
from imtalker.models.config import PUBLISHED
from imtalker.models.folding import fold
from imtalker.models.renderer import Renderer

pytest.importorskip("triton", reason="triton is not installed")
from ahead_of_time import Launch, compile_for, launches
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction

CAPABILITIES = [75, 80, 86, 89, 90, 100, 120]
AMD = [("gfx942", 64), ("gfx1100", 32)]
PRECISIONS = [torch.float16, torch.bfloat16, torch.float32]
SHARED = 99 << 10  # bytes a program may have on every card since 2020; sm_75 has 64 KiB
# Triton has no matrix units for Turing: the self attention of half precision stays with PyTorch's kernel.
OTHER_WAY = {(75, torch.float16): {"_attend"}, (75, torch.bfloat16): {"_attend"}}


@functools.cache
def rendering(capability: int | None, precision: torch.dtype) -> tuple[Launch, ...]:
    """What encoding a source and a driving frame and rendering two frames launch: each kernel with each size of its
    tiles once, called with as many tensors as it ever is."""
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode(), torch.device("meta"):
        patch.setattr(backend, "compute_capability", lambda device: capability)
        for module in [module for name, module in sys.modules.items() if name.startswith("imtalker.models.")]:
            if hasattr(module, "with_kernel"):
                patch.setattr(module, "with_kernel", lambda name, shape, x, kernel, plain: kernel())
        model = fold(Renderer(PUBLISHED["renderer"]["v2"]).eval().to(precision))
        image = torch.empty(1, 3, 512, 512, dtype=precision)
        found = launches(lambda: render(model, image))
    most = {}
    for launch in found:
        variant = launch.kernel, tuple(item for item in launch.constants().items() if item[0] != "CHANNELS")
        if variant not in most or len(launch.tensors()) > len(most[variant].tensors()):
            most[variant] = launch
    return tuple(most.values())


def render(model: Renderer, image: torch.Tensor) -> None:
    features, identity = model.identity_encoder(image)
    motion = model.motion_encoder(image)
    maps = model.motion_decoder(model.adapter(motion, identity))
    reference = model.transfer.prepare(features, maps)
    model(SimpleNamespace(identity=identity, reference=reference), motion.expand(2, -1))


def names(found: tuple[Launch, ...]) -> set[str]:
    return {launch.kernel.__name__ for launch in found}


def kernels_of_the_project() -> set[str]:
    """The names of all kernels that no other kernel calls."""
    modules = [
        importlib.import_module(f"{kernels.__name__}.{module.name}")
        for module in pkgutil.iter_modules(kernels.__path__)
    ]
    found = {
        value.__name__: value for module in modules for value in vars(module).values() if isinstance(value, JITFunction)
    }
    return {name for name in found if not any(f"{name}(" in other.src.split(":", 1)[1] for other in found.values())}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_kernel_is_launched(capability, precision):
    """A new kernel is tested below without being listed; one that is not taken has its other way listed above."""
    expected = kernels_of_the_project()
    assert {"_swin_block", "_attend", "_match"} < expected
    found = rendering(capability, precision)
    other_way = OTHER_WAY.get((capability, precision), set())
    for launch in found:
        if launch.kernel.__name__ in other_way:
            assert launch.arguments["log_sums"] is not None, "only with matches, which PyTorch does not find"
    assert names(found) == expected


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "capability", [x if x == 89 else pytest.param(x, marks=pytest.mark.recipe) for x in CAPABILITIES]
)
def test_kernels_fit_the_gpus_of_nvidia(capability, precision):
    for launch in rendering(capability, precision):
        needs = compile_for(launch, GPUTarget("cuda", capability, 32))
        assert needs.spilled == 0, (launch, needs)
        assert needs.shared <= (64 << 10 if capability == 75 else SHARED), (launch, needs)


@pytest.mark.recipe
@pytest.mark.parametrize(("architecture", "lanes"), AMD)
def test_kernels_compile_for_the_gpus_of_amd(architecture, lanes):
    for launch in rendering(None, torch.float16):
        assert compile_for(launch, GPUTarget("hip", architecture, lanes)).shared <= 64 << 10


def test_a_kernel_that_spills_would_be_found():
    launch = next(x for x in rendering(89, torch.float16) if x.kernel.__name__ == "_attend")
    few = Launch(launch.kernel, launch.arguments, launch.options | {"maxnreg": 32})
    assert compile_for(few, GPUTarget("cuda", 89, 32)).spilled > 0
