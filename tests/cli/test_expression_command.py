"""--expression, --blinks and --rig on the command line: what they add, and where."""

import json
import math
from dataclasses import replace

import pytest
import torch
from meaning import mouth_in, pictures
from test_cli import run, talk_arguments

from imtalker.cli.jobs import Job, Models
from imtalker.motion.expression import blink_times
from imtalker.motion.rig import Channel, Rig

SEED = 3  # its first blink is within the driving video
SMILE = json.dumps({"version": 2, "channels": {"smile": [[0, 0, "hold"], [0.2, 1]]}})


@pytest.fixture(scope="module")
def rig(models, tmp_path_factory):
    """The file of a rig of the tiny models, in which nothing has a meaning."""
    size = Models(models, "cpu").generator.config.motion_size
    channels = (Channel("smile", "mouth", 0, 20, 1, "readings"), Channel("blink", "eyes", 0, 20, 1, "readings"))
    path = tmp_path_factory.mktemp("rig") / "rig.safetensors"
    Rig(channels, torch.eye(size)[:, :2], torch.eye(size)[:2], torch.zeros(1, size)).save(path)
    return path


def test_the_mouth_of_the_video_follows_the_keyframes(inputs, tmp_path):
    keyframes = {"version": 2, "channels": {"mouth open": [[0, -1, "hold"], [0.2, 1]]}}
    (tmp_path / "k.json").write_text(json.dumps(keyframes))
    words = talk_arguments(inputs, "avatar", tmp_path / "o.mp4")
    assert run(*words, "--cfg", 1, "--frames", 10, "--expression", tmp_path / "k.json") == 0
    mouth = mouth_in(pictures(tmp_path / "o.mp4"))
    assert mouth[5:].min() > 3 * mouth[:5].max()


def test_reenact_blinks_now_and_then(inputs, models, rig, tmp_path):
    engine = Models(models, "cpu")
    job = Job(inputs / "portrait.png", tmp_path / "o.mp4", driving=inputs / "driving.mp4", crop="none")
    plain, blinking = (
        torch.cat(list(engine.clip(one).blocks)) for one in (job, replace(job, blinks=60.0, rig=rig, seed=SEED))
    )
    (first, *_) = blink_times(60, SEED, 2)
    differ = (plain != blinking).flatten(1).any(dim=1)
    assert differ.any()
    assert differ.nonzero()[0].item() == math.floor(first * 30) + 1


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (SMILE, ["--rig"], "--expression"),
        ("{", ["--expression", "--rig"], "not valid JSON"),
        (SMILE.replace("0.2", "-1"), ["--expression", "--rig"], "Keyframe 2 of channel 'smile'"),
    ],
)
def test_one_sentence_for_a_mistake_in_an_expression(inputs, models, rig, tmp_path, capsys, text, options, words):
    files = {"--rig": rig, "--expression": tmp_path / "k.json"}
    files["--expression"].write_text(text)
    extra = [word for option in options for word in (option, files[option])]
    assert run(*talk_arguments(inputs, models, tmp_path / "o.mp4"), *extra) == 1
    message = capsys.readouterr().err.strip()
    assert words in message
    assert "\n" not in message
