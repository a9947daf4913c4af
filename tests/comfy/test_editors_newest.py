"""The editors on the newest frontend, drawn on the canvas and as Nodes 2.0: they survive what a graph goes through."""

import uuid

import pytest
from browser import open_page
from drawing import ADD, BOX, FIND, POSE, Drawing, look_at, serialised, two_editors

from imtalker.motion import keyframes

TURN = '{"version": 1, "channels": {"yaw": [[0, 0], [1, 20]], "roll": [[0, 5]]}}'
EMPTY = '{"version": 1, "channels": {}}'
ROOT = "node.widgets.find(widget => widget.name === 'editor').element"
FOCUSED = f"kind => {{ {FIND}; return document.activeElement === {ROOT}.querySelector('canvas') }}"


@pytest.fixture(scope="module")
def page(newest, browser):
    with open_page(browser, newest, 1500, 1100) as page:
        page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield page


@pytest.fixture(scope="module")
def both(page) -> dict:
    return two_editors(page)


@pytest.fixture(params=["litegraph", "vue"])
def pose(page, both, request):
    """The pose editor of a graph that has both, in each of the page's ways to draw nodes."""
    page.load(both | {"id": str(uuid.uuid4())}, request.param == "vue")
    look_at(page, 1, 40, 40)
    pose = Drawing(page, POSE)
    pose.vue = request.param == "vue"
    pose.settle()
    page.errors.clear()
    page.warnings.clear()
    yield pose
    assert page.errors == []
    assert [text for text in page.warnings if "deprecated" in text.lower() and "IMTalker" in text] == []
    assert not any("input.link" in text for text in page.warnings)


def curve(pose: Drawing, channel: str) -> list:
    return pose.curves().get(channel, [])


class TestUndo:
    def test_it_lives_on_with_what_it_shows_and_the_focus(self, pose):
        pose.page.mouse.dblclick(*pose.point("yaw", 1, 15))
        pose.wait_for_history()
        pose.press("Control+z")
        pose.become({})
        pose.settle()
        assert pose.page.evaluate(f"kind => {{ {FIND}; return {ROOT}.isConnected }}", POSE)
        pose.shown.wait_until(lambda: pose.page.evaluate(FOCUSED, POSE))
        pose.press("PageDown", "ArrowUp")
        assert pose.curves() == {"pitch": [(pytest.approx(1, abs=0.05), 1)]}
        pose.press("Control+a", "Control+c", "Control+v")
        assert len(serialised(pose.shown)["nodes"]) == 3
        pose.wait_for_history()
        pose.page.mouse.dblclick(*pose.point("roll", 2, 10))
        pose.shown.wait_until(lambda: "roll" in pose.curves())
        pose.wait_for_history()
        pose.press("Control+z")
        pose.shown.wait_until(lambda: "roll" not in pose.curves())
        pose.settle()
        pose.press("Control+y")
        pose.shown.wait_until(lambda: "roll" in pose.curves())

    def test_an_undo_elsewhere_leaves_it_alone(self, pose):
        pose.write(TURN)
        pose.page.evaluate(
            "() => { app.canvas.emitBeforeChange(); app.graph.nodes[2].pos[0] += 50; app.canvas.emitAfterChange() }"
        )
        pose.click(pose.point("roll", 3, 0))
        pose.wait_for_history()
        pose.press("Control+z")
        pose.shown.wait_for_frames(5)
        pose.settle()
        pose.shown.wait_until(lambda: pose.page.evaluate(FOCUSED, POSE))
        assert pose.playhead() == pytest.approx(3, abs=0.05)
        before = pose.curves()
        pose.page.mouse.dblclick(*pose.point("pitch", 2, 5))
        pose.shown.wait_until(lambda: pose.curves() != before)


class TestTabs:
    def test_each_workflow_has_its_own_editor(self, pose, both):
        pose.write(TURN)
        pose.page.mouse.dblclick(*pose.point("pitch", 1, 5))
        pose.shown.wait_until(lambda: "pitch" in pose.curves())
        # another workflow, whose node has the same id
        pose.page.evaluate(
            "workflow => app.loadGraphData(workflow, true, true, null)", both | {"id": str(uuid.uuid4())}
        )
        pose.settle()
        assert pose.curves() == {}
        pose.page.mouse.dblclick(*pose.point("yaw", 2, 15))
        pose.shown.wait_until(lambda: list(pose.curves()) == ["yaw"])
        pose.page.evaluate(
            """async () => {
                const { workflow } = app.extensionManager
                const others = workflow.openWorkflows.filter(one => one !== workflow.activeWorkflow)
                await app.extensionManager.workflow.openWorkflow?.(others.at(-1))
            }"""
        )


