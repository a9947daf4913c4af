"""Makes workflows/, subgraphs/ and docs/graphs/ (*.json) from their descriptions in tests/comfy/templates.

python tests/comfy/build_workflows.py [NAME ...]: run it after a change of a description or of a node's inputs. Nodes
stay where they stand in the file; those of the workflows that are named, and of new ones, are arranged anew.
"""

import json
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

sys.path[1:1] = [str(Path(__file__).resolve().parents[folder]) for folder in (0, 1, 2)]

# found through the path above
from arranging import arrange  # noqa: E402
from building import Graph  # noqa: E402
from server import ROOT, Server, comfyui  # noqa: E402
from templates import all_templates, blueprints  # noqa: E402


def built(info: dict, anew: Collection[str] = ()) -> dict[Path, str]:
    """The content of every file that the descriptions give. info: /object_info of the oldest supported ComfyUI; anew:
    the names of workflows to arrange."""
    contents = {}
    for name, template in all_templates().items():
        graph = Graph(info, name)
        template.draw(graph)
        path = ROOT / getattr(template, "FOLDER", "workflows") / f"{name}.json"
        contents[path] = content(graph, path, name in anew)
    for name, blueprint in blueprints.BLUEPRINTS.items():
        graph = Graph(info, name)
        blueprints.draw(graph, blueprint)
        path = ROOT / "subgraphs" / f"{name}.json"
        contents[path] = content(graph, path, name in anew)
    return contents


def content(graph: Graph, path: Path, anew: bool) -> str:
    """The text of the file. A graph stands as it does in the file that exists, unless it is arranged anew."""
    old = json.loads(path.read_text("utf-8")) if path.exists() and not anew else None
    graph.place(old) if old else arrange(graph)
    definitions = {one["id"]: one for one in (old or {}).get("definitions", {}).get("subgraphs", [])}
    for subgraph in graph.subgraphs:
        subgraph.place(definitions[subgraph.id]) if subgraph.id in definitions else arrange(subgraph)
    return json.dumps(graph.workflow(), ensure_ascii=False) + "\n"


def main(anew: list[str]) -> None:
    with tempfile.TemporaryDirectory() as base:
        server = Server(*comfyui("0.3.64"), Path(base))
        server.start()
        try:
            for path, content in built(server.get("/object_info"), anew).items():
                path.write_text(content, "utf-8")
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
