"""Makes workflows/*.json from their descriptions in tests/comfy/templates.

python tests/comfy/build_workflows.py: run it after a change of a description or of a node's inputs.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path[1:1] = [str(Path(__file__).resolve().parents[folder]) for folder in (0, 1, 2)]

# found through the path above
from building import Graph  # noqa: E402
from server import ROOT, Server, comfyui  # noqa: E402
from templates import all_templates  # noqa: E402

FOLDER = ROOT / "workflows"


def built(info: dict) -> dict[Path, str]:
    """The content of every file that the descriptions give. info: /object_info of the oldest supported ComfyUI."""
    contents = {}
    for name, template in all_templates().items():
        graph = Graph(info, name)
        template.draw(graph)
        contents[FOLDER / f"{name}.json"] = json.dumps(graph.workflow(), ensure_ascii=False) + "\n"
    return contents


def main() -> None:
    with tempfile.TemporaryDirectory() as base:
        server = Server(*comfyui("0.3.64"), Path(base))
        server.start()
        try:
            for path, content in built(server.get("/object_info")).items():
                path.write_text(content, "utf-8")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
