"""ComfyUI's own flags that the engine keeps to."""

from argparse import Namespace

from ..imtalker.models import backend


def keep_to(flags: Namespace) -> None:
    """--disable-cuda-graphs and --disable-pinned-memory, which ComfyUI 0.3.64 does not have yet."""
    backend.allow(
        graphs=not getattr(flags, "disable_cuda_graphs", False),
        pinned=not getattr(flags, "disable_pinned_memory", False),
    )
