"""Every shipped workflow from file to video through the HTTP API; test_browser.py opens them in the page."""

import itertools
import wave
from io import BytesIO

import av
import numpy as np
import pytest
import shipped
import torch
from graphs import node
from PIL import Image
from server import Server, on_one_version
from test_more_nodes import white
from test_nodes import probe
from trackers import made_up_tracker

from imtalker import Motion

FILES = {
    "portrait.png": "wide.png",
    "two_people.png": "wide.png",
    "speech.wav": "first.wav",
    "first.wav": "first.wav",
    "second.wav": "second.wav",
    "driving.mp4": "moving.mp4",
}
# frames, width and height, frames per second, seconds of sound
EXPECTED = {
    "first_try": (101, (64, 64), 25, 4.03),
    "gaze_keyframes": (10, (64, 64), 25, 0.4),
    "idle_then_talk": (110, (64, 64), 25, 4.4),
    "long_video": (10, (160, 120), 25, 0.4),
    "pose_from_video": (10, (64, 64), 25, 0.4),
    "pose_keyframes": (10, (64, 64), 25, 0.4),
    "reenact": (21, (64, 64), 30, 0.7),
    "talk_composed": (10, (64, 64), 25, 0.4),
    "talk_paste_back": (10, (160, 120), 25, 0.4),
    "talk_simple": (10, (64, 64), 25, 0.4),
    "two_people": (25, (160, 120), 25, 1.0),
}
# inputs for which a workflow does not use the default: the avatar, and the cfg it was measured with
DEPARTURES = {"first_try": ("model", "cfg")}
LEFT, RIGHT = (10, 40, 50, 90), (90, 30, 140, 80)  # x0, y0, x1, y1 of two faces in wide.png


