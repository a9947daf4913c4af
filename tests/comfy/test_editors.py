"""The keyframe editors: their nodes through the API, without our JavaScript, and in the page with a real mouse."""

import json
import math
import random
import re
import uuid

import pytest
import torch
from browser import EMPTY_GRAPH, open_page
from drawing import ADD, FIND, GAZE, POSE, Drawing, look_at, serialised, two_editors
from graphs import composed, node
from server import ROOT, Server, on_one_version
from test_nodes import OURS, refusal

from imtalker import Control, Motion
from imtalker.motion import expression, keyframes
from imtalker.motion.presets import EXPRESSION_PRESETS, GAZE_PRESETS, POSE_PRESETS, expand

BLEND = "IMTalkerBlendControl"
EMPTY = '{"version": 1, "channels": {}}'
TURN = '{"version": 1, "channels": {"yaw": [[0, 0], [1, 20]], "roll": [[0, 5]]}}'
LOOK = '{"version": 1, "channels": {"horizontal": [[0, 10]], "vertical": [[0, -5], [0.5, 5]]}}'


def drawn(kind: str, text: str, **inputs) -> dict:
    return node(kind, **({"keyframes": text, "seconds": 0.0, "strength": 1.0, "allow_more": False} | inputs))


def kept(graph: dict, control: str = "control") -> dict:
    return graph | {"keep": node("KeepControl", control=[control, 0])}


def control_of(server: Server, graph: dict) -> Control:
    run = server.run(graph)
    assert run.succeeded, run.error
    return loaded(server)


def loaded(server: Server) -> Control:
    return Control.load(server.base / "output/control.safetensors")


# where the files hold English that a person reads
WORDS = (
    r'\b(?:text|item)\("([^"]+)"',
    r'\bbutton\("\w+", "([^"]+)"',
    r'^  \["([^"]+)", "[^"]+"\],$',
    r'^  \["[^"]+", "([^"]+)"\],$',
    r'\["([^"]+)", -?[\d.]+\]',
    r'(?:smooth|linear|hold): "(\w+)"',
)


def test_every_text_of_the_editors_is_there_in_chinese():
    chinese = json.loads((ROOT / "locales/zh/main.json").read_text("utf-8"))["imtalker"]
    files = [path.read_text("utf-8") for path in sorted((ROOT / "web/js").glob("*.js"))]
    written = {found for file in files for words in WORDS for found in re.findall(words, file, flags=re.MULTILINE)}
    # of an error's values, only their places
    mathematics = (ROOT / "web/js/keyframes.js").read_text("utf-8")
    errors = re.findall(r"(?:new Error\(|const where = )(['`].+?['`])[\n,)]", mathematics)
    written |= {re.sub(r"\$?\{.*?\}+", "%", text[1:-1]) for text in errors}
    channels = (keyframes.CHANNELS | expression.EXPRESSION).values()
    labels = {text for channel in channels for text in (channel.label, channel.positive)}
    presets = (kind.values() for kind in (POSE_PRESETS, GAZE_PRESETS, EXPRESSION_PRESETS))
    labels |= {preset.label for some in presets for preset in some} | {expression.ABSENT, expression.WEAK}
    assert len(written) > 80
    assert written | labels == chinese.keys()


