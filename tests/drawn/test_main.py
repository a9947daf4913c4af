"""python -m imtalker.drawn."""

import runpy
import sys

import pytest


def start(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
    runpy.run_module("imtalker.drawn", run_name="__main__")


def test_it_writes_pictures_sound_and_video(monkeypatch, tmp_path):
    start(monkeypatch, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("driving.mp4", "portrait.png", "speech.wav", "two_people.png")
    ]


@pytest.mark.parametrize("arguments", [(), ("missing/folder",)])
def test_wrong_use_is_answered_with_the_usage(monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, *arguments)
    assert ended.value.code == 2
    assert "usage: python -m imtalker.drawn" in capsys.readouterr().err
