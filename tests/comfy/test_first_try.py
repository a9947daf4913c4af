"""The first try, just after the installation: no models, no images, no audio."""

import functools
import wave

import av
import numpy as np
import pytest
import shipped
from browser import open_page
from graphs import node
from PIL import Image
from server import ROOT, Refusal, Server
from test_nodes import probe

from imtalker.drawn.example import SOMEBODY, portrait


def files_below(server: Server, *folders: str) -> list[str]:
    return [path.name for folder in folders for path in (server.base / folder).rglob("*") if path.is_file()]


def test_the_list_of_motions_says_that_none_is_saved(fresh):  # first: a later test saves one
    kind = fresh.get("/object_info")["IMTalkerLoadMotion"]
    assert kind["input"]["required"]["motion_file"][1]["options"] == ["none yet"]
    load = {"load": node("IMTalkerLoadMotion", motion_file="none yet")}
    with pytest.raises(Refusal, match="There is no file 'none yet'"):
        fresh.run(load | {"save": node("IMTalkerSaveMotion", motion=["load", 0], filename_prefix="motion")})


def test_first_try_runs_as_it_is_shipped(fresh):
    run = fresh.run(shipped.to_api(shipped.read("01 First try")), timeout=300)
    assert run.succeeded, run.error
    (file,) = (file for number in run.outputs for file in run.files(number))
    found = probe(fresh, file)
    assert (found["frames"], found["size"], found["fps"]) == (101, (128, 128), 25)
    assert found["seconds of sound"] == pytest.approx(4.03, abs=0.1)
    assert files_below(fresh, "models", "input") == []


def test_pressing_run_is_enough(fresh, browser):
    with open_page(browser, fresh) as page:
        page.load(shipped.read("01 First try"))
        page.run(300)
        shown = page.plays_video()
        assert (shown["size"], shown["seconds"]) == ([128, 128], pytest.approx(4.03, abs=0.1))
        assert page.errors == []


def example(seed: int) -> dict:
    return {
        "example": node("IMTalkerExample", seed=seed),
        "head": node("SaveImage", images=["example", 0], filename_prefix="head"),
        "speech": node("SaveAudio", audio=["example", 1], filename_prefix="speech"),
        "pair": node("SaveImage", images=["example", 2], filename_prefix="pair"),
        "answer": node("SaveAudio", audio=["example", 3], filename_prefix="answer"),
        "driving": node("SaveVideo", video=["example", 4], filename_prefix="d", format="auto", codec="auto"),
    }


@functools.cache
def drawn(seed: int) -> np.ndarray:
    return portrait(512, seed)[0].numpy()


def test_drawn_heads_are_cropped_and_pasted_back_without_a_detector(fresh):
    """With default settings, offline: the second of two people says ten frames of the speech in the whole picture."""
    keyframes = '{"version": 1, "channels": {"yaw": [[0, 5]]}}'
    turn = {"seconds": 0.0, "strength": 1.0, "keyframes": keyframes, "allow_more": False}
    talk = {"seed": 0, "steps": 2, "cfg": 1.0, "crop": "face", "scale": 1.6, "no_face": "error", "paste_back": True}
    crop = {"face": "left to right", "index": 1, "scale": 1.6, "tracking": "steady", "padding": "edge", "size": 512}
    graph = {
        "example": node("IMTalkerExample", seed=SOMEBODY),
        "turn": node("IMTalkerPoseControl", **turn),
        "crop": node("IMTalkerFaceCrop", image=["example", 2], no_face="error", **crop),
        "renderer": node("IMTalkerLoadRenderer", model="avatar", precision="auto"),
        "generator": node("IMTalkerLoadGenerator", model="avatar", wav2vec2="auto", precision="auto"),
        "drive": node(
            "IMTalkerEncodeMotion", renderer=["renderer", 0], crop="face", scale=1.6, fps=25.0, video=["example", 4]
        ),
        "second": node("TrimAudioDuration", audio=["example", 1], start_index=0.0, duration=0.4),
        "talk": node(
            "IMTalkerTalkingHead",
            renderer=["renderer", 0],
            generator=["generator", 0],
            image=["example", 2],
            audio=["second", 0],
            control=["turn", 0],
            **talk,
        ),
        "video": node("SaveVideo", video=["talk", 0], filename_prefix="both", format="auto", codec="auto"),
        "right": node("SaveImage", images=["crop", 0], filename_prefix="right"),
        "both": node("SaveImage", images=["example", 2], filename_prefix="both"),
        "kept": node("IMTalkerSaveMotion", motion=["drive", 0], filename_prefix="driven"),
    }
    run = fresh.run(graph, timeout=300)
    assert run.succeeded, run.error
    both, right = (
        np.asarray(Image.open(fresh.base / "output" / run.files(name)[0]["filename"])) / 255
        for name in ("both", "right")
    )
    found = probe(fresh, run.files("video")[0])
    assert (found["frames"], found["size"]) == (10, (both.shape[1], both.shape[0]))
    assert np.abs(right - both[:, 512:]).mean() < 0.1  # nearly the right half
    assert files_below(fresh, "models") == []


@pytest.mark.parametrize("seed", [SOMEBODY, 2**64 - 1])
def test_the_example_is_the_seeds_drawn_heads_and_what_ships_with_the_avatar(fresh, seed):
    run = fresh.run(example(seed))
    assert run.succeeded, run.error
    (head,), (pair,), (driving,) = (run.files(name) for name in ("head", "pair", "driving"))
    pixels = np.asarray(Image.open(fresh.base / "output" / head["filename"]))
    assert pixels.shape == (512, 512, 3)
    assert np.abs(pixels / 255 - drawn(seed)).max() <= 1 / 255
    both = np.asarray(Image.open(fresh.base / "output" / pair["filename"]))
    assert both.shape == (512, 1024, 3)
    assert np.array_equal(both[:, :512], pixels)
    for name in ("speech", "answer"):
        with wave.open(str(ROOT / f"imtalker/avatar/{name}.wav")) as file:
            rate, wanted = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")
        with av.open(fresh.base / "output" / run.files(name)[0]["filename"]) as container:
            assert container.streams.audio[0].rate == rate
            heard = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
        heard = heard / np.iinfo(heard.dtype).max * 32767
        assert np.abs(heard - wanted).max() <= 2
    found = probe(fresh, driving)
    assert (found["frames"], found["size"], found["fps"]) == (101, (256, 256), 25)
    assert found["seconds of sound"] == pytest.approx(4.03, abs=0.1)


def test_the_default_seed_is_that_of_the_workflow(fresh):
    kind = fresh.get("/object_info")["IMTalkerExample"]
    (used,) = (
        one for one in shipped.to_api(shipped.read("01 First try")).values() if one["class_type"] == kind["name"]
    )
    assert kind["input"]["required"]["seed"][1]["default"] == used["inputs"]["seed"] == SOMEBODY
