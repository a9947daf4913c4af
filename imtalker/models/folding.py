"""Folding: what depends on the weights alone (equalised scales, gains, norms) is computed once, after loading."""

import torch
from torch import Tensor, nn


class Folded(nn.Module):
    """A layer that computes with tensors derived from its parameters.

    `fold` stores them beside the parameters, which keep their values (`Resample` stores one kernel channels last as
    well). Training and loading other weights drop them; then they are derived at every call. After changing a parameter
    in place, fold again.
    """

    def __init__(self):
        super().__init__()
        self.kept: list[str] = []

    def derive(self) -> tuple[Tensor | None, ...]:
        """The tensors that `forward` computes with."""
        raise NotImplementedError(f"{type(self).__name__} derives nothing")

    def derived(self) -> tuple[Tensor | None, ...]:
        return tuple(getattr(self, name) for name in self.kept) if self.kept else self.derive()

    def fold(self) -> None:
        self.unfold()
        for number, tensor in enumerate(self.derive()):
            self.kept.append(f"derived{number}")
            self.register_buffer(self.kept[-1], channels_last(tensor), persistent=False)

    def unfold(self) -> None:
        while self.kept:
            delattr(self, self.kept.pop())

    def train(self, mode: bool = True) -> "Folded":
        if mode:
            self.unfold()
        return super().train(mode)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self.unfold()
        super()._load_from_state_dict(*args, **kwargs)


def channels_last(x: Tensor | None) -> Tensor | None:
    """The same map or kernel stored channels last, the layout of every convolution here."""
    return x.contiguous(memory_format=torch.channels_last) if x is not None and x.ndim == 4 else x


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """Folds every layer of a model; for final weights. Returns the model."""
    for module in model.modules():
        if isinstance(module, Folded):
            module.fold()
    return model
