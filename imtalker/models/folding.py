"""Folding: what depends on the weights alone (equalised scales, gains, norms) is computed once, after loading."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

FINAL = "This model was loaded with final=True, for use alone: load it without to train, save or change it."


class Folded(nn.Module):
    """A layer that computes with tensors derived from its parameters.

    `fold` stores them beside the parameters, which keep their values (`Resample` stores one kernel channels last as
    well). Training and loading other weights drop them; then they are derived at every call. After changing a parameter
    in place, fold again. In a final model they stand instead of the parameters that nothing else reads.
    """

    # parameters, buffers and modules, by dotted name, that only `derive` reads
    only_derived: tuple[str, ...] = ()

    def __init__(self):
        super().__init__()
        self.kept: list[str] = []
        self.final = False

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

    def finish(self) -> None:
        """Frees what only `derive` reads, once folded; for good."""
        self.final = True
        for name, _ in [*self.named_parameters(), *self.named_buffers()]:
            if any(name == source or name.startswith(f"{source}.") for source in self.only_derived):
                owner, _, own_name = name.rpartition(".")
                setattr(self.get_submodule(owner), own_name, None)

    def unfold(self) -> None:
        if self.final:
            raise RuntimeError(FINAL)
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
def fold(model: nn.Module, final: bool = False) -> nn.Module:
    """Folds every layer of a model; for final weights. Returns the model.

    final: the model will only be used, so what was folded is freed. It can be moved and cast, but training it, loading
    other weights or saving it raises RuntimeError.
    """
    inside: set[nn.Module] = set()  # layers that another one derives from
    for module in model.modules():
        if isinstance(module, Folded) and module not in inside:
            module.fold()
            inside.update(part for name in module.only_derived for part in _modules(module, name))
            if final:
                module.finish()
    return model


def check_not_final(model: nn.Module) -> None:
    """Raises RuntimeError if the model's own weights are gone."""
    if any(isinstance(module, Folded) and module.final for module in model.modules()):
        raise RuntimeError(FINAL)


def _modules(module: nn.Module, name: str) -> Iterator[nn.Module]:
    """The submodules at and below a dotted name, none if it names a parameter."""
    return (part for path, part in module.named_modules() if path == name or path.startswith(f"{name}."))
