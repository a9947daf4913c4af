"""The Expression node in a server and its editor in the newest page: the face, the rig's lanes, what it lacks."""

import json
import uuid

import pytest
from browser import EMPTY_GRAPH
from drawing import ADD, Drawing, look_at
from graphs import node
from server import Server, on_one_version
from test_more_nodes import kept, motion_of

from imtalker.drawn.head import MOTION
from imtalker.motion import keyframes
from imtalker.motion.expression import EXPRESSION, blink_times

KIND = "IMTalkerExpression"
DRAWN = {"smile": [[0, 0], [1, 0.5]], "blink left": [[1, 1]], "tongue": [[0, 1]]}
VALUES = {"seconds": 0.0, "blinks": 20.0, "blink_seed": 3, "allow_more": True}
CONNECT = """kind => {
    const find = type => app.graph.nodes.find(node => node.type === type)
    find('MadeUpMotion').connect(0, find(kind), 'motion')
    find('IMTalkerLoadRig').connect(0, find(kind), 'rig')
    find(kind).connect(0, find('IMTalkerSaveMotion'), 'motion')
    find('MadeUpMotion').widgets.find(widget => widget.name === 'size').value = 16
    find('MadeUpMotion').widgets.find(widget => widget.name === 'frames').value = 100
    find('IMTalkerLoadRig').widgets.find(widget => widget.name === 'rig_file').value = 'avatar'
}"""


@on_one_version
def test_keyframes_are_added_and_what_the_rig_lacks_is_told(server: Server):
    text = json.dumps({"version": 2, "channels": DRAWN})
    graph = {
        "made up": node("MadeUpMotion", frames=100, size=16),
        "rig": node("IMTalkerLoadRig", rig_file="avatar"),
        "expression": node(KIND, keyframes=text, motion=["made up", 0], rig=["rig", 0], **VALUES),
    }
    run = server.run(kept(graph, "expression"))
    assert run.succeeded, run.error
    (shown,) = run.outputs["expression"]["imtalker_expression"]
    assert shown["seconds"] == 4
    assert shown["lacking"] == {"squint": "not in this rig", "tongue": "not in this rig"}
    assert shown["one_for_both"] is True
    assert shown["blinks"] == blink_times(20, 3, 4)
    assert {*EXPRESSION, "yaw"} <= set(shown["channels"])
    moved = motion_of(server, kept(graph, "expression")).latents - motion_of(server, kept(graph, "made up")).latents
    smile = moved[:, MOTION.index("smile")]
    assert smile[25:].tolist() == pytest.approx([0.5] * 75, abs=1e-5)
    assert moved[25:, MOTION.index("blink")].min() == pytest.approx(1, abs=1e-5)


class Face(Drawing):
    def __init__(self, page):
        super().__init__(page, KIND)
        self.channels = dict(EXPRESSION)

    def curves(self):
        return keyframes.parse(self.widget("keyframes"), None)


@pytest.fixture(params=["litegraph", "vue"])
def face(newest_page, request):
    page = newest_page
    page.load(EMPTY_GRAPH | {"id": str(uuid.uuid4())})
    for kind, x, y in ((KIND, 60, 60), ("MadeUpMotion", 800, 60), ("IMTalkerLoadRig", 800, 260)):
        page.page.evaluate(ADD, [kind, x, y])
    page.page.evaluate(ADD, ["IMTalkerSaveMotion", 800, 460])
    page.page.evaluate(CONNECT, KIND)
    page.load(page.page.evaluate("() => app.graph.serialize()"), request.param == "vue")
    look_at(page, 1, 40, 40)
    face = Face(page)
    face.settle()
    page.errors.clear()
    yield face
    assert page.errors == []


def test_the_face_is_dragged_and_the_rig_brings_its_lanes(face):
    face.drag(face.gizmo(0.3, 0.5), face.gizmo(0.3, 0.7))
    assert face.curves().keys() == {"brows"}
    assert face.curves()["brows"][0][1] == pytest.approx(0.5, abs=0.03)
    face.drag(face.gizmo(0.35, 0.15), face.gizmo(0.35, -0.25))
    assert face.curves()["blink left"][0][1] == pytest.approx(1, abs=0.03)  # the person's left
    face.page.locator(".imtalker-editor select").first.select_option("frown")
    face.shown.wait_until(lambda: "squint" in face.curves())
    face.write(json.dumps({"version": 2, "channels": DRAWN | {"squint": [[0, 1]]}}))
    face.channels["tongue"] = keyframes.Channel("tongue", "", -1, 1, -2, 2, "")
    face.write(20, "blinks")
    face.settle()
    before = face.image()
    face.shown.run()
    face.shown.wait_until(lambda: face.image() != before)
    face.page.mouse.click(*face.point("brows", 2, 0), button="right")
    face.page.locator(".imtalker-menu").get_by_text("yaw", exact=True).click()
    face.channels["yaw"] = keyframes.Channel("yaw", "", -1, 1, -2, 2, "")
    face.settle()
    face.page.mouse.dblclick(*face.point("yaw", 2, 0.5))
    face.shown.wait_until(lambda: "yaw" in face.curves())
    assert face.curves()["tongue"] == [(0, 1)]
