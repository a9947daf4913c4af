"""An old PyTorch is refused in one sentence, when the package is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from imtalker.torch_floor import check_torch

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("version", ["1.13.1", "2.4.1+cu121", "2.5.0a0+git1234567"])
def test_below_the_floor_a_sentence_names_both_versions_and_the_way(version):
    with pytest.raises(ImportError) as error:
        check_torch(version)
    message = str(error.value)
    assert version in message
    assert "needs PyTorch 2.6 or newer" in message
    assert 'pip install --upgrade "torch>=2.6"' in message
    assert "\n" not in message


@pytest.mark.parametrize("version", ["2.6.0", "2.6.0+rocm6.2", "2.10.0.dev20251101+cpu", "3.0.0", "made here"])
def test_newer_and_unknown_versions_pass(version):
    check_torch(version)


def test_importing_the_package_with_an_old_torch_ends_there():
    """Before anything that an old torch lacks is touched: the stub has a version and nothing else."""
    code = "import sys, types; old = types.ModuleType('torch'); old.__version__ = '2.4.1'; sys.modules['torch'] = old; "
    done = subprocess.run([sys.executable, "-c", code + "import imtalker"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: IMTalker needs PyTorch 2.6 or newer, but 2.4.1 is")
