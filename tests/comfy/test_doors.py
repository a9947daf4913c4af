"""What other nodes may put on a link, in a running ComfyUI: it works as meant, or one sentence says what to do."""

import os
import shutil

import pytest
import torch
from graphs import composed, loaders, node, rendered
from oddities import BAD, GOOD
from server import PACK, Server, on_one_version
from test_more_nodes import CROP, PASTE, kept, motion_of, pictures, run_all
from test_nodes import probe, refusal

from imtalker.cli.commands import main
from imtalker.media.video import VideoReader

MODELS = {"renderer": ["renderer", 0], "generator": ["generator", 0]}
SAMPLING = {"seed": 0, "steps": 2, "cfg": 1.0}
KEYFRAMES = {"keyframes": '{"version": 1, "channels": {"yaw": [[0, 5]]}}', "seconds": 0.0, "strength": 1.0}
RENDERING = {"renderer": ["renderer", 0], "source": ["source", 0], "motion": ["short", 0], "batch_size": 0}
EDITING = {"strength": 1.0, "smoothing": 0.0, "start": 0.0, "end": 0.04, "speed": 1.0, "reverse": False, "loop": False}
DRIVING = {"renderer": ["renderer", 0], "crop": "none", "scale": 1.6, "fps": 25.0}
JOINING = {"motion_a": ["short", 0], "motion_b": ["short", 0], "mode": "mix", "crossfade": 0.0, "share": 0.5}
TALKING = MODELS | SAMPLING | {"audio": ["brief", 0], "crop": "none", "scale": 1.6, "no_face": "error"}
TRACKING = {"smirk": "none", "gaze": "none", "gaze_order": "as published", "fps": 25.0}
PARTS = {"head": False, "mouth": False, "eyes": False, "brows": False, "rest": True, "share": 1.0}
RIG = {"rig": ["rig", 0]}
PASTING = PASTE | {"images": ["image", 0], "background": ["image", 0]}

# (node, its other inputs, {input: the type of odd values})
PLACES = [
    ("IMTalkerEncodeSource", {"renderer": MODELS["renderer"]}, {"image": "IMAGE"}),
    ("IMTalkerEncodeAudio", {"generator": MODELS["generator"]}, {"audio": "AUDIO"}),
    ("IMTalkerEncodeMotion", DRIVING, {"video": "VIDEO"}),
    ("IMTalkerEncodeMotion", DRIVING, {"images": "IMAGE"}),
    ("IMTalkerFaceCrop", CROP | {"size": 64, "no_face": "whole picture", "mask": ["solid", 0]}, {"image": "IMAGE"}),
    ("IMTalkerFaceCrop", CROP | {"image": ["image", 0], "mask": ["solid", 0]}, {"size": "INT"}),
    ("IMTalkerFaceCrop", CROP | {"size": 64, "image": ["image", 0]}, {"mask": "MASK"}),
    ("IMTalkerFaceCrop", CROP | {"size": 64, "image": ["image", 0]}, {"box": "anything"}),
    ("IMTalkerPasteBack", PASTE | {"images": ["image", 0], "crop": ["crop", 1]}, {"background": "IMAGE"}),
    ("IMTalkerPasteBack", PASTE | {"background": ["image", 0], "crop": ["crop", 1]}, {"images": "IMAGE"}),
    ("IMTalkerPasteBack", PASTING, {"crop": "anything"}),
    ("IMTalkerPasteBack", PASTING | {"crop": ["crop", 1]}, {"mask": "MASK"}),
    ("IMTalkerRenderVideo", RENDERING | {"fps": 0.0, "quality": 18}, {"audio": "AUDIO"}),
    ("IMTalkerRenderVideo", RENDERING | {"fps": 0.0, "quality": 18, "crop": ["crop", 1]}, {"background": "IMAGE"}),
    ("IMTalkerRenderVideo", RENDERING | {"quality": 18}, {"fps": "FLOAT"}),
    ("IMTalkerRender", RENDERING, {"motion": "anything"}),
    ("IMTalkerPoseControl", KEYFRAMES | {"allow_more": False}, {"audio": "AUDIO"}),
    ("IMTalkerSaveMotion", {"motion": ["short", 0]}, {"filename_prefix": "anything"}),
    ("IMTalkerJoinMotion", JOINING, {"mask": "MASK"}),
    ("IMTalkerCombineParts", PARTS | {"motion": ["short", 0], "other": ["short", 0]}, {"rig": "anything"}),
    ("IMTalkerCombineParts", PARTS | {"motion": ["short", 0], "other": ["short", 0]} | RIG, {"mask": "MASK"}),
    ("IMTalkerFitLength", {"way": "loop", "frames": 0, "fps": 25.0, "motion": ["short", 0]}, {"audio": "AUDIO"}),
    ("IMTalkerTalkingHead", TALKING, {"image": "IMAGE"}),
    ("IMTalkerControlFromVideo", TRACKING, {"landmarks": "anything"}),
    ("IMTalkerBlendControl", {"control_b": ["turn", 0], "share": 0.5}, {"control_a": "anything"}),
]
# None on an optional input is as if nothing were connected; a silent video gives no sound
FINE = {("audio", "nothing"), ("audio", "lazy"), ("mask", "nothing"), ("box", "nothing"), ("filename_prefix", "text")}


