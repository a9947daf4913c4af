"""The shipped workflows: from these descriptions `python tests/comfy/build_workflows.py` makes workflows/*.json.

A module has NAME (the file's name, which is all that the template browser shows), `draw`, which fills a `Graph`, and
MOMENTS, the seconds of its result that its picture shows (pictures.py: `picture_result`; BESIDE: a video next to it).
`parts` holds what they share. docs/CONTRIBUTING.md says how to add one.
"""

import importlib
import pkgutil
from types import ModuleType


def all_templates() -> dict[str, ModuleType]:
    """By name."""
    modules = (importlib.import_module(f"{__name__}.{one.name}") for one in pkgutil.iter_modules(__path__))
    return {module.NAME: module for module in modules if hasattr(module, "NAME")}