def tone(seconds: float) -> bytes:
    with wave.open(buffer := BytesIO(), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((np.sin(np.arange(round(seconds * 16000)) * 0.08) * 8000).astype("<i2").tobytes())
    return buffer.getvalue()


def upload_all(server: Server, inputs) -> None:
    server.upload("first.wav", tone(0.4))
    server.upload("second.wav", tone(0.6))
    server.upload("moving.mp4", (inputs / "driving.mp4").read_bytes())
    torch.save(made_up_tracker("smirk"), server.base / "models/imtalker/SMIRK_em1.pt")


@pytest.fixture(scope="module")
def filled(server, inputs):
    """The server with the files for the workflows."""
    upload_all(server, inputs)
    server.upload("left.png", white(*LEFT))
    server.upload("right.png", white(*RIGHT))
    return server


def with_landmarks(graph: dict) -> dict:
    """Adds landmarks: the driving video shows no face."""
    graph["landmarks"] = node("MadeUpLandmarks", frames=21, height=60, width=80)
    for one in graph.values():
        if one["class_type"] == "IMTalkerControlFromVideo":
            one["inputs"]["landmarks"] = ["landmarks", 0]
    return graph


def saved_file(server: Server, graph: dict) -> dict:
    (save,) = (number for number, one in graph.items() if one["class_type"] == "SaveVideo")
    run = server.run(graph)
    assert run.succeeded, run.error
    (file,) = run.files(save)
    return file


def test_no_workflow_is_without_expectation_and_picture():
    assert set(shipped.NAMES) == EXPECTED.keys()
    for name in shipped.NAMES:
        with Image.open(shipped.picture_of(name)) as picture:
            assert (picture.format, picture.width >= 600) == ("JPEG", True)
        assert shipped.picture_of(name).stat().st_size < 150_000


def rectangles(workflow: dict) -> tuple[list[tuple], list[tuple]]:
    """The rectangles of nodes with their titles, and of groups: left, top, right, bottom."""
    title = 30
    nodes = [(*node["pos"], *node["size"]) for node in workflow["nodes"]]
    groups = [group["bounding"] for group in workflow["groups"]]
    return (
        [(x, y - title, x + width, y + height) for x, y, width, height in nodes],
        [(x, y, x + width, y + height) for x, y, width, height in groups],
    )


def link_curves(workflow: dict) -> dict[int, np.ndarray]:
    """Points (41,2) along each link, as the page draws it between the slots of two nodes: a spline that leaves to the
    right and arrives from the left, its handles a quarter of the distance long."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    t = np.linspace(0, 1, 41)[:, None]
    curves = {}
    for number, source, slot, target, place, _ in workflow["links"]:
        start, entries = nodes[source], nodes[target]["inputs"]
        # those of widgets lie below the others
        row = sum("widget" not in entry for entry in entries[: place if "widget" not in entries[place] else None])
        a = np.array([start["pos"][0] + start["size"][0] - 9, start["pos"][1] + 20 * slot + 14])
        b = np.array([nodes[target]["pos"][0] + 10, nodes[target]["pos"][1] + 20 * row + 14])
        handle = np.array([np.hypot(*(b - a)) / 4, 0])
        curves[number] = (
            (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * (a + handle) + 3 * (1 - t) * t**2 * (b - handle) + t**3 * b
        )
    return curves


def hidden_links(workflow: dict) -> list[tuple[int, str]]:
    """Links that pass behind a node, and which node; the edges at a link's own two slots do not count."""
    boxes, _ = rectangles(workflow)
    ends = {number: (source, target) for number, source, _, target, *_ in workflow["links"]}
    found = []
    for number, curve in link_curves(workflow).items():
        for one, (x0, y0, x1, y1) in zip(workflow["nodes"], boxes, strict=True):
            # a line below the widgets in Nodes 2.0; a run's preview; a video as it is loaded
            below = {"IMTalkerRenderVideo": 220, "LoadVideo": 70}.get(
                one["type"], 40 * one["type"].startswith("IMTalker")
            )
            source, target = ends[number]
            inner = x0 + 20 * (one["id"] == target), x1 - 20 * (one["id"] == source)
            x, y = curve.T
            if ((x > inner[0]) & (x < inner[1]) & (y > y0) & (y < y1 + below)).any():
                found.append((number, one.get("title", one["type"])))
    return found


def test_a_link_behind_a_node_is_found():
    workflow = shipped.read("talk_composed")
    (encode,) = (one for one in workflow["nodes"] if one["type"] == "IMTalkerEncodeAudio")
    (sample,) = (one for one in workflow["nodes"] if one["type"] == "IMTalkerSampleMotion")
    encode["pos"][1] -= 60  # into the way from Load Generator to Sample Motion
    (link,) = (entry["link"] for entry in sample["inputs"] if entry["name"] == "generator")
    assert hidden_links(workflow) == [(link, "IMTalkerEncodeAudio")]
    encode["pos"][:] = sample["pos"][0], sample["pos"][1] + 460  # so that its own link has to go back
    (link,) = encode["outputs"][0]["links"]
    assert link in dict(hidden_links(workflow))


@pytest.mark.parametrize("name", shipped.NAMES)
class TestFile:
    def test_links_join_what_they_name(self, name):
        workflow = shipped.read(name)
        nodes = {node["id"]: node for node in workflow["nodes"]}
        assert len(nodes) == len(workflow["nodes"]) == workflow["last_node_id"]
        for number, source, slot, target, place, kind in workflow["links"]:
            output, entry = nodes[source]["outputs"][slot], nodes[target]["inputs"][place]
            assert number in output["links"]
            assert entry["link"] == number
            assert kind == output["type"]
            assert kind in entry["type"].split(",")
        linked = [e["link"] for node in nodes.values() for e in node["inputs"] if e["link"]]
        assert sorted(linked) == [link[0] for link in workflow["links"]]
        # what is run first comes first, as the page orders them
        assert all(nodes[source]["order"] < nodes[target]["order"] for _, source, _, target, *_ in workflow["links"])

    def test_nodes_lie_apart_each_in_one_group(self, name):
        workflow = shipped.read(name)
        boxes, groups = rectangles(workflow)
        for a, b in itertools.combinations(boxes, 2):
            assert max(a[0], b[0]) >= min(a[2], b[2]) + 20 or max(a[1], b[1]) >= min(a[3], b[3]) + 20, (a, b)
        for one, box in zip(workflow["nodes"], boxes, strict=True):
            # a line below the widgets says whose node it is in Nodes 2.0
            bottom = box[3] + 40 * one["type"].startswith("IMTalker")
            around = [g for g in groups if g[0] < box[0] and g[1] < box[1] and box[2] < g[2] and bottom < g[3]]
            assert len(around) == (one["type"] not in shipped.NOTES), one["type"]

    def test_data_flows_to_the_right_and_no_link_is_hidden(self, name):
        workflow = shipped.read(name)
        left = {node["id"]: node["pos"][0] for node in workflow["nodes"]}
        assert all(left[source] <= left[target] for _, source, _, target, *_ in workflow["links"])
        assert not hidden_links(workflow)

    def test_it_can_be_read_where_all_of_it_is_seen(self, name):
        """On a screen of 1920 x 1080: below a zoom of 8 / 14 the page draws no text."""
        left, top, right, bottom = zip(*itertools.chain(*rectangles(shipped.read(name))))
        seen = min((1920 - 90) / (max(right) - min(left)), (1080 - 110) / (max(bottom) - min(top)))
        assert seen > 8 / 14

    def test_it_says_in_three_lines_what_to_do(self, name):
        (note,) = (node for node in shipped.read(name)["nodes"] if node["type"] in shipped.NOTES)
        assert len(note["widgets_values"][0].splitlines()) == 3

    def test_it_knows_the_inputs_and_outputs_of_its_nodes(self, server, name):
        info = server.get("/object_info")
        for one in shipped.read(name)["nodes"]:
            if not one["type"].startswith("IMTalker"):
                assert one["type"] in {*info, *shipped.NOTES}
                continue
            kind = info[one["type"]]
            order = [*kind["input_order"]["required"], *kind["input_order"].get("optional", [])]
            widgets = [entry["name"] for entry in one["inputs"] if "widget" in entry]
            assert sorted(entry["name"] for entry in one["inputs"]) == sorted(order)
            assert widgets == [name for name in order if name in widgets]
            assert [output["name"] for output in one["outputs"]] == kind["output_name"]
            assert [output["type"] for output in one["outputs"]] == kind["output"]

    def test_it_runs_to_a_video(self, filled, name):
        graph = with_landmarks(shipped.to_api(shipped.tested(shipped.read(name), FILES)))
        found = probe(filled, saved_file(filled, graph))
        frames, size, fps, seconds = EXPECTED[name]
        assert (found["frames"], found["size"], found["fps"]) == (frames, size, fps)
        assert found["seconds of sound"] == pytest.approx(seconds, abs=0.1)


def test_the_defaults_of_a_workflow_are_those_of_the_nodes(server):
    info = server.get("/object_info")
    for name in shipped.NAMES:
        for one in shipped.to_api(shipped.read(name)).values():
            if not one["class_type"].startswith("IMTalker"):
                continue
            kind = {k: v for part in info[one["class_type"]]["input"].values() for k, v in part.items()}
            for key, value in one["inputs"].items():
                chosen = ("seed", "index", "face", "keyframes", "smirk", *DEPARTURES.get(name, ()))
                if isinstance(value, list) or key in chosen:
                    continue
                kind_of_input, options = kind[key]
                assert value == options.get("default", options.get("options", [None])[0]), (name, key, kind_of_input)


def motion_in(server: Server, graph: dict, kind: str) -> Motion:
    """The output of the node of this kind."""
    (number,) = (number for number, one in graph.items() if one["class_type"] == kind)
    run = server.run(graph | {"keep": node("IMTalkerSaveMotion", motion=[number, 0], filename_prefix="shipped")})
    assert run.succeeded, run.error
    (file,) = run.files("keep")
    return Motion.load(server.base / "output" / file["subfolder"] / file["filename"])


@pytest.mark.parametrize("name", ["gaze_keyframes", "pose_from_video", "pose_keyframes"])
@on_one_version
def test_the_motion_follows_the_control(filled, name):
    graph = with_landmarks(shipped.to_api(shipped.tested(shipped.read(name), FILES)))
    (sampling,) = (one for one in graph.values() if one["class_type"] == "IMTalkerSampleMotion")
    steered = motion_in(filled, graph, "IMTalkerSampleMotion")
    del sampling["inputs"]["control"]
    assert not torch.allclose(motion_in(filled, graph, "IMTalkerSampleMotion").latents, steered.latents, atol=1e-4)


@on_one_version
def test_after_the_wait_sound_and_motion_begin_together(filled):
    graph = shipped.to_api(shipped.tested(shipped.read("idle_then_talk"), FILES))
    inputs = {one["class_type"]: one["inputs"] for one in graph.values()}
    assert inputs["EmptyAudio"]["duration"] == inputs["IMTalkerIdleMotion"]["seconds"]
    inputs["IMTalkerJoinMotion"]["crossfade"] = 0.0
    joined, spoken = (motion_in(filled, graph, f"IMTalker{kind}Motion").latents for kind in ("Join", "Sample"))
    assert torch.equal(joined[100:], spoken)


@on_one_version
def test_two_people_are_pasted_into_one_picture(filled):
    graph = shipped.to_api(shipped.tested(shipped.read("two_people"), FILES))
    crops = [one for one in graph.values() if one["class_type"] == "IMTalkerFaceCrop"]
    assert [(one["inputs"]["face"], one["inputs"]["index"]) for one in crops] == [
        ("left to right", 0),
        ("left to right", 1),
    ]
    for one, side in zip(crops, ("left", "right"), strict=True):  # a mask holds one face
        graph[side] = node("LoadImageMask", image=f"{side}.png", channel="red")
        one["inputs"] |= {"mask": [side, 0], "index": 0, "scale": 1.0}
    file = saved_file(filled, graph)
    with av.open(filled.base / "output" / file["subfolder"] / file["filename"]) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)
    whole = np.asarray(Image.open(filled.base / "input/wide.png")).astype(int)
    change = np.abs(frames - whole).mean(axis=(0, 3))
    for x0, y0, x1, y1 in (LEFT, RIGHT):
        assert change[(y0 + y1) // 2 - 8 :, (x0 + x1) // 2 - 8 :][:16, :16].mean() > 20
    assert change[100:].mean() < 8
