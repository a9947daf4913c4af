"""ComfyUI's flags about graphs and pinned memory reach the engine, from those ComfyUIs that have them."""

from argparse import Namespace

import pytest

from imtalker.models import backend


@pytest.mark.parametrize(
    ("flags", "graphs", "pinned"),
    [
        ({}, True, True),  # ComfyUI 0.3.64
        ({"disable_cuda_graphs": False, "disable_pinned_memory": False}, True, True),
        ({"disable_cuda_graphs": True, "disable_pinned_memory": False}, False, True),
        ({"disable_cuda_graphs": False, "disable_pinned_memory": True}, True, False),
    ],
)
def test_flags(pack, monkeypatch, flags, graphs, pinned):
    monkeypatch.setattr(backend, "_allowed", {})
    pack("nodes.flags").keep_to(Namespace(**flags))
    assert backend._allowed == {"graphs": graphs, "pinned": pinned}
