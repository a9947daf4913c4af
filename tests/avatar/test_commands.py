"""The avatar's commands start."""

import runpy
import sys

import pytest


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", ["imtalker.avatar", "imtalker.avatar.generator", "imtalker.avatar.measure"])
def test_a_command_explains_itself(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out.startswith(f"usage: python -m {module} ")
