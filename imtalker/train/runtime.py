"""What training needs from the machine: devices, processes, signals, and reproducible seeds."""

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
    """Launches Lightning Fabric; with several devices it runs this script once more for each further one.

    device: auto, cpu, cuda, cuda:1 or mps. precision: 32-true, bf16-mixed or 16-mixed. InputError if Fabric is not
    installed or the device does not exist.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise InputError(f"Training needs Lightning Fabric ({error}): run `pip install lightning-fabric`.") from error
    # the training loop does its own logging
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
    """Replaces each tensor by its mean over all processes."""
    if tensors:
        flat = fabric.all_reduce(torch.cat([tensor.flatten() for tensor in tensors]), reduce_op="mean")
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(part.view_as(tensor))


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets instead of interrupting a step; the second Ctrl-C does interrupt."""
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
    """A different seed for every combination of numbers, always the same for the same ones."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:7], "little")
