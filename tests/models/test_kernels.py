"""The Triton kernels against the plain way, in Triton's interpreter on the CPU, which is chosen once for a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_in_the_interpreter():
    pytest.importorskip("triton", reason="triton is not installed")
    tests = Path(__file__).parent / "interpreted_kernels.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", tests],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
