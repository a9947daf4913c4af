"""What the Triton kernels of this project compute, declared by name: they cannot run on fake devices.

A function takes a kernel's arguments by name and its grid, and returns what the default (each tensor read once, nothing
computed) gets wrong: flops, padding to what tensor cores take included; logits, where it makes attention's in
registers; bytes_read and bytes_written.
"""

from collections.abc import Callable

from torch import Tensor

Work = Callable[[dict, tuple], dict]


def read_bytes(*tensors: Tensor | None) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def attend(named: dict, grid: tuple) -> dict:
    batch, heads, count, _ = named["q"].shape
    logits = batch * heads * count * named["keys"]
    return {"flops": 4 * logits * named["DEPTH"], "logits": logits}


def match(named: dict, grid: tuple) -> dict:
    work = attend(named, grid)
    return work | {"flops": work["flops"] // 2}  # queries times keys alone


def swin_block(named: dict, grid: tuple) -> dict:
    """Each head's products are as wide as a part; exponentials are few beside them but in the same program."""
    width, part, cells = named["WIDTH"], named["PART"], named["CELLS"]
    rows = named["x"].numel() // width
    layers = 2 * rows * width * (3 + 1 + 2 + 2) * width
    logits = rows * cells * named["HEADS"]
    return {"flops": layers + 4 * logits * part, "logits": logits}


def finish(named: dict, grid: tuple) -> dict:
    return {"flops": 4 * named["x"].numel(), "bytes_written": read_bytes(named["x"])}


def interleave(named: dict, grid: tuple) -> dict:
    written = read_bytes(named["output"])
    added = written if named["ADD"] else 0
    return {"bytes_read": read_bytes(named["parts"], named["bias"]) + added, "bytes_written": written}


def blur(named: dict, grid: tuple) -> dict:
    return {"flops": 32 * named["output"].numel()}


def style_and_scale(named: dict, grid: tuple) -> dict:
    """Each program makes the whole style of its image."""
    batch = len(named["latent"])
    made, scaled = grid[0] * named["weight"].numel(), named["energy"].numel()
    read = read_bytes(named["latent"], named["weight"], named["bias"], named["energy"])
    written = read_bytes(named["style"], named["scale"])
    return {"flops": 2 * batch * (made + scaled), "bytes_read": read, "bytes_written": written}


KERNEL_WORK: dict[str, Work] = {
    "_attend": attend,
    "_match": match,
    "_swin_block": swin_block,
    "_finish": finish,
    "_interleave": interleave,
    "_blur": blur,
    "_style_and_scale": style_and_scale,
}
