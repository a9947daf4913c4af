"""The shipped workflows, prepared for tests and converted to API format.

A new one is a module in tests/comfy/templates (docs/CONTRIBUTING.md says how).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from building import INNER_INPUT
from server import ROOT

FOLDER = ROOT / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
NOTES = ("Note", "MarkdownNote")
AFTER_RUN = ("fixed", "increment", "decrement", "randomize")  # of a widget that only the page has, below a seed


def read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def all_nodes(workflow: dict) -> Iterator[dict]:
    """Those in its subgraphs too, each once."""
    yield from workflow["nodes"]
    for one in workflow.get("definitions", {}).get("subgraphs", []):
        yield from one["nodes"]


def to_api(workflow: dict) -> dict:
    """Converts a workflow as the page does on Run: a node in a subgraph gets the id OUTER:INNER."""
    subgraphs = {one["id"]: one for one in workflow.get("definitions", {}).get("subgraphs", [])}
    links = {number: (source, slot) for number, source, slot, *_ in workflow["links"]}
    return dict(Level(workflow["nodes"], links, "", [], subgraphs).prompt())


@dataclass
class Level:
    """The nodes of a workflow, or of one use of a subgraph."""

    nodes: list[dict]
    links: dict[int, tuple[int, int]]  # number: source and its slot
    prefix: str  # of the ids in it
    given: list  # the values of its inputs
    subgraphs: dict[str, dict]

    def prompt(self) -> Iterator[tuple[str, dict]]:
        for node in self.nodes:
            if node["type"] in self.subgraphs:
                yield from self.inner(node).prompt()
            elif node["type"] not in NOTES:
                yield f"{self.prefix}{node['id']}", {"class_type": node["type"], "inputs": self.inputs(node)}

    def inputs(self, node: dict) -> dict:
        """A link as [node, slot], or a widget's value; what is not connected is left out."""
        values, found = node["widgets_values"], {}
        values = list(values.values() if isinstance(values, dict) else values)
        for entry in node["inputs"]:
            if "widget" in entry:
                found[entry["name"]] = values.pop(0)
                if isinstance(found[entry["name"]], int) and values and values[0] in AFTER_RUN:
                    values.pop(0)
            if entry["link"] is not None:
                found[entry["name"]] = self.value(entry["link"])
        return found

    def value(self, link: int):
        source, slot = self.links[link]
        if source == INNER_INPUT:
            return self.given[slot]
        node = next(one for one in self.nodes if one["id"] == source)
        if node["type"] not in self.subgraphs:
            return [f"{self.prefix}{source}", slot]
        last = self.subgraphs[node["type"]]["outputs"][slot]["linkIds"][0]
        return self.inner(node).value(last)

    def inner(self, node: dict) -> "Level":
        definition, inputs = self.subgraphs[node["type"]], self.inputs(node)
        links = {one["id"]: (one["origin_id"], one["origin_slot"]) for one in definition["links"]}
        given = [inputs.get(entry["name"]) for entry in definition["inputs"]]
        return Level(definition["nodes"], links, f"{self.prefix}{node['id']}:", given, self.subgraphs)


def shortened(workflow: dict, seconds: float = 0.4) -> dict:
    """The workflow with Example's sounds cut to this length, so that a run takes no time."""
    (example,) = (node for node in workflow["nodes"] if node["type"] == "IMTalkerExample")
    for slot in (1, 3):
        output = example["outputs"][slot]
        old, number = output["links"], max(link[0] for link in workflow["links"]) + 1
        if not old:
            continue
        cut = {"id": max(node["id"] for node in workflow["nodes"]) + 1, "type": "TrimAudioDuration", "mode": 0}
        cut |= {"pos": [0, -400 * slot], "size": [300, 106], "flags": {}, "order": 0, "properties": {}}
        entry = {"name": "audio", "type": "AUDIO", "link": number}
        widgets = [
            {"name": name, "type": "FLOAT", "widget": {"name": name}, "link": None}
            for name in ("start_index", "duration")
        ]
        cut |= {"inputs": [entry, *widgets], "widgets_values": [0.0, seconds]}
        cut["outputs"] = [{"name": "AUDIO", "type": "AUDIO", "links": old}]
        for link in workflow["links"]:
            if link[0] in old:
                link[1:3] = cut["id"], 0
        output["links"] = [number]
        workflow["links"].append([number, example["id"], slot, cut["id"], 0, "AUDIO"])
        workflow["nodes"].append(cut)
    return workflow


def picture_of(name: str) -> Path:
    return FOLDER / f"{name}.jpg"


def picture_of_node(kind: str) -> Path:
    """The picture in its help page, which ComfyUI serves from web/docs."""
    return ROOT / f"web/docs/{kind}/node.jpg"
