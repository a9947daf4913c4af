"""What training needs of the machine: devices, several processes, signals, and seeds that follow from a place."""

import contextlib
import hashlib
import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("imtalker")


def make_fabric(device: str = "auto", devices: int = 1, precision: str = "32-true") -> "Fabric":
    """Lightning Fabric, launched: with more than one device this script is run once more for each.

    device: auto, cpu, cuda, cuda:1 or mps. precision: 32-true, bf16-mixed or 16-mixed. InputError where Fabric is not
    installed or the device is not there.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise InputError(f"Training needs Lightning Fabric ({error}): run `pip install lightning-fabric`.") from error
    # a quiet library: what is worth saying the loop says
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind, _, number = device.partition(":")
    try:
        chosen = [int(number)] if number else devices
        fabric = Fabric(
            accelerator=kind, devices=chosen, strategy="ddp" if devices > 1 else "auto", precision=precision
        )
    except (RuntimeError, ValueError, ImportError) as error:
        raise InputError(f"Training cannot run on {device} x {devices}: {' '.join(str(error).split())}") from error
    fabric.launch()
    return fabric


def all_mean(fabric: "Fabric", tensors: Sequence[Tensor]) -> None:
    """Puts the mean over all processes in the place of each tensor."""
    if tensors:
        flat = fabric.all_reduce(torch.cat([tensor.flatten() for tensor in tensors]), reduce_op="mean")
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(part.view_as(tensor))


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Set by Ctrl-C or a polite kill, in place of an exception in the middle of a step; the second Ctrl-C is one."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number, frame):
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def seed_of(*parts: int) -> int:
    """A seed of its own for every combination."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:7], "little")