class TestThroughTheApi:
    @on_one_version
    def test_what_is_written_by_hand_steers(self, server):
        control = control_of(server, kept({"control": drawn(POSE, TURN)}))
        assert torch.equal(control.pose, keyframes.to_control(TURN).pose)
        assert (control.cam, control.gaze) == (None, None)
        graph = {"control": drawn(GAZE, LOOK, control=["pose", 0], strength=0.5), "pose": drawn(POSE, TURN)}
        control = control_of(server, kept(graph))
        assert torch.equal(control.gaze, keyframes.to_control(LOOK).gaze)
        assert torch.equal(control.pose, keyframes.to_control(TURN).pose)
        assert control.strengths() == {"pose": 1.0, "cam": 1.0, "gaze": 0.5}

    def test_length(self, server):
        assert len(control_of(server, kept({"control": drawn(POSE, TURN)})).pose) == 26
        assert len(control_of(server, kept({"control": drawn(POSE, TURN, seconds=3.0)})).pose) == 75
        graph = {"audio": node("LoadAudio", audio="long.wav"), "control": drawn(POSE, TURN, audio=["audio", 0])}
        run = server.run(kept(graph))
        assert run.succeeded, run.error
        assert len(loaded(server).pose) == 200
        (waveform,) = run.outputs["control"]["imtalker_waveform"]
        assert waveform["seconds"] == 8
        assert len(waveform["peaks"]) == 320
        assert min(waveform["peaks"]) > 90

    @on_one_version
    def test_strength_zero_is_as_no_control_at_all(self, server):
        def latents(strength: float | None) -> torch.Tensor:
            graph = composed() | {"keep": node("IMTalkerSaveMotion", motion=["motion", 0], filename_prefix="drawn")}
            if strength is not None:
                graph["control"] = drawn(POSE, TURN, strength=strength)
                graph["motion"]["inputs"]["control"] = ["control", 0]
            (file,) = server.run(graph).files("keep")
            return Motion.load(server.base / "output" / file["subfolder"] / file["filename"]).latents

        free, none, half, full = (latents(strength) for strength in (None, 0.0, 0.5, 1.0))
        assert torch.equal(free, none)
        assert not torch.equal(free, half)
        assert not torch.equal(half, full)

    @on_one_version
    def test_blend(self, server):
        graph = {
            "a": drawn(POSE, TURN),
            "b": drawn(GAZE, LOOK),
            "control": node(BLEND, control_a=["a", 0], control_b=["b", 0], share=0.25),
        }
        assert control_of(server, kept(graph)).strengths() == {"pose": 0.75, "cam": 1.0, "gaze": 0.25}

    @on_one_version
    def test_what_cannot_be(self, server):
        wrong = {
            "{": "not valid JSON",
            '{"version": 3}': "version 3",
            '{"version": 1, "channels": {"horizontal": [[0, 1]]}}': "channel 'horizontal'",
            '{"version": 1, "channels": {"yaw": [[0, 1], ["a", 1]]}}': "Keyframe 2 of channel 'yaw'",
        }
        for text, sentence in wrong.items():
            assert sentence in refusal(server, kept({"control": drawn(POSE, text)}))

    @on_one_version
    def test_limits(self, server):
        far = '{"version": 1, "channels": {"yaw": [[0, 50]]}}'
        before = len(server.log())
        control = control_of(server, kept({"control": drawn(POSE, far)}))
        assert control.pose[0, 1] == pytest.approx(math.radians(30))
        assert "Keyframes were limited: yaw (-30 to 30)" in server.log()[before:]
        control = control_of(server, kept({"control": drawn(POSE, far, allow_more=True)}))
        assert control.pose[0, 1] == pytest.approx(math.radians(50))

    def test_the_order_that_saved_graphs_hold(self, server):
        info = server.get("/object_info")
        drawing = "keyframes seconds strength allow_more audio control"
        for name, order in {POSE: drawing, GAZE: drawing, BLEND: "control_a control_b share"}.items():
            assert info[name]["python_module"] == OURS
            parts = info[name]["input_order"]
            assert [*parts["required"], *parts.get("optional", [])] == order.split()


@pytest.fixture(scope="module")
def page(server, browser):
    with open_page(browser, server, 1500, 1100) as page:
        page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.page.evaluate("theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", "dark")
        yield page


@pytest.fixture(scope="module")
def both_editors(page) -> dict:
    return two_editors(page)


@pytest.fixture(params=["litegraph", "vue"])
def editors(page, both_editors, request):
    """Both editors in a graph, in each of the page's ways to draw nodes."""
    if request.param == "vue" and not page.has_vue_nodes():
        pytest.skip("this page cannot draw nodes with Vue")
    if request.param == "vue" and page.version().startswith("1.27."):
        pytest.skip("the first Vue nodes show no element of any pack: see TestFirstVueNodes")
    # a workflow of its own: the page remembers the playhead of each
    page.load(both_editors | {"id": str(uuid.uuid4())}, request.param == "vue")
    look_at(page, 1, 40, 40)
    drawings = Drawing(page, POSE), Drawing(page, GAZE)
    for drawing in drawings:
        drawing.settle()
    page.errors.clear()
    yield drawings
    assert page.errors == []


