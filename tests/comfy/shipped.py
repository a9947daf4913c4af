"""The shipped workflows, prepared for tests and converted to API format."""

import json
from pathlib import Path

from server import ROOT

FOLDER = ROOT / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
NOTES = ("Note", "MarkdownNote")


def read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


def tested(workflow: dict, files: dict[str, str]) -> dict:
    """The workflow with the tests' models and files, the least possible work and no face detection.

    files: the tests' file for each file that the workflow names.
    """
    changes = {
        "IMTalkerLoadRenderer": {0: "renderer_v2.safetensors"},
        "IMTalkerLoadGenerator": {0: "generator_v2.safetensors"},
        "IMTalkerFaceCrop": {5: "whole picture", 6: 64},
        "IMTalkerEncodeMotion": {0: "none"},
        "IMTalkerSampleMotion": {2: 2},
        "IMTalkerTalkingHead": {2: 2, 6: "whole picture"},
    }
    for node in workflow["nodes"]:
        values = node["widgets_values"]
        for place, value in changes.get(node["type"], {}).items():
            values[place] = value
        if node["type"] in ("LoadImage", "LoadAudio", "LoadVideo"):
            values[0] = files[values[0]]
    return workflow


def to_api(workflow: dict) -> dict:
    """Converts a workflow as the page does on Run, for the nodes in our workflows."""
    links = {number: [str(node), slot] for number, node, slot, *_ in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        values, inputs = iter(node["widgets_values"]), {}
        for entry in node["inputs"]:
            if "widget" in entry:
                inputs[entry["name"]] = next(values)
                if entry["name"] == "seed":
                    next(values)  # control_after_generate, a widget that only the page has
            if entry["link"] is not None:
                inputs[entry["name"]] = links[entry["link"]]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def picture_of(name: str) -> Path:
    return FOLDER / f"{name}.jpg"


def picture_of_node(kind: str) -> Path:
    """The picture in its help page, which ComfyUI serves from web/docs."""
    return ROOT / f"web/docs/{kind}/node.jpg"
