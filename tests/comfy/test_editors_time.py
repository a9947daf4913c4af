"""What an animator does in the editors, on the newest frontend: time, easings, loop, sound, presets."""

import pytest
from drawing import ADD, FIND, FOCUSED, POSE, ROOT, Drawing

TURN = '{"version": 1, "channels": {"yaw": [[0, 0], [1, 20]], "roll": [[0, 5]]}}'


def curve(pose: Drawing, channel: str) -> list:
    return pose.curves().get(channel, [])


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
