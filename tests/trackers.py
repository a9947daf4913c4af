"""Made-up weights of the full-size trackers, under the published names (tests/golden/README.md, "Trackers")."""

import json
from pathlib import Path

from torch import Tensor

from imtalker.weights.untrained import made_up

GOLDEN = Path(__file__).parent / "golden"
# of convolutions: so that what comes out is neither lost in rounding nor a single one of L2CS-Net's angles
GAIN = {"smirk": 1.2, "smirk_expression": 1.2, "l2cs": 1.0}


def golden(kind: str) -> dict:
    """Names and shapes of a published file, and what the published network makes of the made-up ones."""
    return json.loads((GOLDEN / f"{kind}.json").read_text())


def made_up_tracker(kind: str) -> dict[str, Tensor]:
    """Every tensor of tests/golden/<kind>.json."""
    return {name: tensor_of(kind, name, tuple(shape)) for name, shape in golden(kind)["state_dict"].items()}


def tensor_of(kind: str, name: str, shape: tuple[int, ...]) -> Tensor:
    return made_up(name, shape) * (GAIN[kind] if len(shape) == 4 else 1)
