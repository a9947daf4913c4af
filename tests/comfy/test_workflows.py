"""Every shipped workflow from file to video through the HTTP API; test_browser.py opens them in the page."""

import itertools
import re

import av
import numpy as np
import pytest
import shipped
import torch
from build_workflows import built
from graphs import node
from layout import hidden_links, rectangles
from PIL import Image
from server import Server, on_one_version
from test_nodes import probe

from imtalker import Motion

# of a run whose sounds last 0.4 s and whose driving video is whole: frames, width and height, seconds of sound
EXPECTED = {
    "01 First try": (10, (128, 128), 0.4),
    "02 Talk step by step": (10, (128, 128), 0.4),
    "03 Talk and paste back": (10, (1024, 512), 0.4),
    "04 Reenact a portrait": (101, (128, 128), 4.03),
    "05 Draw the head pose": (10, (128, 128), 0.4),
    "06 Draw the gaze": (10, (128, 128), 0.4),
    "07 Two people talk": (20, (1024, 512), 0.8),
    "08 Idle, then talk": (60, (128, 128), 2.4),
    "09 Long video": (10, (1024, 512), 0.4),
    "10 Draw an expression": (10, (128, 128), 0.4),
    "11 Dub a video": (10, (256, 256), 0.4),
    "12 Head from a video, lips from speech": (10, (128, 128), 0.4),
}
HIDDEN = 5  # links that may pass behind a node, so that a graph stays small enough to be read
OPENED = 0.75  # of the page's width or height, at most, is filled by the nodes of a template that it opens
# pixels of a page of 1920 x 1000 beside its bars, and the zoom below which it draws no text: frontends 1.27.10, 1.58.1
SCREENS = [(1920, 950, 0.6), (1870, 836, 8 / 14)]


def saved_file(server: Server, graph: dict) -> dict:
    (save,) = (number for number, one in graph.items() if one["class_type"] == "SaveVideo")
    run = server.run(graph)
    assert run.succeeded, run.error
    (file,) = run.files(save)
    return file


def test_every_workflow_has_an_expectation_and_a_picture_of_its_result():
    assert set(shipped.NAMES) == EXPECTED.keys()
    for name in shipped.NAMES:
        with Image.open(shipped.picture_of(name)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (400, 400))
        assert shipped.picture_of(name).stat().st_size < 60_000


def test_names_sort_and_read():
    numbers = [int(name.split(" ")[0]) for name in shipped.NAMES]
    assert numbers == list(range(1, len(numbers) + 1))
    assert all(re.fullmatch(r"\d\d [A-Z][\w ,]+", name) for name in shipped.NAMES)


@on_one_version
def test_the_files_are_what_their_descriptions_give(server):
    found = built(server.get("/object_info"))
    assert {path.stem for path in found if path.parent == shipped.FOLDER} == set(shipped.NAMES)
    for path, content in found.items():
        assert path.read_text("utf-8") == content, f"{path}: run python tests/comfy/build_workflows.py"


def test_a_link_behind_a_node_is_found():
    workflow = shipped.read("02 Talk step by step")
    (encode,) = (one for one in workflow["nodes"] if one["type"] == "IMTalkerEncodeAudio")
    (sample,) = (one for one in workflow["nodes"] if one["type"] == "IMTalkerSampleMotion")
    (link,) = (entry["link"] for entry in sample["inputs"] if entry["name"] == "generator")
    (load,) = (one for one in workflow["nodes"] if one["type"] == "IMTalkerLoadGenerator")
    ends = np.array([load["pos"], sample["pos"]])
    encode["pos"][:] = ends.mean(axis=0) - (0, 20)  # in the way from Load Generator to Sample Motion
    assert (link, "IMTalkerEncodeAudio") in hidden_links(workflow)
    encode["pos"][:] = sample["pos"][0] + 400, sample["pos"][1]  # so that its own link has to go back
    (link,) = encode["outputs"][0]["links"]
    assert link in dict(hidden_links(workflow))


def after_runs(workflow: dict) -> list[str]:
    """What the page does to each seed after a run."""
    values = (value for node in shipped.all_nodes(workflow) for value in node["widgets_values"])
    return [value for value in values if value in shipped.AFTER_RUN]


