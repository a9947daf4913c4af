"""The node Dub in a running ComfyUI."""

import numpy as np
import pytest
from graphs import loaders, node, saved
from PIL import Image
from server import on_one_version
from test_nodes import probe, refusal

SETTINGS = {
    "seed": 0, "steps": 3, "cfg": 1.0, "face": "largest", "index": 0, "crop": "none", "tracking": "smooth",
    "scale": 1.6, "shots": "same view", "ending": "cut", "lower_face": 0.5, "strength": 1.0, "head": 1.0,
    "colour_match": 0.0, "gate": -50.0, "keep_sound": 0.0, "quality": 18, "mask_output": "one for all frames",
}  # fmt: skip


def dubbed(models: str = "avatar", audio: str = "speech.wav", **changes) -> dict:
    """driving.mp4, 18 frames of 96 x 96 at 24 a second, says the sound."""
    links = {"renderer": ["renderer", 0], "generator": ["generator", 0], "video": ["video", 0], "audio": ["audio", 0]}
    return {
        **loaders(renderer=models, generator="avatar"),
        "video": node("LoadVideo", file="driving.mp4"),
        "audio": node("LoadAudio", audio=audio),
        "dub": node("IMTalkerDub", **links, **SETTINGS | changes),
        "save": saved(["dub", 0]),
        "masks": node("MaskToImage", mask=["dub", 1]),
        "mask": node("SaveImage", images=["masks", 0], filename_prefix="mask"),
        "report": node("PreviewAny", source=["dub", 2]),
    }


def test_a_video_is_dubbed(server):
    run = server.run(dubbed())
    assert run.succeeded, run.error
    found = probe(server, run.files("save")[0])
    assert (found["frames"], found["size"], found["fps"]) == (18, (96, 96), 24)
    assert found["seconds of sound"] == pytest.approx(0.75, abs=0.1)
    assert "Synthetic video made with IMTalker" in found["tags"]["comment"]
    assert run.previews
    (file,) = run.files("mask")
    mask = np.asarray(Image.open(server.base / "output" / file["filename"]).convert("L"))
    assert mask.shape == (96, 96)
    assert mask[:40].max() == 0
    assert mask[62, 48] == 255
    assert "18 of 18 frames are dubbed" in str(run.outputs["report"])


@on_one_version
def test_longer_speech_and_a_mask_for_every_frame(server):
    run = server.run(dubbed(ending="ping-pong", mask_output="one per frame", keep_sound=0.5))
    assert run.succeeded, run.error
    assert probe(server, run.files("save")[0])["frames"] == 24
    assert len(run.files("mask")) == 24


@on_one_version
def test_what_cannot_be_dubbed_is_said(server):
    assert "values per frame" in refusal(server, dubbed("renderer_v2.safetensors"))
    graph = dubbed(crop="face")
    graph["dub"]["inputs"]["mask"] = ["empty", 0]
    graph["empty"] = node("SolidMask", value=0.0, width=96, height=96)
    assert "The mask of Dub is empty" in refusal(server, graph)
