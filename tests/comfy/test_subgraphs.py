"""Our subgraphs in the page's library, and subgraphs used several times with our editors in them."""

import uuid

import pytest
import shipped
from building import Graph
from drawing import BOX, POSE, Drawing
from templates import blueprints, parts
from test_nodes import probe
from test_workflows import saved_file

from imtalker.motion import keyframes

TURN = '{"version": 2, "channels": {"yaw": [[0, 0], [1, 20]]}}'
ENTER = """() => {
    app.canvas.setGraph(app.graph.nodes.find(node => node.subgraph).subgraph)
    app.canvas.ds.offset = [340, 140]
    app.canvas.ds.scale = 1
    app.canvas.setDirty(true, true)
}"""


def test_the_library_offers_every_blueprint(newest):
    offered = {
        one["name"]: key for key, one in newest.get("/global_subgraphs").items() if "IMTalker" in str(one["info"])
    }
    assert offered.keys() == blueprints.BLUEPRINTS.keys()
    for name, key in offered.items():
        text = (shipped.ROOT / f"subgraphs/{name}.json").read_text("utf-8")
        assert newest.get(f"/global_subgraphs/{key}")["data"] == text


@pytest.mark.parametrize("name", blueprints.BLUEPRINTS)
def test_a_blueprint_runs_between_example_and_save_video(newest, name):
    graph = Graph(newest.get("/object_info"), name)
    example = graph.add("IMTalkerExample")
    one = blueprints.draw(graph, blueprints.BLUEPRINTS[name])
    for entry in one.node["inputs"]:
        given = {"image": "image", "audio": "audio", "driving": "driving"}.get(entry["name"])
        if given:
            graph.connect(example[given], one, entry["name"])
    parts.result(graph, one["video"], 800)
    prompt = shipped.to_api(shipped.shortened(graph.workflow()))
    (save,) = (node for node in prompt.values() if node["class_type"] == "SaveVideo")
    save["inputs"] |= {"format": "auto", "codec": "auto"}
    found = probe(newest, saved_file(newest, prompt))
    assert (found["frames"], found["fps"]) == (101 if "Reenact" in name else 10, 25)
    assert found["size"] == ((512, 512) if "paste" in name else (128, 128))
    assert found["seconds of sound"] > 0.3


def twice(info: dict, promoted: bool) -> dict:
    """One subgraph with a Pose Control, used for two controls, with its keyframes outside or not."""
    graph = Graph(info, "twice")
    one = graph.subgraph("Turn", **({"keyframes": "STRING"} if promoted else {}))
    one.output("control", one.add(POSE, keyframes=one["keyframes"] if promoted else TURN)["control"])
    for _ in range(2):
        graph.add("ShowControl", control=graph.add(one, **({"keyframes": TURN} if promoted else {}))["control"])
    return graph.workflow() | {"id": str(uuid.uuid4())}


def drawn(page) -> list[str]:
    return [one["inputs"]["keyframes"] for one in page.prompt().values() if one["class_type"] == POSE]


@pytest.mark.parametrize("vue", [False, True], ids=["litegraph", "vue"])
@pytest.mark.parametrize("promoted", [False, True], ids=["inside", "promoted"])
def test_an_editor_in_a_subgraph_used_twice(newest_page, newest, promoted, vue):
    """Inside, a drawing changes both uses; promoted, each use has a text of its own, which can only be looked at."""
    page = newest_page
    page.load(twice(newest.get("/object_info"), promoted), vue)
    assert drawn(page) == [TURN, TURN]
    page.page.evaluate(ENTER)
    page.wait_for_frames(5)
    editor = Drawing(page, POSE)
    editor.box = lambda: page.page.evaluate(BOX.replace("app.graph", "app.canvas.graph"), POSE)
    editor.settle(sharp=False)
    page.page.mouse.dblclick(*editor.point("pitch", 2, 5))
    page.wait_for_frames(5)
    if promoted:
        assert drawn(page) == [TURN, TURN]
    else:
        page.wait_until(lambda: drawn(page)[0] != TURN)
        assert len(set(drawn(page))) == 1
        assert keyframes.parse(drawn(page)[0]).keys() == {"yaw", "pitch"}
    page.page.evaluate("() => app.canvas.setGraph(app.graph)")
    assert page.errors == []