def test_the_properties_panel_leaves_the_width(pose):
    for kind in ("IMTalkerEditMotion",):
        pose.page.evaluate(ADD, [kind, 860, 60])
    look_at(pose.shown, 0.8, 40, 40)
    pose.settle()
    widths = """() => app.graph.nodes.flatMap(node => (node.widgets ?? []).filter(w => w.element).map(widget =>
        Math.round(widget.element.getBoundingClientRect().width / app.canvas.ds.scale)))"""
    before = pose.page.evaluate(widths)
    setting = "value => app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', value)"
    try:
        for kind in (POSE, "IMTalkerEditMotion"):
            pose.page.evaluate(f"kind => {{ {FIND}; app.canvas.selectItems([node]) }}", kind)
            for opened in (True, False):
                pose.page.evaluate(setting, opened)
                pose.shown.wait_for_frames(30)
                pose.settle()
                assert pose.page.evaluate(widths) == pytest.approx(before, abs=3)
    finally:
        pose.page.evaluate(setting, False)


def test_the_wheel_and_the_middle_button_are_the_graph_s(pose):
    place = pose.point("pitch", 2, 0)
    view = "() => [app.canvas.ds.scale, ...app.canvas.ds.offset]"
    for _ in range(2):  # also once the editor has the focus
        before = pose.page.evaluate(view)
        pose.page.mouse.move(*place)
        pose.page.mouse.wheel(0, 100)
        pose.shown.wait_until(lambda before=before: pose.page.evaluate(view)[0] < before[0])
        before = pose.page.evaluate(view)
        pose.page.mouse.down(button="middle")
        pose.page.mouse.move(place[0] + 40, place[1] + 30, steps=4)
        pose.page.mouse.up(button="middle")
        pose.shown.wait_until(lambda before=before: pose.page.evaluate(view)[1] > before[1] + 20)
        pose.page.mouse.move(place[0] + 80, place[1] + 30)
        pose.shown.wait_for_frames()
        after = pose.page.evaluate(view)
        pose.page.mouse.move(place[0], place[1])
        pose.shown.wait_for_frames()
        assert pose.page.evaluate(view) == after
        pose.click(place)
    assert pose.curves() == {}


def test_collapsed_and_opened_again_it_goes_on(pose):
    pose.write(TURN)
    for _ in range(2):
        pose.page.evaluate(f"kind => {{ {FIND}; node.collapse(); app.canvas.setDirty(true, true) }}", POSE)
        pose.shown.wait_for_frames(5)
    pose.settle()
    pose.drag(pose.point("yaw", 1, 20), pose.point("yaw", 2, -15))
    assert curve(pose, "yaw")[1] == (pytest.approx(2, abs=0.09), pytest.approx(-15, abs=1.5))


def test_a_copy_is_edited_by_itself(pose):
    pose.write(TURN)
    pose.page.evaluate(f"kind => {{ {FIND}; app.canvas.selectItems([node]); app.canvas.copyToClipboard() }}", POSE)
    pose.page.evaluate("() => { app.canvas.graph_mouse = [60, 1100]; app.canvas.pasteFromClipboard() }")
    pose.shown.wait_for_frames(5)
    texts = "kind => app.graph.nodes.filter(n => n.type === kind).map(n => n.widgets[0].value)"
    assert pose.page.evaluate(texts, POSE) == [TURN, TURN]
    pose.settle()
    pose.page.mouse.dblclick(*pose.point("pitch", 2, 5))
    pose.shown.wait_until(lambda: pose.page.evaluate(texts, POSE)[0] != TURN)
    assert pose.page.evaluate(texts, POSE)[1] == TURN


SUBGRAPH = f"""async names => {{
    const node = app.graph.nodes.find(node => node.type === '{POSE}')
    const {{ node: outer, subgraph }} = app.graph.convertToSubgraph(new Set([node]))
    const inner = subgraph.nodes[0]
    for (const name of names) {{
        const slot = inner.inputs.findIndex(input => input.name === name)
        subgraph.addInput(name, inner.inputs[slot].type).connect(inner.inputs[slot], inner)
    }}
    window.outer = outer
    app.canvas.setGraph(subgraph)
    app.canvas.ds.offset = [140, 40]
    app.canvas.setDirty(true, true)
}}"""


def promoted(pose: Drawing, *names: str) -> Drawing:
    pose.page.evaluate(SUBGRAPH, list(names))
    pose.shown.wait_for_frames(5)
    inside = Drawing(pose.shown, POSE)
    inside.box = lambda: pose.page.evaluate(BOX.replace("app.graph", "app.canvas.graph"), POSE)
    inside.settle()
    return inside


def outer(pose: Drawing, name: str):
    return pose.page.evaluate("name => window.outer.widgets.find(w => w.name === name).value", name)


def prompted(pose: Drawing) -> str:
    return next(one["inputs"]["keyframes"] for one in pose.shown.prompt().values() if one["class_type"] == POSE)


