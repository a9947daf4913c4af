"""Lets fuzz_faults.py import the helpers of the command line's tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "cli"))
