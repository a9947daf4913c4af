"""The editors on the newest frontend, drawn on the canvas and as Nodes 2.0: they survive what a graph goes through."""

import uuid

import pytest
from browser import open_page
from drawing import ADD, BOX, FIND, FOCUSED, POSE, ROOT, Drawing, look_at, serialised, two_editors

from imtalker.motion import keyframes

TURN = '{"version": 1, "channels": {"yaw": [[0, 0], [1, 20]], "roll": [[0, 5]]}}'
EMPTY = '{"version": 1, "channels": {}}'


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
    def test_each_workflow_has_its_own_editor(self, pose, both_editors_newest):
        pose.write(TURN)
        pose.page.mouse.dblclick(*pose.point("pitch", 1, 5))
        pose.wait_for_history()
        first = pose.page.evaluate("() => app.extensionManager.workflow.activeWorkflow.filename")
        # another workflow, whose node has the same id
        other = both_editors_newest | {"id": str(uuid.uuid4())}
        pose.page.evaluate("workflow => app.loadGraphData(workflow, true, true, null)", other)
        pose.settle()
        assert pose.curves() == {}
        pose.page.mouse.dblclick(*pose.point("yaw", 2, 15))
        pose.shown.wait_until(lambda: list(pose.curves()) == ["yaw"])
        pose.wait_for_history()
        pose.page.get_by_text(first, exact=True).first.click()
        pose.shown.wait_until(lambda: pose.curves().keys() == {"yaw", "pitch", "roll"})
        pose.settle()
        pose.page.mouse.dblclick(*pose.point("y", 2, 0.05))
        pose.shown.wait_until(lambda: pose.curves().keys() == {"yaw", "pitch", "roll", "y"})


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


def test_copies_that_never_reach_a_graph_leave_no_listener(pose):
    left = """kind => {
        const { addEventListener } = window
        let count = 0
        window.addEventListener = function (...values) {
            count += /IMTalker\\/js/.test(new Error().stack)
            return addEventListener.apply(this, values)
        }
        app.graph.nodes.find(node => node.type === kind).clone()
        window.addEventListener = addEventListener
        return count
    }"""
    assert pose.page.evaluate(left, POSE) == 0


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
    inside.settle(sharp=False)
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

    def test_its_wire_ends_at_no_other_input(self, pose):
        promoted(pose, "keyframes")
        rows = pose.page.evaluate(
            """() => {
                const [node] = app.canvas.graph.nodes
                return Object.fromEntries(node.inputs.map((input, slot) => [input.name, node.getInputPos(slot)[1]]))
            }"""
        )
        y = rows.pop("keyframes")
        assert min(abs(y - other) for other in rows.values()) > 15

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


def test_in_chinese(newest, browser):
    with open_page(browser, newest, 1500, 1100, Comfy_Locale="zh") as page:
        page.load(two_editors(page))
        look_at(page, 1, 40, 40)
        pose = Drawing(page, POSE)
        pose.settle()
        presets = page.page.locator(".imtalker-editor select").first
        assert "点头" in presets.inner_text()
        pose.page.mouse.click(*pose.point("yaw", 1, 0), button="right")
        menu = page.page.locator(".imtalker-menu").inner_text()
        assert "平滑" in menu
        assert "Smooth" not in menu
        choices = page.page.evaluate(
            """() => {
                const face = LiteGraph.createNode('IMTalkerFaceCrop').widgets.find(one => one.name === 'face')
                return [face.value, face.options.getOptionLabel(face.value), face.options.getOptionLabel('unknown')]
            }"""
        )
        assert choices == ["largest", "最大", "unknown"]
        assert page.errors == []
