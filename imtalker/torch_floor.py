"""The oldest PyTorch that works, checked before anything else is imported."""

import re

import torch

FLOOR = (2, 6)


def check_torch(version: str) -> None:
    """Raises ImportError for a version below FLOOR, such as "2.4.1+cu121"."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < FLOOR:
        needed = ".".join(map(str, FLOOR))
        raise ImportError(
            f"IMTalker needs PyTorch {needed} or newer, but {version} is installed: update ComfyUI, or run "
            f'`pip install --upgrade "torch>={needed}"` in the Python environment that runs it.'
        )


check_torch(torch.__version__)