def base() -> dict:
    """Nodes that the odd ones are connected to, run once."""
    return composed() | {
        "solid": node("SolidMask", value=1.0, width=80, height=80),
        "brief": node("MadeUpAudio", samples=1600, channels=1, rate=16000, value=0.1),
        "crop": node("IMTalkerFaceCrop", **CROP, image=["image", 0], size=64, mask=["solid", 0]),
        "short": node("IMTalkerEditMotion", motion=["motion", 0], fps=0.0, **EDITING),
        "rig": node("MadeUpRig", size=8),
        "turn": node("IMTalkerPoseControl", **KEYFRAMES, allow_more=False),
    }


@pytest.mark.parametrize("place", PLACES, ids=[f"{kind[8:]} {next(iter(odd))}" for kind, _, odd in PLACES])
@on_one_version
def test_odd_values_work_or_are_refused_in_one_sentence(server: Server, place):
    kind, inputs, odd = place
    ((name, values),) = odd.items()
    good = [(values, key) for key in GOOD.get(values, {})]
    bad = [(table, key) for table in dict.fromkeys(("anything", values)) for key in BAD.get(table, {})]
    before = len(server.log())
    for table, key in [*good, *bad]:
        graph = base() | {
            "odd": node("Odd", table=table, name=key),
            "node": node(kind, **(inputs | {name: ["odd", 0]})),
            "sink": node("Sink", value=["node", 0]),
        }
        run = server.run(graph)
        if run.succeeded:
            assert (
                (table, key) in good or (name, key) in FINE or (kind, name) == ("IMTalkerSaveMotion", "filename_prefix")
            )
        else:
            assert (table, key) in bad, f"{key}: {run.error}"
            (error,) = run.of("execution_error")
            assert (error["exception_type"], error["node_id"]) == ("imtalker.Refused", "node"), f"{key}: {run.error}"
            assert run.error.isprintable()
    assert f"custom_nodes/{PACK}" not in server.log()[before:], "a traceback of ours"
    # ComfyUI keeps the values of a refused node, and no page can read an infinite one
    server.post("/history", {"clear": True})


@on_one_version
def test_a_transparent_background_is_the_same_in_both_nodes(server: Server):
    crop = node("MadeUpCrop", x=40.0, y=20.0, size=60.0, height=120, width=160)
    graph = rendered(composed(), crop=["crop", 0], background=["clear", 0], fps=2.0)
    graph |= {"crop": crop, "clear": node("OddRgba")}
    inputs = PASTE | {"images": ["image", 0], "background": ["clear", 0], "crop": ["crop", 0]}
    graph |= {"paste": node("IMTalkerPasteBack", **inputs), "shown": node("PreviewImage", images=["paste", 0])}
    run = run_all(server, graph)
    file = run.files("save")[0]
    (frame, *_) = VideoReader(server.base / file["type"] / file["subfolder"] / file["filename"])
    assert pictures(server, run, "shown")[0, 0, 0].tolist() == pytest.approx([0.904 * 255] * 3, abs=1)
    assert frame[0, 0].tolist() == pytest.approx([0.904 * 255] * 3, abs=2)


def driven(**clip) -> dict:
    motion = node("IMTalkerEncodeMotion", renderer=["renderer", 0], crop="none", scale=1.6, fps=24.0, **clip)
    return loaders() | {"clip": node("LoadVideo", file="driving.mp4"), "motion": motion}


def test_create_video_is_as_its_images(server: Server):
    parts = {
        "picture": node("LoadImage", image="wide.png"),
        "odd": node("ImageCrop", image=["picture", 0], width=81, height=61, x=3, y=2),
        "frames": node("RepeatImageBatch", image=["odd", 0], amount=3),
        "made": node("CreateVideo", images=["frames", 0], fps=24.0),
    }
    by_images = motion_of(server, kept(driven(images=["frames", 0]) | parts))
    by_video = motion_of(server, kept(driven(video=["made", 0]) | parts))
    assert torch.equal(by_images.latents, by_video.latents)
    assert by_video.fps == 24


def test_a_part_of_a_video_is_that_part(server: Server):
    if "VideoSlice" not in (nodes := server.get("/object_info")) and "Video Slice" not in nodes:
        pytest.skip("this ComfyUI cannot trim")
    whole = motion_of(server, kept(driven(video=["clip", 0])))
    part = {"part": node("TrimmedVideo", name="driving.mp4", start_time=0.25, duration=0.25)}
    cut = motion_of(server, kept(driven(video=["part", 0]) | part))
    assert torch.equal(cut.latents, whole.latents[6:12])


