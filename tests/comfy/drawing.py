"""A keyframe editor in a page, for tests: where its parts are, and what a person does with them."""

from browser import EMPTY_GRAPH, Page

from imtalker.motion import keyframes

POSE, GAZE = "IMTalkerPoseControl", "IMTalkerGazeControl"
ADD = """([kind, x, y]) => {
    const node = LiteGraph.createNode(kind)
    node.pos = [x, y]
    app.graph.add(node)
}"""
CONNECT = """([pose, gaze]) => {
    const find = kind => app.graph.nodes.find(node => node.type === kind)
    find(pose).connect(0, find(gaze), 'control')
    find(gaze).connect(0, find('KeepControl'), 'control')
}"""
FIND = "const node = app.graph.nodes.find(node => node.type === kind)"
CANVAS = f"""{FIND}
    const canvas = node.widgets.find(widget => widget.name === 'editor').element.querySelector('canvas')"""
ROOT = "node.widgets.find(widget => widget.name === 'editor').element"
FOCUSED = f"kind => {{ {FIND}; return document.activeElement === {ROOT}.querySelector('canvas') }}"
BOX = f"""kind => {{
    {CANVAS}
    const {{ left, top, width, height }} = canvas.getBoundingClientRect()
    return {{ left, top, width, height, zoom: width / canvas.clientWidth, pixels: canvas.width }}
}}"""
# whether the graph's undo history has recorded the text as it is, and no undo is under way
RECORDED = f"""kind => {{
    {FIND}
    const {{ activeState, _restoringState }} = app.extensionManager.workflow.activeWorkflow.changeTracker
    const saved = activeState.nodes.find(node => node.type === kind)
    return !_restoringState && saved?.widgets_values[0] === node.widgets.find(w => w.name === 'keyframes').value
}}"""
MARGIN = 6


class Drawing:
    """The editor of the only node of its kind in a page."""

    def __init__(self, page: Page, kind: str):
        self.shown, self.page, self.kind = page, page.page, kind
        self.channels = keyframes.POSE if kind == POSE else keyframes.GAZE

    def widget(self, name: str):
        script = f"([kind, name]) => {{ {FIND}; return node.widgets.find(w => w.name === name).value }}"
        return self.page.evaluate(script, [self.kind, name])

    def write(self, value: object, name: str = "keyframes") -> None:
        script = f"""([kind, name, value]) => {{
            {FIND}
            const widget = node.widgets.find(w => w.name === name)
            widget.value = value
            widget.callback?.(value)
            node.setDirtyCanvas(true, true)
        }}"""
        self.page.evaluate(script, [self.kind, name, value])
        self.shown.wait_for_frames(2)

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        return keyframes.parse(self.widget("keyframes"))

    def become(self, curves: dict) -> None:
        """Waits until the curves are these."""
        self.shown.wait_until(lambda: self.curves() == curves, what=lambda: f"{self.curves()}, not {curves}")

    def box(self) -> dict:
        return self.page.evaluate(BOX, self.kind)

    def settle(self, sharp: bool = True) -> None:
        """Waits until the canvas stays where it is; sharp: and is drawn with the pixels of the graph's zoom."""
        boxes = [self.box()]

        def still() -> bool:
            boxes.append(self.box())
            last = boxes[-1]
            drawn = not sharp or last["pixels"] >= last["width"] - 2
            return boxes[-4:] == [last] * 4 and last["width"] > 0 and drawn

        self.shown.wait_until(still)

    def image(self) -> str:
        return self.page.evaluate(f"kind => {{ {CANVAS}; return canvas.toDataURL() }}", self.kind)

    def playhead(self) -> float:
        """Seconds, as shown."""
        editor = "node.widgets.find(widget => widget.name === 'editor').element"
        script = f"kind => {{ {FIND}; return Number.parseFloat({editor}.querySelector('.time').textContent) }}"
        return self.page.evaluate(script, self.kind)

    def _on_page(self, x: float, y: float) -> tuple[float, float]:
        box = self.box()
        return box["left"] + x * box["zoom"], box["top"] + y * box["zoom"]

    def size(self) -> tuple[float, float]:
        box = self.box()
        return box["width"] / box["zoom"], box["height"] / box["zoom"]

    def side(self) -> float:
        """Of the gizmo."""
        width, height = self.size()
        return min(height, width * 0.34)

    def point(self, channel: str, time: float, value: float, seconds: float = 4) -> tuple[float, float]:
        """On the page, where the editor draws a keyframe."""
        width, height = self.size()
        left, right = self.side() + 8 + 96 + 6, width - 10
        lane = (height - 20) / len(self.channels)
        limits = self.channels[channel]
        down = 1 - (value - limits.low) / (limits.high - limits.low)
        top = 20 + list(self.channels).index(channel) * lane + MARGIN
        return self._on_page(left + time / seconds * (right - left), top + down * (lane - 2 * MARGIN))

    def gizmo(self, right: float, up: float) -> tuple[float, float]:
        """On the page, this many half sides from the gizmo's middle."""
        half = self.side() / 2
        return self._on_page(half + right * half, self.size()[1] / 2 - up * half)

    def click(self, point: tuple[float, float]) -> None:
        self.page.mouse.click(*point)
        self.shown.wait_for_frames(1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        for step in range(1, 9):
            mouse.move(*(a + (b - a) * step / 8 for a, b in zip(start, end)))
        mouse.up()
        self.shown.wait_for_frames(1)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.shown.wait_for_frames(1)

    def wait_for_history(self) -> None:
        """Waits until an undo would restore what is there now."""
        self.shown.wait_until(lambda: self.page.evaluate(RECORDED, self.kind))


def serialised(page: Page) -> dict:
    """The graph as the page saves it."""
    return page.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")


def look_at(page: Page, scale: float, x: float, y: float) -> None:
    page.page.evaluate(
        "([scale, ...offset]) => { Object.assign(app.canvas.ds, { scale, offset }); app.canvas.setDirty(true, true) }",
        [scale, x, y],
    )


def two_editors(page: Page) -> dict:
    """A workflow of the two nodes, whose control is kept in a file."""
    page.load(EMPTY_GRAPH)
    for kind, x, y in ((POSE, 60, 60), (GAZE, 60, 560), ("KeepControl", 860, 560)):
        page.page.evaluate(ADD, [kind, x, y])
    page.page.evaluate(CONNECT, [POSE, GAZE])
    return serialised(page)
