"""Takes the pictures of the shipped workflows, of docs/ and of the nodes' help pages, from a running ComfyUI.

python tests/comfy/pictures.py [NAME ...]: run it after a change of nodes or workflows, for all of them or only these
workflows, whose pictures show their results. The name "run" stands for docs/run.jpg, for example after a change of the
avatar's weights, "graph" for docs/graph_vue.jpg, a node's id for the picture in its help page. Needs Chromium.
"""

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import av
import torch
from PIL import Image

sys.path[1:1] = [str(Path(__file__).resolve().parents[folder]) for folder in (1, 2)]

# found through the path above
import shipped  # noqa: E402
from browser import EMPTY_GRAPH, Page, open_browser, open_page  # noqa: E402
from server import ROOT, Server, comfyui  # noqa: E402
from templates import all_templates  # noqa: E402

from imtalker import Motion  # noqa: E402

SIZE = 2800, 1500
MAX_SIDE = 1400  # pixels of a picture
RUN, GRAPH = "run", "graph"  # on the command line: docs/run.jpg, the finished run, and docs/graph_vue.jpg
SETTLE = 1000  # ms: for images and fonts, which no event announces
SPEAKING = 0.5  # seconds into the example's speech: the o of its Hello
RESULT = 400  # side of a picture of a result
FIRST = "01 First try"


def frames_at(path: Path, moments: tuple[float, ...]) -> list[Image.Image]:
    with av.open(str(path)) as file:
        frames = [frame.to_image() for frame in file.decode(video=0)]
        return [frames[round(moment * float(file.streams.video[0].average_rate))] for moment in moments]


def picture_result(server: Server, name: str) -> None:
    """Runs a workflow and writes what it makes: its frames at the seconds MOMENTS of its description (one, or two wide
    ones, or four in a square), beside those of BESIDE, a video."""
    template = all_templates()[name]
    run = server.run(shipped.to_api(shipped.read(name)), timeout=600)
    assert run.succeeded, run.error
    (file,) = (file for number in run.outputs for file in run.files(number) if file.get("subfolder") == "video")
    frames = frames_at(server.base / "output/video" / file["filename"], template.MOMENTS)
    if hasattr(template, "BESIDE"):
        frames = [one for pair in zip(frames_at(template.BESIDE, template.MOMENTS), frames) for one in pair]
    rows = 1 if len(frames) == 1 else 2
    height, width = RESULT // rows, RESULT * rows // len(frames)
    assert abs(width / height - frames[0].width / frames[0].height) < 0.1, f"{name}: frames of another shape"
    picture = Image.new("RGB", (RESULT, RESULT))
    for number, frame in enumerate(frames):
        place = number * width % RESULT, number * width // RESULT * height
        picture.paste(frame.resize((width, height), Image.Resampling.LANCZOS), place)
    picture.save(shipped.picture_of(name), quality=88, optimize=True)


def take(page: Page, path: Path, clip: dict, max_bytes: int) -> None:
    """Writes a JPEG of at most this size."""
    page.page.wait_for_timeout(SETTLE)
    picture = Image.open(io.BytesIO(page.page.screenshot(clip=clip))).convert("RGB")
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    for quality in range(88, 40, -6):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size < max_bytes:
            break


def whole_graph(page: Page, margin: int = 16) -> dict:
    area = page.show_all()
    start = {"x": area["x"] - margin, "y": area["y"] - margin}
    return start | {"width": area["width"] + 2 * margin, "height": area["height"] + 2 * margin}


def alone(kind: str) -> dict | None:
    """A workflow of one node with its values from a shipped workflow; None if no workflow has the node."""
    for workflow in map(shipped.read, shipped.NAMES):
        for node in shipped.all_nodes(workflow):
            if node["type"] == kind:
                entries = [entry | {"link": None} for entry in node["inputs"]]
                node |= {"inputs": entries, "outputs": [entry | {"links": None} for entry in node["outputs"]]}
                return EMPTY_GRAPH | {"nodes": [node]}
    return None


def node_picture(page: Page, kind: str) -> None:
    page.load(alone(kind) or EMPTY_GRAPH)
    page.page.evaluate(
        "kind => window.app.graph.nodes.length || window.app.graph.add(window.LiteGraph.createNode(kind))", kind
    )
    take(page, shipped.picture_of_node(kind), whole_graph(page, 8), 40_000)


def finished_run(page: Page, path: Path) -> None:
    """The first workflow after Run, its video paused while the head speaks."""
    page.load(shipped.read(FIRST))
    page.run(300)
    page.plays_video()
    page.page.evaluate("time => document.querySelector('video').currentTime = time", SPEAKING)
    take(page, path, whole_graph(page), 140_000)


def vue_graph(page: Page, path: Path) -> None:
    page.load(shipped.read("02 Talk step by step"), vue=True)
    take(page, path, whole_graph(page), 140_000)


@contextlib.contextmanager
def running():
    with tempfile.TemporaryDirectory() as base:
        server = Server(*comfyui("new"), Path(base))
        server.start()
        try:
            Motion(torch.zeros(10, 32)).save(Path(base) / "motion.safetensors")
            server.upload("motion.safetensors", (Path(base) / "motion.safetensors").read_bytes())
            yield server
        finally:
            server.stop()


def main(names: list[str]) -> None:
    with running() as server:
        ours = [kind for kind in server.get("/object_info") if kind.startswith("IMTalker")]
        wanted = names or [*shipped.NAMES, RUN, GRAPH, *ours]
        for name in wanted:
            if name in shipped.NAMES:
                picture_result(server, name)
        if not set(wanted) <= set(shipped.NAMES):
            with open_browser() as browser, open_page(browser, server, *SIZE) as page:
                if RUN in wanted:
                    finished_run(page, ROOT / "docs/run.jpg")
                if GRAPH in wanted:
                    vue_graph(page, ROOT / "docs/graph_vue.jpg")
                for kind in set(wanted) & set(ours):
                    node_picture(page, kind)


if __name__ == "__main__":
    main(sys.argv[1:])
