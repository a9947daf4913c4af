"""Fingerprints: whether two things belong to one motion space, told by the weights that made them.

A fingerprint is the signs of 64 random sums of the weights (similarity hashing; Charikar, STOC 2002), so it survives
another precision, device and file format, and light fine-tuning, which leaves the motion space as it was.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

FORM = re.compile(r"\b(\w+) ([0-9a-f]{16})\b")
BITS = 64
NEAR = 10  # bits that may differ; of 64 random ones fewer than 11 differ once in 10**8


def fingerprint(kind: str, weights: Tensor) -> str:
    """`kind` ("generator" or "renderer") and 16 hexadecimal digits for weights of any shape."""
    numbers = weights.detach().cpu().float().flatten()
    signs = torch.randint(0, 2, numbers.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sums = numbers.new_zeros(BITS).index_add_(0, torch.arange(len(numbers)) % BITS, numbers * signs)
    return f"{kind} {sum(1 << bit for bit, total in enumerate(sums.tolist()) if total > 0):016x}"


class Kept:
    """A model's fingerprint, taken once, since that waits for the device; again if its weights moved or changed."""

    def __init__(self):
        self._places = self._text = None

    def of(self, kind: str, layer: nn.Module, weights: Callable[[], Tensor]) -> str:
        """`fingerprint(kind, weights())`, where `weights` depends on the layer alone."""
        places = [(x.data_ptr(), x.device, _changes(x)) for x in (*layer.parameters(), *layer.buffers())]
        if places != self._places:
            self._places, self._text = places, fingerprint(kind, weights())
        return self._text


def _changes(weights: Tensor) -> int:
    return 0 if weights.is_inference() else weights._version  # those made in inference mode are not counted


def differ(one: str, other: str) -> bool:
    """Whether the two name other weights of the same kind; what names no weights of that kind differs from nothing.

    Each is any number of fingerprints with spaces between them: "generator 0123456789abcdef renderer ..." or "".
    """
    ours, theirs = dict(FORM.findall(one)), dict(FORM.findall(other))
    return any((int(ours[kind], 16) ^ int(theirs[kind], 16)).bit_count() > NEAR for kind in ours.keys() & theirs.keys())


def known(weights: str, kind: str) -> bool:
    """Whether a fingerprint of this kind is among them."""
    return kind in dict(FORM.findall(weights))
