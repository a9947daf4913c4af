"""Compiles Triton kernels for GPUs that are not here, as they are launched, and reads what they need of one."""

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import JITFunction

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
TYPES = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.uint8: "*u8", torch.int32: "*i32",
    torch.int64: "*i64",
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """A kernel and what it was called with, by the names of its parameters, and options such as `num_warps`."""

    kernel: JITFunction
    arguments: dict
    options: dict

    def constants(self) -> dict:
        """Those of the tiles' sizes and choices."""
        return {x.name: self.arguments[x.name] for x in self.kernel.params if x.is_constexpr}

    def tensors(self) -> list[torch.Tensor]:
        return [value for value in self.arguments.values() if isinstance(value, torch.Tensor)]


def launches(call: Callable[[], object]) -> list[Launch]:
    """What `call` would launch: nothing runs, and its tensors may be on the CPU."""
    found = []

    def run(kernel, *args, grid, warmup, **named):
        arguments = dict(zip(kernel.arg_names, args)) | {n: v for n, v in named.items() if n in kernel.arg_names}
        found.append(Launch(kernel, arguments, {n: v for n, v in named.items() if n not in kernel.arg_names}))

    with mock.patch.object(JITFunction, "run", run):
        call()
    return found


@dataclass(frozen=True)
class Needs:
    registers: int  # of each thread, 255 at most
    spilled: int  # bytes of each thread that found no register
    shared: int  # bytes of each program


def compile_for(launch: Launch, target: GPUTarget) -> Needs:
    """Raises what Triton raises if it cannot; `registers` and `spilled` are known for NVIDIA's GPUs only.

    As at run time, None and 1 are compiled in, and so is what 16 divides (torch aligns its memory to more).
    """
    signature, constants, hints = {}, {}, {}
    for place, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[parameter.name], constants[place,] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
        elif isinstance(value, int):
            signature[parameter.name] = "i32" if abs(value) < 1 << 31 else "i64"
        else:
            signature[parameter.name] = "fp32"
        if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
            hints[place,] = [["tt.divisibility", 16]]
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=hints)
    compiled = triton.compile(source, target=target, options=launch.options)
    if target.backend != "cuda":
        return Needs(0, 0, compiled.metadata.shared)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        printed = subprocess.run([CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
    registers, stack, local = map(int, re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", printed).groups())
    return Needs(registers, stack + local, compiled.metadata.shared)
