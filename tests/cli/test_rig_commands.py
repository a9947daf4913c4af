"""rig learn and rig show on the command line."""

import pytest
import torch
from test_cli import run
from trackers import made_up_tracker

from imtalker import Rig
from imtalker.cli import rigs as commands


def test_the_avatars_rig_and_what_it_knows(tmp_path, capsys):
    assert run("rig", "learn", "--models", "avatar", "--device", "cpu", "-o", tmp_path / "r.safetensors") == 0
    assert "14 of 14 channels" in capsys.readouterr().out
    assert run("rig", "show", tmp_path / "r.safetensors") == 0
    shown = capsys.readouterr().out
    assert run("rig", "show", "avatar") == 0
    assert capsys.readouterr().out == shown
    for words in ("v2, 16 values per frame", "generator ", "mouth open", "blink", "score 1.00"):
        assert words in shown


def test_from_models_that_bring_none(models, tmp_path, monkeypatch, capsys):
    from imtalker import rigging

    monkeypatch.setattr(rigging, "SOUNDS", 2)
    monkeypatch.setattr(rigging, "NOISES", 3)
    monkeypatch.setattr(rigging, "POSES", 12)
    assert run("rig", "learn", "--models", models, "--device", "cpu", "-o", tmp_path / "r.safetensors") == 0
    assert Rig.load(tmp_path / "r.safetensors").weights.startswith("generator ")
    assert "yaw" in capsys.readouterr().out


def test_from_a_video(inputs, models, tmp_path, monkeypatch):
    """Which networks read it, and of which frames; what is learned from them is in test_readings.py."""
    seen = {}

    def learn(motion, found):
        seen.update(motion=motion, found=found)
        return Rig((), torch.zeros(8, 0), torch.zeros(0, 8), torch.zeros(1, 8))

    from imtalker import readings, tracking
    from imtalker.face.crop import Box

    monkeypatch.setattr(readings, "learn_rig", learn)
    monkeypatch.setattr(readings, "face_boxes", lambda reader, **_: [Box(10, 10, 50, 50)] * 20 + [None])
    torch.save(made_up_tracker("smirk") | made_up_tracker("smirk_expression"), tmp_path / "smirk.pt")
    arguments = ["--driving", inputs / "driving.mp4", "--smirk", tmp_path / "smirk.pt", "--crop", "none"]
    done = run("rig", "learn", "--models", models, "--device", "cpu", *arguments, "-o", tmp_path / "r.safetensors")
    assert done == 0
    assert len(seen["motion"]) == len(seen["found"].visible) == 21
    assert {"yaw", "distance", "mouth open", "blink left", "expression 10"} <= seen["found"].values.keys()
    assert all(len(rows) == 20 for rows in seen["found"].values.values())
    assert tracking.read_faces is readings.read_faces


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["learn", "--driving", "x.mp4"], "give --smirk or --l2cs"),
        (["learn", "--smirk", "x.pt"], "give --driving"),
        (["show", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_one_sentence_for_a_mistake(arguments, words, tmp_path, capsys):
    output = ["-o", tmp_path / "r.safetensors", "--models", "avatar"] if arguments[0] == "learn" else []
    assert run("rig", *arguments, *output) == 1
    assert words in capsys.readouterr().err
    assert commands.AVATAR.name == "avatar"
