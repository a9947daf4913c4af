"""The parts of nodes/ that need no ComfyUI, inside a stand-in for the pack, whose own __init__ only ComfyUI can run."""

import importlib
import sys
import types
from pathlib import Path

import pytest

import imtalker

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def pack():
    """A function from a name, such as "nodes.doors.sound", to the module. It shares the tests' `imtalker`."""
    packages = {"pack": ROOT, "pack.nodes": ROOT / "nodes"}
    for name, folder in packages.items():
        sys.modules[name] = package = types.ModuleType(name)
        package.__path__ = [str(folder)]
    for name in [name for name in sys.modules if name.split(".")[0] == imtalker.__name__]:
        sys.modules[f"pack.{name}"] = sys.modules[name]
    yield lambda name: importlib.import_module(f"pack.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "pack"]:
        del sys.modules[name]