class TestInThePage:
    def test_a_keyframe_dragged_saved_loaded_and_run(self, server, page, editors):
        pose, gaze = editors
        pose.write(TURN)
        pose.drag(pose.point("yaw", 1, 20), pose.point("yaw", 2, -15))
        curve = pose.curves()["yaw"]
        assert curve[0] == (0, 0)
        assert curve[1] == (pytest.approx(2, abs=0.09), pytest.approx(-15, abs=1.5))
        gaze.write(LOOK)
        gaze.drag(gaze.point("vertical", 0.5, 5), gaze.point("vertical", 1, 12))
        assert gaze.curves()["vertical"][1] == (pytest.approx(1, abs=0.09), pytest.approx(12, abs=1))

        texts = pose.widget("keyframes"), gaze.widget("keyframes")
        workflow = serialised(page)
        saved = next(one for one in workflow["nodes"] if one["type"] == POSE)
        assert saved["widgets_values"] == [texts[0], 0, 1, False]
        page.load(EMPTY_GRAPH)
        page.load(json.loads(json.dumps(workflow)))
        assert (pose.widget("keyframes"), gaze.widget("keyframes")) == texts

        (server.base / "output/control.safetensors").unlink(missing_ok=True)
        page.run()
        control = loaded(server)
        time, yaw = curve[1]
        angles = control.pose[round(time * 25)]
        rotation = keyframes.head_pose(*(torch.tensor([a], dtype=torch.float64).numpy() for a in (yaw, 0, 5)))
        torch.testing.assert_close(angles, torch.from_numpy(rotation[0]).float())
        # a control edited by hand equals the one drawn
        by_hand = keyframes.to_control(json.dumps(json.loads(texts[0])))
        assert torch.equal(control.pose, by_hand.pose)
        assert torch.equal(control.gaze, keyframes.to_control(texts[1]).gaze)

    def test_the_gizmo_sets_the_values_under_the_playhead(self, editors):
        pose, gaze = editors
        pose.write(EMPTY)
        gaze.write(EMPTY)
        pose.click(pose.point("yaw", 1, 0))
        pose.drag(pose.gizmo(0, 0), pose.gizmo(0.1, 0.05))
        curves = pose.curves()
        assert curves.keys() == {"yaw", "pitch"}
        ((time, yaw),), ((also, pitch),) = curves["yaw"], curves["pitch"]
        assert time == also == pytest.approx(1, abs=0.09)
        assert 5 < yaw < 20
        assert 2 < pitch < 12
        # clockwise around the ring
        pose.drag(pose.gizmo(0, 0.72), pose.gizmo(0.15, 0.7))
        assert 8 < pose.curves()["roll"][0][1] < 15
        # to the picture's right and up; nearer
        pose.drag(pose.gizmo(-0.86, -0.86), pose.gizmo(-0.76, -0.81))
        assert pose.curves()["x"][0][1] == pytest.approx(0.05, abs=0.015)
        assert pose.curves()["y"][0][1] == pytest.approx(0.025, abs=0.015)
        pose.drag(pose.gizmo(0.86, -0.86), pose.gizmo(0.86, -0.7))
        assert pose.curves()["distance"][0][1] == pytest.approx(math.exp(-0.16), abs=0.03)
        gaze.drag(gaze.gizmo(0, 0), gaze.gizmo(-0.4, 0.4))
        assert gaze.curves()["horizontal"][0][1] < -5
        assert gaze.curves()["vertical"][0][1] > 5
        gaze.drag(gaze.gizmo(0, 0), gaze.gizmo(-3, 0))
        assert gaze.curves()["horizontal"][0][1] == -17

    def test_keyboard(self, editors):
        pose, _ = editors
        pose.write(TURN)
        pose.click(pose.point("yaw", 1, 20))
        pose.press("ArrowRight", "ArrowRight", "ArrowUp", "ArrowUp", "-")
        assert pose.curves()["yaw"] == [(0, 0), (1.08, 21)]
        pose.press("Control+c", "Escape", "End", "Control+v")
        pose.become(pose.curves() | {"yaw": [(0, 0), (1.08, 21), (4, 21)]})
        pose.press("Delete")
        assert pose.curves()["yaw"] == [(0, 0), (1.08, 21)]
        pose.press("Home", "PageDown", "ArrowUp")
        assert pose.curves()["pitch"] == [(0, 1)]
        pose.press("Control+a", "Delete")
        assert pose.curves() == {}
        assert len(serialised(pose.shown)["nodes"]) == 3

    def test_presets(self, editors):
        pose, gaze = editors
        pose.write(EMPTY)
        for one, presets in ((pose, POSE_PRESETS), (gaze, GAZE_PRESETS)):
            one.write(20.0, "seconds")
            select = one.page.locator(".imtalker-editor select").nth(0 if one is pose else 1)
            for name, preset in presets.items():
                one.write(EMPTY)
                select.select_option(name)
                assert one.curves() == expand(preset, preset.length), name

    def test_undo_and_redo_are_the_graph_s(self, editors):
        pose, _ = editors
        pose.click(pose.point("roll", 3, 0))
        pose.page.mouse.dblclick(*pose.point("yaw", 1, 15))
        pose.wait_for_history()
        first = pose.curves()
        assert first["yaw"] == [(pytest.approx(1, abs=0.09), pytest.approx(15, abs=2))]
        pose.drag(pose.point("yaw", *first["yaw"][0]), pose.point("yaw", 2, -10))
        pose.wait_for_history()
        assert pose.curves() != first
        for key, curves in (("Control+z", first), ("Control+z", {}), ("Control+y", first)):
            pose.press(key)
            pose.become(curves)
            pose.wait_for_history()

    def test_zoomed_and_sharp(self, editors):
        pose, _ = editors
        pose.write(TURN)
        look_at(pose.shown, 1.5, -20, 0)
        pose.settle(sharp=False)  # Vue nodes see a zoom that no wheel or key made at the next pointer event
        pose.drag(pose.point("yaw", 1, 20), pose.point("yaw", 3, 10))
        pose.settle()
        assert pose.curves()["yaw"][1] == (pytest.approx(3, abs=0.09), pytest.approx(10, abs=1.5))
        width, _ = pose.size()
        assert pose.box()["pixels"] == pytest.approx(1.5 * width, abs=2)

    def test_a_text_that_cannot_be_read_is_left_alone(self, editors):
        pose, _ = editors
        pose.write('{"version": 7}')
        pose.page.mouse.dblclick(*pose.point("yaw", 1, 10))
        pose.shown.wait_for_frames()
        assert pose.widget("keyframes") == '{"version": 7}'
        pose.page.locator(".imtalker-editor button").nth(2).click()
        pose.become({})

    def test_another_pointer_does_not_disturb_a_drag(self, editors):
        pose, _ = editors
        pose.write(TURN)
        mouse, touch = pose.page.mouse, pose.page.context.new_cdp_session(pose.page)
        mouse.move(*pose.point("yaw", 1, 20))
        mouse.down()
        mouse.move(*pose.point("yaw", 2, -15))
        x, y = pose.point("x", 3, 0)
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        mouse.up()
        pose.shown.wait_for_frames()
        assert pose.curves()["yaw"][1] == (pytest.approx(2, abs=0.09), pytest.approx(-15, abs=1.5))

    def test_the_number_is_the_channel_s_value_whatever_is_typed(self, editors):
        pose, _ = editors
        pose.write(TURN)
        pose.click(pose.point("yaw", 1, 20))
        number = pose.page.locator(".imtalker-editor input[type=number]").first
        for typed, kept in (("500", 30), ("", 30), ("-7.26", -7.3)):
            number.fill(typed)
            pose.press("Enter")
            assert float(number.input_value()) == kept
            assert pose.curves()["yaw"][1] == (1, kept)

    def test_a_preset_is_forgotten_where_someone_else_has_written(self, editors):
        pose, _ = editors
        pose.page.locator(".imtalker-editor select").first.select_option("nod")
        pose.write(TURN)
        amount = pose.page.locator(".imtalker-editor input[type=range]").first
        amount.fill("2")
        pose.shown.wait_for_frames()
        assert pose.widget("keyframes") == TURN

    def test_the_playhead_comes_with_an_end_that_comes_nearer(self, editors):
        pose, _ = editors
        pose.write(TURN)
        pose.click(pose.point("roll", 3, 0))
        assert pose.playhead() == pytest.approx(3, abs=0.09)
        pose.write(2.0, "seconds")
        pose.shown.wait_until(lambda: pose.playhead() == 2)
        pose.press("ArrowUp")
        assert max(time for curve in pose.curves().values() for time, _ in curve) == 2

    def test_pressed_three_times_at_once_it_plays_no_faster(self, editors):
        pose, _ = editors
        pose.click(pose.point("yaw", 1, 20))
        pose.press("Home")
        passed, shown = pose.page.evaluate(
            """async () => {
                const play = document.querySelector('.imtalker-editor button')
                const start = performance.now()
                for (let press = 0; press < 3; press++) play.click()
                await new Promise(done => setTimeout(done, 500))
                const shown = Number.parseFloat(document.querySelector('.imtalker-editor .time').textContent)
                play.click()
                return [(performance.now() - start) / 1000, shown]
            }"""
        )
        assert 0 < shown <= passed + 0.04  # a frame

    def test_a_removed_node_leaves_no_listener_and_no_frame(self, editors):
        pose, _ = editors
        playing, left = pose.page.evaluate(REMOVED, POSE)
        assert playing
        assert not left


