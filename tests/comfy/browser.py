"""A ComfyUI page in a real browser."""

import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager

import pytest
from server import Server

# errors that the page logs without this pack as well: optional files, and sites that a test cannot reach
NOISE = ("Failed to load resource", "ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED", "ComfyApp graph accessed")
VUE_NODES = "Comfy.VueNodes.Enabled"
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # or else the first visit opens a dialog
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.Locale": "en",
}
EMPTY_GRAPH = {"nodes": [], "links": [], "version": 0.4}


@contextmanager
def open_browser():
    """A Chromium; skips the test, in one line, where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt-get install --no-install-recommends chromium fonts-dejavu-core")
    with api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=flags)
        yield browser
        browser.close()


@contextmanager
def open_page(browser, server: Server, width: int = 1600, height: int = 900, **settings):
    """A `Page` with storage of its own. settings: of ComfyUI, by name with "_" for "."."""
    server.post("/settings", SETTINGS | {name.replace("_", "."): value for name, value in settings.items()})
    page = browser.new_page(viewport={"width": width, "height": height})
    yield Page(server, page)
    page.close()


class Page:
    def __init__(self, server: Server, page):
        self.server, self.page = server, page
        self.errors: list[str] = []
        self.warnings: list[str] = []
        page.on("console", lambda message: message.type == "warning" and self.warnings.append(message.text))
        page.on("console", lambda message: message.type == "error" and self._note(message.text))
        page.on("pageerror", lambda error: self._note(str(error)))
        page.goto(f"http://{server.address}", wait_until="domcontentloaded")
        page.wait_for_function(STARTED, timeout=60000)
        self.wait_for_frames()
        self.errors.clear()

    def _note(self, error: str) -> None:
        if not any(noise in error for noise in NOISE):
            self.errors.append(error)

    def version(self) -> str:
        return self.page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__")

    def has_vue_nodes(self) -> bool:
        return self.page.evaluate(f"() => '{VUE_NODES}' in window.app.ui.settings.settingsLookup")

    def wait_for_frames(self, count: int = 3) -> None:
        """Waits for this many animation frames: one draws the graph, the next what a widget draws after it."""
        self.page.evaluate(FRAMES, count)

    def wait_until(self, condition: Callable[[], bool], what: Callable[[], str] = str, seconds: float = 10) -> None:
        """Checks the condition in each animation frame; `what` describes the state in which it stayed false."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds} s for the page: {what()}; its errors: {self.errors}")
            self.wait_for_frames(1)

    def load(self, workflow: dict, vue: bool = False) -> None:
        """vue: nodes drawn as elements of the page, "Nodes 2.0", rather than on a canvas."""
        # switched on afterwards: with them on, 1.27 goes on to show the nodes of the graph before
        self._use_vue_nodes(False)
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self._use_vue_nodes(vue)
        self.wait_for_frames()

    def _use_vue_nodes(self, value: bool) -> None:
        if self.has_vue_nodes():
            self.page.evaluate(
                "([key, value]) => window.app.extensionManager.setting.set(key, value)", [VUE_NODES, value]
            )

    def drawn_titles(self) -> list[str]:
        """Of the nodes that are elements of the page."""
        return [text.strip().split("\n")[0] for text in self.page.locator("[data-node-id]").all_inner_texts()]

    def prompt(self) -> dict:
        """In API format."""
        return self.page.evaluate("async () => (await window.app.graphToPrompt()).output")

    def unknown_nodes(self) -> list[str]:
        types = self.page.evaluate("() => window.app.graph.nodes.map(node => node.type)")
        known = self.page.evaluate("() => Object.keys(window.LiteGraph.registered_node_types)")
        return sorted(set(types) - set(known))

    def run(self, seconds: float = 60) -> list[dict]:
        """Presses Run and waits until the page knows that the run has ended; the videos that it saved."""
        before = set(self.server.get("/history"))
        self.page.evaluate(RUN)
        try:
            self.page.wait_for_function("() => window.runEnded", timeout=seconds * 1000)
        except Exception as error:
            raise TimeoutError(f"the run did not end; errors of the page: {self.errors}") from error
        self.wait_until(lambda: set(self.server.get("/history")) > before)
        (new,) = (run for key, run in self.server.get("/history").items() if key not in before)
        files = [file for output in new["outputs"].values() for file in output.get("images", [])]
        return [file for file in files if file["filename"].endswith(".mp4")]

    def plays_video(self) -> dict:
        """Waits for a video in the page that can be played; its seconds and size."""
        playable = "[...document.querySelectorAll('video')].find(one => one.readyState >= 2 && one.duration > 0)"
        self.page.wait_for_function(f"() => {playable}", timeout=20000)
        video = self.page.evaluate_handle(f"() => {playable}")
        return video.evaluate("one => ({ seconds: one.duration, size: [one.videoWidth, one.videoHeight] })")

    def overlaps(self) -> list[list[str]]:
        """Pairs of nodes, drawn as elements of the page, that cover each other."""
        return self.page.evaluate(OVERLAPS)

    def open_help(self, kind: str) -> str:
        """Selects a node and presses the button for help; the text of the page that opens."""
        self.page.evaluate(
            "kind => window.app.canvas.selectItems(window.app.graph.nodes.filter(node => node.type === kind))", kind
        )
        self.page.locator("[data-testid=info-button]").click()
        text = self.page.locator(".node-help-content")
        text.get_by_role("table").first.wait_for()
        return text.inner_text()

    def show_all(self, left: int = 130, top: int = 130, right: int = 60, bottom: int = 60) -> dict:
        """Moves and scales the graph into the window, inside these margins; its rectangle there, for a screenshot."""
        size = self.page.viewport_size
        room = [left, top, size["width"] - left - right, size["height"] - top - bottom]
        found = self.page.evaluate(FIT, room)
        self.wait_for_frames()
        return found


