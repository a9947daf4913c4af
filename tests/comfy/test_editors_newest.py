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
        pose.wait_for_history()
        first = pose.page.evaluate("() => app.extensionManager.workflow.activeWorkflow.filename")
        # another workflow, whose node has the same id
        other = both | {"id": str(uuid.uuid4())}
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


def wheel(pose: Drawing, place: tuple[float, float], delta: float, *held: str) -> None:
    pose.page.mouse.move(*place)
    for key in held:
        pose.page.keyboard.down(key)
    pose.page.mouse.wheel(0, delta)
    pose.shown.wait_for_frames(2)
    for key in held:
        pose.page.keyboard.up(key)


class TestTime:
    def test_an_hour_fits_and_a_frame_is_an_inch(self, pose):
        pose.write('{"version": 2, "channels": {"yaw": [[0, 0], [1800, 20], [1800.04, 0], [3600, 10]]}}')
        pose.write(3600.0, "seconds")
        pose.click(pose.point("pitch", 0, 0, seconds=3600))
        pose.press("Home", ".", *["Control+ArrowUp"] * 30)
        assert pose.playhead() == 1800
        # the playhead has stayed where it was; the next frame is an inch to the right
        x, y = pose.point("roll", 1800, 0, seconds=3600)
        pose.click((x + 96, y))
        assert pose.playhead() == 1800.04
        before, scale = pose.image(), pose.page.evaluate("() => app.canvas.ds.scale")
        for held in (("Alt",), ("Alt", "Shift")):
            wheel(pose, (x, y), 400, *held)
            pose.shown.wait_until(lambda before=before: pose.image() != before)
            before = pose.image()
        assert pose.page.evaluate("() => app.canvas.ds.scale") == scale
        pose.press("f")
        pose.click(pose.point("roll", 900, 0, seconds=3600))
        assert pose.playhead() == pytest.approx(900, abs=10)

    def test_a_selection_is_stretched_by_its_bar_and_moved_by_it(self, pose):
        pose.write('{"version": 2, "channels": {"yaw": [[1, 0], [2, 10, "hold"]], "roll": [[1.52, 5]]}}')
        pose.click(pose.point("yaw", 1, 0))
        pose.press("Control+a")

        def bar(seconds: float) -> tuple[float, float]:
            x, y = pose.point("yaw", seconds, 30)
            return x, y - 10

        pose.drag(bar(2), bar(3))
        assert pose.curves() == {
            "yaw": [(1, 0), (pytest.approx(3, abs=0.05), 10, "hold")],
            "roll": [(pytest.approx(2.04, abs=0.05), 5)],
        }
        pose.drag(bar(2), bar(1.5))
        assert curve(pose, "yaw")[0] == (pytest.approx(0.5, abs=0.05), 0)
        end = curve(pose, "yaw")[1][0]
        pose.press(">")
        assert curve(pose, "yaw")[1][0] == pytest.approx(end + 0.04, abs=0.002)

    def test_easings_by_keys_and_menu(self, pose):
        pose.write(TURN)
        pose.click(pose.point("yaw", 1, 20))
        pose.press("3")
        assert curve(pose, "yaw") == [(0, 0), (1, 20, "hold")]
        pose.page.mouse.click(*pose.point("yaw", 0, 0), button="right")
        menu = pose.page.locator(".imtalker-menu")
        menu.get_by_text("Linear").click()
        assert curve(pose, "yaw") == [(0, 0, "linear"), (1, 20, "hold")]
        assert menu.count() == 0
        pose.shown.wait_until(lambda: pose.page.evaluate(FOCUSED, POSE))
        # with the keyboard alone
        pose.press("Control+a", "Shift+F10")
        menu.wait_for()
        pose.press("ArrowUp", "ArrowDown", "Escape")
        assert menu.count() == 0
        pose.press("Delete")
        assert pose.curves() == {}

    def test_a_loop_is_played_again_and_again(self, pose):
        pose.click(pose.point("yaw", 1, 20))
        pose.press("[", *["ArrowRight"] * 4, "]", "Space")
        times = []

        def played() -> bool:
            times.append(pose.playhead())
            return any(later < earlier for earlier, later in zip(times, times[1:]))

        pose.shown.wait_until(played)
        pose.press("Space")
        assert all(0.9 < time < 1.3 for time in times)


def test_a_loaded_sound_is_seen_before_a_run_and_heard_while_it_plays(pose):
    before = pose.image()
    pose.page.evaluate(ADD, ["LoadAudio", 860, 60])
    pose.page.evaluate(
        f"""kind => {{
            const load = app.graph.nodes.find(node => node.type === 'LoadAudio')
            {FIND}
            load.widgets[0].value = 'long.wav'
            load.connect(0, node, node.inputs.findIndex(input => input.name === 'audio'))
            const {{ play }} = HTMLMediaElement.prototype
            HTMLMediaElement.prototype.play = function () {{
                window.played = this
                return play.call(this)
            }}
        }}""",
        POSE,
    )
    pose.shown.wait_until(lambda: pose.image() != before)
    pose.shown.wait_for_frames(5)

    def seconds() -> float:
        pose.click(pose.point("yaw", 0.5, 0, seconds=1))
        return 2 * pose.playhead()

    pose.shown.wait_until(lambda: seconds() == pytest.approx(8, abs=0.1))
    pose.press("Space")
    pose.shown.wait_until(lambda: pose.page.evaluate("() => window.played?.currentTime > 4.1"))
    shown, heard = pose.page.evaluate(
        f"kind => {{ {FIND}; return [{ROOT}.querySelector('.time').textContent, window.played.currentTime] }}", POSE
    )
    assert float(shown.split()[0]) == pytest.approx(heard, abs=0.5)
    pose.press("Space")
    assert pose.page.evaluate("() => window.played.paused")


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
        assert page.errors == []