@pytest.mark.parametrize("name", shipped.NAMES)
class TestFile:
    def test_links_join_what_they_name(self, name):
        workflow = shipped.read(name)
        nodes = {node["id"]: node for node in workflow["nodes"]}
        assert len(nodes) == len(workflow["nodes"])
        numbers = [node["id"] for node in shipped.all_nodes(workflow)]
        assert workflow["last_node_id"] == max(numbers)
        assert len(set(numbers)) == len(numbers)
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

    def test_data_flows_to_the_right_and_few_links_are_hidden(self, name):
        workflow = shipped.read(name)
        left = {node["id"]: node["pos"][0] for node in workflow["nodes"]}
        assert all(left[source] <= left[target] for _, source, _, target, *_ in workflow["links"])
        assert len(dict(hidden_links(workflow))) <= HIDDEN

    @pytest.mark.parametrize(("wide", "high", "sharp"), SCREENS)
    def test_its_titles_are_drawn_when_it_is_opened(self, name, wide, high, sharp):
        left, top, right, bottom = rectangles(shipped.read(name))[0].T
        opened = OPENED * min(wide / (right.max() - left.min()), high / (bottom.max() - top.min()))
        assert opened > sharp

    def test_a_second_run_does_something(self, name):
        assert any(value in ("randomize", "increment") for value in after_runs(shipped.read(name)))

    def test_it_says_in_three_lines_what_to_do(self, name):
        (note,) = (node for node in shipped.read(name)["nodes"] if node["type"] in shipped.NOTES)
        text = note["widgets_values"][0]
        assert len(text.splitlines()) == 3
        assert "`" not in text  # blue on blue in Nodes 2.0

    def test_it_knows_the_inputs_and_outputs_of_its_nodes(self, server, name):
        info = server.get("/object_info")
        workflow = shipped.read(name)
        subgraphs = {one["id"] for one in workflow.get("definitions", {}).get("subgraphs", [])}
        for one in shipped.all_nodes(workflow):
            if not one["type"].startswith("IMTalker"):
                assert one["type"] in {*info, *shipped.NOTES, *subgraphs}
                continue
            kind = info[one["type"]]
            order = [*kind["input_order"]["required"], *kind["input_order"].get("optional", [])]
            widgets = [entry["name"] for entry in one["inputs"] if "widget" in entry]
            assert sorted(entry["name"] for entry in one["inputs"]) == sorted(order)
            assert widgets == [name for name in order if name in widgets]
            assert [output["name"] for output in one["outputs"]] == kind["output_name"]
            assert [output["type"] for output in one["outputs"]] == kind["output"]

    def test_it_runs_to_a_video_without_any_file(self, server, name):
        found = probe(server, saved_file(server, shipped.to_api(shipped.shortened(shipped.read(name)))))
        frames, size, seconds = EXPECTED[name]
        assert (found["frames"], found["size"], found["fps"]) == (frames, size, 25)
        assert found["seconds of sound"] == pytest.approx(seconds, abs=0.1)


def test_a_workflow_only_departs_from_the_defaults_where_it_must(server):
    info = server.get("/object_info")
    chosen = {"model", "cfg", "seed", "index", "face", "keyframes", "seconds", "crossfade", "way"}
    for name in shipped.NAMES:
        for one in shipped.to_api(shipped.read(name)).values():
            if not one["class_type"].startswith("IMTalker"):
                continue
            kind = {k: v for part in info[one["class_type"]]["input"].values() for k, v in part.items()}
            for key, value in one["inputs"].items():
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


@pytest.mark.parametrize("name", ["05 Draw the head pose", "06 Draw the gaze"])
@on_one_version
def test_the_motion_follows_the_control(server, name):
    graph = shipped.to_api(shipped.shortened(shipped.read(name), 2.0))
    (sampling,) = (one for one in graph.values() if one["class_type"] == "IMTalkerSampleMotion")
    steered = motion_in(server, graph, "IMTalkerSampleMotion")
    del sampling["inputs"]["control"]
    assert not torch.allclose(motion_in(server, graph, "IMTalkerSampleMotion").latents, steered.latents, atol=1e-2)


@on_one_version
def test_after_the_wait_sound_and_motion_begin_together(server):
    graph = shipped.to_api(shipped.shortened(shipped.read("08 Idle, then talk")))
    inputs = {one["class_type"]: one["inputs"] for one in graph.values()}
    wait = inputs["IMTalkerIdleMotion"]["seconds"]
    assert inputs["EmptyAudio"]["duration"] == wait
    inputs["IMTalkerJoinMotion"]["crossfade"] = 0.0
    joined, spoken = (motion_in(server, graph, f"IMTalker{kind}Motion").latents for kind in ("Join", "Sample"))
    assert torch.equal(joined[round(wait * 25) :], spoken)


@on_one_version
def test_two_people_speak_in_one_picture_one_after_the_other(server):
    graph = shipped.to_api(shipped.shortened(shipped.read("07 Two people talk"), 1.2))
    file = saved_file(server, graph)
    with av.open(server.base / "output" / file["subfolder"] / file["filename"]) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(float)
    mouths = frames[:, 300:380, :, :]
    moved = np.abs(np.diff(mouths, axis=0)).mean(axis=(1, 3))  # of each column, from frame to frame
    left, right = moved[:, 180:330].mean(axis=1), moved[:, 690:850].mean(axis=1)
    first, second = slice(2, 28), slice(32, None)
    assert left[first].mean() > 2 * left[second].mean()
    assert right[second].mean() > 2 * right[first].mean()
