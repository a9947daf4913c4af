"""The shipped workflows, one module each, as descriptions from which `python tests/comfy/build_workflows.py` makes them.

A module has NAME (the file's name and the title in the template browser), FACE (what its picture shows, see
pictures.py) and `draw`, which fills a `Graph`. `parts` holds what they share. docs/CONTRIBUTING.md says how to add one.
"""

import importlib
import pkgutil
from types import ModuleType


def all_templates() -> dict[str, ModuleType]:
    """By name."""
    modules = (importlib.import_module(f"{__name__}.{one.name}") for one in pkgutil.iter_modules(__path__))
    return {
        module.NAME: module
        for module in sorted(modules, key=lambda one: getattr(one, "NAME", ""))
        if hasattr(module, "NAME")
    }
