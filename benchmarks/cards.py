"""Graphics cards in numbers, and how long a logged operation should take on one. Estimates; the budget prints them."""

from dataclasses import dataclass

import torch

from .fake_device import Operation

# Assumptions, each a share of a card's peak unless it says otherwise.
BANDWIDTH_SHARE = 0.8  # of memory, by kernels that only read and write
ARITHMETIC_SHARE = 0.5  # by cuDNN and cuBLAS at these sizes
ATTENTION_SHARE = 0.65  # by kernels that keep attention's logits in registers
SHORTEST = 2e-6  # seconds between the starts of two kernels
SHORTEST_REPLAYED = 1e-6  # the same inside a CUDA graph
LAUNCH = 5e-6  # seconds the CPU needs for one launch from Python
LOGITS_PER_CYCLE = 13.5  # exponential, maximum and sum of an attention's logit, in one multiprocessor
FLOAT32_OVERHEAD = 1.25  # of attention in float32, whose products and exponentials share their units
PINNED_COPY, PAGEABLE_COPY = 20e9, 6e9  # bytes a second over PCIe 4.0 x16


@dataclass(frozen=True)
class Card:
    """Peaks of dense arithmetic in FLOP/s, memory in bytes/s; half precision sums in float32, as PyTorch asks for."""

    name: str
    bandwidth: float
    half: float
    tf32: float  # convolutions in float32, which PyTorch lets round to TF32
    single: float  # matrix products and all else in float32
    processors: int
    clock: float
    source: str


AMPERE = "NVIDIA Ampere GA102 architecture whitepaper; RTX 3060: 28 SMs by the same rates"
ADA = "NVIDIA Ada architecture whitepaper, appendix A"
BLACKWELL = "NVIDIA RTX Blackwell architecture whitepaper, appendix A"
CARDS = {
    card.name: card
    for card in (
        Card("RTX 3060", 360e9, 25.5e12, 12.7e12, 12.7e12, 28, 1.777e9, AMPERE),
        Card("RTX 4070", 504e9, 58.3e12, 29.1e12, 29.1e12, 46, 2.475e9, ADA),
        Card("RTX 4090", 1008e9, 165.2e12, 82.6e12, 82.6e12, 128, 2.52e9, ADA),
        Card("RTX 5090", 1792e9, 209.5e12, 104.8e12, 104.8e12, 170, 2.407e9, BLACKWELL),
        Card("A100", 2039e9, 312e12, 156e12, 19.5e12, 108, 1.41e9, "NVIDIA A100 80GB SXM data sheet"),
        Card("H100", 3350e9, 989e12, 494e12, 67e12, 132, 1.83e9, "NVIDIA H100 SXM data sheet"),
        Card("H200", 4800e9, 989e12, 494e12, 67e12, 132, 1.83e9, "NVIDIA H200 SXM data sheet"),
    )
}


def seconds(row: Operation, card: Card, captured: bool = False) -> float:
    """Estimated seconds of one kernel: memory or arithmetic, whichever takes longer, and never less than its start.

    captured: as part of a CUDA graph.
    """
    if row.kind == "transfer":
        return row.bytes / (PINNED_COPY if row.details.get("pinned") else PAGEABLE_COPY)
    half = row.precision in (torch.float16, torch.bfloat16)
    time = row.bytes / (card.bandwidth * BANDWIDTH_SHARE)
    if row.kind in ("convolution", "grouped"):
        time = max(time, row.flops / (ARITHMETIC_SHARE * (card.half if half else card.tf32)))
    elif row.details.get("logits"):
        time = max(time, _attention(row, card, half) / ATTENTION_SHARE)
    elif row.kind in ("matmul", "triton"):
        time = max(time, row.flops / (ARITHMETIC_SHARE * (card.half if half else card.single)))
    return max(time, SHORTEST_REPLAYED if captured or row.replayed else SHORTEST)


def device_seconds(rows: list[Operation], card: Card, captured: bool = False) -> float:
    """Seconds of a log on a card: streams run beside each other."""
    streams: dict = {}
    for row in rows:
        streams[row.stream] = streams.get(row.stream, 0.0) + seconds(row, card, captured)
    return max(streams.values(), default=0.0)


def step_seconds(rows: list[Operation], card: Card) -> float:
    """Seconds until a call is done: the device's work, or the CPU's launches where they take longer."""
    return max(device_seconds(rows, card), LAUNCH * launches(rows))


def _attention(row: Operation, card: Card, half: bool) -> float:
    """Tensor cores and exponentials run beside each other; in float32 both take the ordinary units."""
    exponentials = row.details["logits"] / LOGITS_PER_CYCLE / (card.processors * card.clock)
    products = row.flops / (card.half if half else card.single)
    return max(products, exponentials) if half else FLOAT32_OVERHEAD * (products + exponentials)


def launches(rows: list[Operation]) -> int:
    """Launches that the CPU makes: a replayed graph is one."""
    return sum(not row.replayed for row in rows)


def assumptions() -> str:
    return (
        f"Estimates, not measurements: a kernel takes the longest of its bytes at {BANDWIDTH_SHARE:g} of the memory's "
        f"bandwidth, its FLOPs at {ARITHMETIC_SHARE:g} of the arithmetic peak (attention {ATTENTION_SHARE:g}, with "
        f"{LOGITS_PER_CYCLE:g} logits a cycle and multiprocessor) and {1e6 * SHORTEST:g} us "
        f"({1e6 * SHORTEST_REPLAYED:g} us in a graph); the CPU needs {1e6 * LAUNCH:g} us for a launch; copies run at "
        f"{PINNED_COPY / 1e9:g} GB/s from pinned memory, else {PAGEABLE_COPY / 1e9:g}. Convolutions in float32 run in "
        "TF32, PyTorch's default; matrix products do not. Caches, clocks under load and occupancy are not modelled."
    )
