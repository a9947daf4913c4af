"""Takes the screenshots of the shipped workflows, of docs/ and of the nodes' help pages, from a running ComfyUI.

python tests/comfy/pictures.py [NAME ...]: run it after a change of nodes or workflows, for all of them or only these
workflows. The name "run" stands for docs/run.jpg, for example after a change of the avatar's weights. Needs Chromium.
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path[1:1] = [str(Path(__file__).resolve().parents[folder]) for folder in (1, 2)]

# found through the path above
import shipped  # noqa: E402
from browser import Page, open_browser, open_page  # noqa: E402
from server import ROOT, Server, comfyui  # noqa: E402

from imtalker import Motion  # noqa: E402
from imtalker.drawn import example as drawn  # noqa: E402
from imtalker.media.video_writer import write_video  # noqa: E402

SIZE = 2800, 1500
MAX_SIDE = 1400  # pixels of a picture
RUN = "run"  # on the command line: docs/run.jpg, the finished run
SETTLE = 1000  # ms: for images and fonts, which no event announces
SPEAKING = 0.5  # seconds into the example's speech: the o of its Hello
ANOTHER = 2  # the seed of a second person, in front of nearly the same background


def png(pixels: np.ndarray) -> bytes:
    Image.fromarray((pixels * 255).astype(np.uint8)).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def upload_all(server: Server) -> None:
    """Drawn people and a synthetic voice under the names in the workflows, and a motion for Load Motion."""
    somebody, another = (drawn.portrait(seed=seed)[0].numpy() for seed in (drawn.SOMEBODY, ANOTHER))
    # with room around the head
    server.upload("portrait.png", png(np.pad(somebody, ((0, 0), (128, 128), (0, 0)), mode="edge")))
    server.upload("two_people.png", png(np.concatenate([somebody, another], axis=1)))
    with tempfile.TemporaryDirectory() as folder:
        drawn.main(folder)
        for name in ("speech.wav", "first.wav", "second.wav"):
            server.upload(name, (Path(folder) / "speech.wav").read_bytes())
        frames = drawn.portrait(256, ANOTHER).repeat(10, 1, 1, 1)
        write_video(Path(folder) / "driving.mp4", frames, 25, drawn.speech(0.4))
        server.upload("driving.mp4", (Path(folder) / "driving.mp4").read_bytes())
        Motion(torch.zeros(10, 32)).save(Path(folder) / "motion.safetensors")
        server.upload("motion.safetensors", (Path(folder) / "motion.safetensors").read_bytes())


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


def graph_of(page: Page, name: str, path: Path, vue: bool = False) -> None:
    page.load(shipped.read(name), vue)
    take(page, path, whole_graph(page), 140_000)


def alone(kind: str) -> dict | None:
    """A workflow of one node with its values from a shipped workflow; None if no workflow has the node."""
    # first_try last: its values differ from the defaults
    for workflow in map(shipped.read, sorted(shipped.NAMES, key=lambda name: name == "first_try")):
        for node in workflow["nodes"]:
            if node["type"] == kind:
                entries = [entry | {"link": None} for entry in node["inputs"]]
                node |= {"inputs": entries, "outputs": [entry | {"links": None} for entry in node["outputs"]]}
                return workflow | {"nodes": [node], "links": [], "groups": []}
    return None


def node_picture(page: Page, kind: str) -> None:
    page.load(alone(kind) or shipped.read(shipped.NAMES[0]) | {"nodes": [], "links": [], "groups": []})
    page.page.evaluate(
        "kind => window.app.graph.nodes.length || window.app.graph.add(window.LiteGraph.createNode(kind))", kind
    )
    take(page, shipped.picture_of_node(kind), whole_graph(page, 8), 40_000)


def finished_run(page: Page, path: Path) -> None:
    """The first_try workflow after Run, its video paused while the head speaks."""
    page.load(shipped.read("first_try"))
    page.run(300)
    page.plays_video()
    page.page.evaluate("time => document.querySelector('video').currentTime = time", SPEAKING)
    take(page, path, whole_graph(page), 140_000)


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as base:
        server = Server(*comfyui("new"), Path(base))
        (server.base / "models/imtalker/SMIRK_em1.pt").touch()  # named by a workflow
        server.start()
        try:
            upload_all(server)
            with open_browser() as browser, open_page(browser, server, *SIZE) as page:
                for name in names or [*shipped.NAMES, RUN]:
                    if name == RUN:
                        finished_run(page, ROOT / "docs/run.jpg")
                    else:
                        graph_of(page, name, shipped.picture_of(name))
                if not names:
                    graph_of(page, "talk_composed", ROOT / "docs/graph_vue.jpg", vue=True)
                    for kind in server.get("/object_info"):
                        if kind.startswith("IMTalker"):
                            node_picture(page, kind)
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