# How many animation frames our files wait for: while a node plays, and after it was removed and a key pressed.
REMOVED = f"""async kind => {{
    {FIND}
    node.disconnectOutput(0) // or else the other editor draws too
    const {{ requestAnimationFrame, cancelAnimationFrame }} = window
    const pending = new Set()
    window.requestAnimationFrame = act => {{
        const id = requestAnimationFrame(time => (pending.delete(id), act(time)))
        const [, , caller] = new Error().stack.split('\\n')
        if (caller.includes('IMTalker/js')) pending.add(id)
        return id
    }}
    window.cancelAnimationFrame = id => (pending.delete(id), cancelAnimationFrame(id))
    document.querySelector('.imtalker-editor button').click()
    for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame)
    const playing = pending.size
    app.graph.remove(node)
    node.widgets.find(widget => widget.name === 'keyframes').value = ''
    window.dispatchEvent(new KeyboardEvent('keyup', {{ key: 'F9' }}))
    const left = pending.size
    Object.assign(window, {{ requestAnimationFrame, cancelAnimationFrame }})
    return [playing, left]
}}"""


class TestFirstVueNodes:
    def test_there_the_text_itself_is_edited(self, page):
        if not page.version().startswith("1.27."):
            pytest.skip("this page's Vue nodes show the editor")
        page.load(EMPTY_GRAPH)
        page.page.evaluate(ADD, [POSE, 60, 60])
        page.load(serialised(page), vue=True)
        look_at(page, 1, 40, 40)
        area = page.page.locator("[data-node-id] textarea").first
        area.fill(TURN)
        area.blur()
        Drawing(page, POSE).become(keyframes.parse(TURN))
        page.load(serialised(page))
        assert Drawing(page, POSE).curves() == keyframes.parse(TURN)


