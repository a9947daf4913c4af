"""Makes workflows/, subgraphs/ and docs/graphs/ (*.json) from their descriptions in tests/comfy/templates.

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
from templates import all_templates, blueprints  # noqa: E402


def built(info: dict) -> dict[Path, str]:
    """The content of every file that the descriptions give. info: /object_info of the oldest supported ComfyUI."""
    contents = {}
    for name, template in all_templates().items():
        graph = Graph(info, name)
        template.draw(graph)
        contents[ROOT / getattr(template, "FOLDER", "workflows") / f"{name}.json"] = graph
    for name, blueprint in blueprints.BLUEPRINTS.items():
        graph = Graph(info, name)
        blueprints.draw(graph, blueprint)
        contents[ROOT / "subgraphs" / f"{name}.json"] = graph
    return {path: json.dumps(graph.workflow(), ensure_ascii=False) + "\n" for path, graph in contents.items()}


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