class TestSubgraphs:
    def test_promoted_keyframes_are_those_that_run(self, pose):
        pose.write(TURN)
        inside = promoted(pose, "keyframes")
        before = prompted(pose)
        pose.page.mouse.dblclick(*inside.point("pitch", 2, 5))
        pose.shown.wait_until(lambda: prompted(pose) != before)
        assert keyframes.parse(prompted(pose)).keys() == {"yaw", "pitch", "roll"}
        assert outer(pose, "keyframes") == prompted(pose)
        pose.page.evaluate(
            "text => (window.outer.widgets.find(w => w.name === 'keyframes').value = text)",
            EMPTY,
        )
        pose.page.mouse.move(*inside.point("pitch", 3, 5))
        pose.shown.wait_for_frames(5)
        pose.page.mouse.dblclick(*inside.point("yaw", 2, 5))
        pose.shown.wait_until(lambda: keyframes.parse(prompted(pose)).keys() == {"yaw"})

    def test_its_wire_ends_at_the_editor(self, pose):
        promoted(pose, "keyframes")
        y, top = pose.page.evaluate(
            f"""() => {{
                const node = app.canvas.graph.nodes[0], root = {ROOT}
                const box = root.getBoundingClientRect(), {{ scale, offset }} = app.canvas.ds
                const canvas = app.canvas.canvas.getBoundingClientRect()
                const slot = node.inputs.findIndex(input => input.name === 'keyframes')
                return [node.getInputPos(slot)[1], (box.top - canvas.top) / scale - offset[1]]
            }}"""
        )
        assert y == pytest.approx(top, abs=45)

    def test_keyframes_of_another_node_are_shown_and_left_alone(self, pose):
        pose.write(TURN)
        pose.page.evaluate(
            """([kind, text]) => {
                const other = LiteGraph.createNode('PrimitiveStringMultiline')
                other.pos = [860, 60]
                app.graph.add(other)
                other.widgets[0].value = text
                const node = app.graph.nodes.find(node => node.type === kind)
                other.connect(0, node, node.inputs.findIndex(input => input.name === 'keyframes'))
                app.canvas.setDirty(true, true)
            }""",
            [POSE, '{"version": 1, "channels": {"yaw": [[0, -20]]}}'],
        )
        pose.shown.wait_for_frames(5)
        pose.settle()
        number = pose.page.locator(".imtalker-editor input[type=number]").first
        pose.click(pose.point("yaw", 2, 0))
        pose.shown.wait_until(lambda: float(number.input_value()) == -20)
        pose.page.mouse.dblclick(*pose.point("pitch", 2, 5))
        pose.press("ArrowUp", "Enter", "Delete")
        pose.shown.wait_for_frames(5)
        assert pose.widget("keyframes") == TURN
        assert number.is_disabled()

    def test_the_timeline_follows_promoted_seconds(self, pose):
        inside = promoted(pose, "seconds")
        pose.page.evaluate("() => { window.outer.widgets.find(w => w.name === 'seconds').value = 10 }")
        pose.page.mouse.move(*inside.point("yaw", 1, 0))
        pose.page.mouse.wheel(0, 1)
        inside.settle()
        inside.click(inside.point("yaw", 0.5, 0, seconds=1))
        shown = f"() => {{ const node = app.canvas.graph.nodes[0]; return {ROOT}.querySelector('.time').textContent }}"
        assert float(pose.page.evaluate(shown).split()[0]) == pytest.approx(5, abs=0.1)


class TestPresets:
    def test_a_touch_never_makes_the_clip_longer(self, pose):
        select = pose.page.locator(".imtalker-editor select").first
        amount = pose.page.locator(".imtalker-editor input[type=range]").first
        for name in ("idle_sway", "nod", "look_around", "nod"):
            select.select_option(name)
        for size in ("0.5", "1.5", "2"):
            amount.fill(size)
        pose.shown.wait_for_frames()
        assert max(time for one in pose.curves().values() for time, *_ in one) <= 4

    def test_one_nod_at_the_playhead(self, pose):
        pose.write('{"version": 1, "channels": {"pitch": [[0, 8], [599, 8]], "yaw": [[0, 5]]}}')
        pose.write(600.0, "seconds")
        pose.click(pose.point("yaw", 300, 0, seconds=600))
        start = pose.playhead()
        pose.page.locator(".imtalker-editor select").first.select_option("nod")
        assert [time for time, *_ in curve(pose, "pitch")] == pytest.approx(
            [0, *(start + step for step in (0, 0.4, 0.8, 1.2, 1.6)), 599], abs=0.05
        )
        assert curve(pose, "yaw") == [(0, 5)]
        pose.page.locator(".imtalker-editor input.length").first.fill("4.8")
        pose.press("Enter")
        times = [time for time, *_ in curve(pose, "pitch")]
        assert times[-2] == pytest.approx(start + 4.8, abs=0.05)
        assert len(times) == 2 + 3 * 4 + 1