def test_the_prompt_holds_the_text_and_no_widget_of_ours(page, editors):
    pose, _ = editors
    pose.write(TURN)
    inputs = next(one["inputs"] for one in page.prompt().values() if one["class_type"] == POSE)
    assert inputs == {"keyframes": TURN, "seconds": 0, "strength": 1, "allow_more": False}


def test_the_waveform_comes_with_a_run(page, editors):
    pose, _ = editors
    page.page.route("**/view?**", lambda route: route.abort())  # as if the page could not read the file by itself
    page.page.evaluate(ADD, ["LoadAudio", 860, 60])
    page.page.evaluate(
        """kind => {
            const find = kind => app.graph.nodes.find(node => node.type === kind)
            find('LoadAudio').widgets[0].value = 'long.wav'
            find('LoadAudio').connect(0, find(kind), 'audio')
        }""",
        POSE,
    )
    # a cached node does not send its waveform to an older page again
    pose.write(json.dumps({"version": 1, "channels": {"yaw": [[0, random.uniform(0, 20)]]}}))
    before = pose.image()
    page.run()
    page.wait_until(lambda: pose.image() != before)

    def time_at(share: float) -> float:
        """Of the timeline, where it is clicked."""
        pose.click(pose.point("yaw", share, 0, seconds=1))
        return pose.playhead()

    # the timeline is now as long as the sound
    assert time_at(0.75) == pytest.approx(6, abs=0.05)
    workflow = serialised(page)
    page.load(workflow)
    pose.settle()
    assert time_at(0.75) == pytest.approx(6, abs=0.05)
    # another workflow, which has not run, has a node with this id
    page.load({name: value for name, value in workflow.items() if name != "id"})
    pose.settle()
    assert time_at(0.75) == pytest.approx(3, abs=0.05)