@on_one_version
def test_a_silent_videos_sound_is_no_sound(server: Server):
    graph = rendered(composed(), audio=["odd", 0], fps=2.0) | {"odd": node("Odd", table="AUDIO", name="lazy")}
    assert probe(server, run_all(server, graph).files("save")[0])["seconds of sound"] == 0


@on_one_version
def test_the_editors_box_means_what_the_editor_says(server: Server):
    squares = []
    for bbox_format in ("xyxy", "xywh"):
        graph = {
            "whole": node("LoadImage", image="wide.png"),
            "box": node("PointsEditor", bbox_format=bbox_format),
            "crop": node("IMTalkerFaceCrop", **CROP, image=["whole", 0], size=80, box=["box", 0]),
            "out": node("PreviewImage", images=["crop", 0]),
        }
        squares.append(pictures(server, run_all(server, graph), "out"))
    assert (squares[0] == squares[1]).all()
    graph["crop"]["inputs"]["box_order"] = "x0 y0 x1 y1"  # what the artist sets wins
    assert "not in the picture" in refusal(server, graph)


def test_a_result_whose_file_is_gone_is_made_anew(server: Server):
    graph = rendered(composed(seed=77), fps=2.0)
    first = run_all(server, graph)
    assert run_all(server, graph).executed == set()
    for path in (server.base / "temp").glob("*.mp4"):
        path.unlink()
    graph["save"]["inputs"]["filename_prefix"] = "video/again"
    again = run_all(server, graph)
    assert "render" in again.executed
    assert probe(server, again.files("save")[0])["frames"] == probe(server, first.files("save")[0])["frames"]
    assert "render" not in run_all(server, graph).executed


def test_temporary_files_are_bounded(server: Server):
    for seed in range(100, 112):
        run_all(server, rendered(composed(seed=seed), fps=2.0))
    assert len(list((server.base / "temp").glob("imtalker_*"))) <= 7


def test_a_name_of_any_bytes_does_not_stop_the_server(server: Server):
    run_all(server, kept(composed(), prefix="bytes/plain"))
    folder = os.fsencode(server.base / "output/bytes")
    for name in (
        b"\xc7\xfd\xb6\xaf.safetensors",
        b"two\nlines.safetensors",
        "\U0001f600".encode() * 40 + b".safetensors",
    ):
        shutil.copyfile(os.path.join(folder, sorted(os.listdir(folder))[-1]), os.path.join(folder, name))
        shown = f"bytes/{os.fsdecode(name)} [output]"
        options = server.get("/object_info/IMTalkerLoadMotion")["IMTalkerLoadMotion"]["input"]["required"]
        assert shown in options["motion_file"][1]["options"]
        graph = {"motion": node("IMTalkerLoadMotion", motion_file=shown), "sink": node("Sink", value=["motion", 0])}
        run = server.run(graph, timeout=60)
        assert run.succeeded or run.of("execution_error")[0]["exception_type"] == "imtalker.Refused"
        with open(os.path.join(folder, b"broken" + name), "wb") as file:
            file.write(b"no motion")
        graph["motion"]["inputs"]["motion_file"] = f"bytes/broken{os.fsdecode(name)} [output]"
        assert server.run(graph, timeout=60).error.isprintable()
        assert server.run({"neighbour": node("Neighbour")}, timeout=60).succeeded


@pytest.mark.parametrize("prefix", ["blocked/motion", "x" * 300, "a\0b", "\ud800", "../out", ""])
@on_one_version
def test_where_nothing_can_be_saved_a_sentence_says_so(server: Server, prefix):
    (server.base / "output/blocked").touch()
    graph = kept(base(), "short", prefix)
    assert refusal(server, graph)


@on_one_version
def test_nodes_and_command_line_give_the_same_answer(server: Server, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(server.base / "models/imtalker/renderer_v2.safetensors", models / "renderer.safetensors")
    common = ["--source", server.base / "input/square.png", "--driving", server.base / "input/driving.mp4"]
    command = ["reenact", *common, "--crop", "none", "--models", models, "--device", "cpu", "-o", tmp_path / "cli.mp4"]
    assert main([str(word) for word in command]) == 0
    graph = rendered(composed() | driven(video=["clip", 0]), audio=["motion", 1])
    file = run_all(server, graph).files("save")[0]
    theirs, ours = (
        torch.stack(list(VideoReader(path))).float()
        for path in (tmp_path / "cli.mp4", server.base / file["type"] / file["subfolder"] / file["filename"])
    )
    assert theirs.shape == ours.shape
    assert (theirs - ours).abs().max() <= 2