# the page has loaded its first graph: one loaded before that would be replaced
STARTED = """() => {
    const { app } = window
    return app?.extensionManager?.workflow?.activeWorkflow?.changeTracker && app.graph?.nodes.length
}"""

FRAMES = """count => new Promise(done => {
    const next = () => (count-- > 0 ? requestAnimationFrame(next) : done())
    next()
})"""

# by then the page has handled every message of the run
RUN = """() => {
    const { api } = window.comfyAPI.api
    window.runEnded = false
    const end = () => (window.runEnded = true)
    for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
        api.addEventListener(kind, end, { once: true })
    return window.app.queuePrompt(0, 1)
}"""

OVERLAPS = """() => {
    const nodes = [...document.querySelectorAll('[data-node-id]')]
    const found = []
    for (const [index, one] of nodes.entries())
        for (const other of nodes.slice(index + 1)) {
            const a = one.getBoundingClientRect(), b = other.getBoundingClientRect()
            const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left)
            const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)
            if (wide > 1 && high > 1) found.push([one.innerText.split('\\n')[0], other.innerText.split('\\n')[0]])
        }
    return found
}"""

FIT = """([left, top, width, height]) => {
    const { graph, canvas } = window.app
    const title = window.LiteGraph.NODE_TITLE_HEIGHT
    const boxes = [
        ...graph.nodes.map(node => [node.pos[0], node.pos[1] - title, node.size[0], node.size[1] + title]),
        ...graph.groups.map(group => [...group.pos, ...group.size])
    ]
    const x = Math.min(...boxes.map(box => box[0])), y = Math.min(...boxes.map(box => box[1]))
    const wide = Math.max(...boxes.map(box => box[0] + box[2])) - x
    const high = Math.max(...boxes.map(box => box[1] + box[3])) - y
    const scale = Math.min(width / wide, height / high, 1.2)
    canvas.ds.scale = scale
    canvas.ds.offset = [left / scale - x, top / scale - y]
    canvas.setDirty(true, true)
    return { x: left, y: top, width: wide * scale, height: high * scale }
}"""
