"""The graphs in docs/graphs, which need files or packs that we do not have: their links, and what of them runs."""

import json

import pytest
import shipped
import torch
from server import ROOT, on_one_version
from templates import with_other_packs
from test_nodes import probe
from test_workflows import saved_file

FOLDER = ROOT / "docs/graphs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def tiny_upscaler() -> dict[str, torch.Tensor]:
    """Real-ESRGAN's compact network with 4 features, twice the size."""
    torch.manual_seed(0)
    widths = [(3, 4), (4, 4), (4, 12)]
    state = {}
    for number, (count, out) in enumerate(widths):
        state[f"body.{2 * number}.weight"] = 0.1 * torch.randn(out, count, 3, 3)
        state[f"body.{2 * number}.bias"] = torch.zeros(out)
        if number < 2:
            state[f"body.{2 * number + 1}.weight"] = torch.full((4,), 0.2)
    return state


@pytest.mark.parametrize("name", NAMES)
def test_links_join_outputs_to_inputs_that_take_them(server, name):
    info = server.get("/object_info")
    workflow = read(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for number, source, slot, target, place, kind in workflow["links"]:
        entry = nodes[target]["inputs"][place]
        assert number in nodes[source]["outputs"][slot]["links"]
        assert entry["link"] == number
        assert kind == nodes[source]["outputs"][slot]["type"]
        assert kind in entry["type"].split(",")
    for node in nodes.values():
        if node["type"] in (*shipped.NOTES, *with_other_packs.FOREIGN):
            continue
        kind = info[node["type"]]
        taken = {key: spec for part in ("required", "optional") for key, spec in kind["input"].get(part, {}).items()}
        assert {entry["name"] for entry in node["inputs"]} <= taken.keys()
        assert [output["type"] for output in node["outputs"]] == kind["output"][: len(node["outputs"])]


def test_they_use_the_parts_that_people_chain():
    kinds = {name: {node["type"] for node in read(name)["nodes"]} for name in NAMES}
    assert kinds["Prompt to clip"] >= {
        *("KSampler", "VAEDecode", "IMTalkerFaceCrop", "IMTalkerRender", "ImageUpscaleWithModel", "CreateVideo")
    }
    assert kinds["With VideoHelperSuite and KJNodes"] >= with_other_packs.FOREIGN.keys()


@on_one_version
def test_the_prompts_graph_runs_from_its_portrait_to_the_upscaled_clip(server):
    folder = server.base / "models/upscale_models"
    folder.mkdir(exist_ok=True)
    torch.save(tiny_upscaler(), folder / "tiny.pth")
    graph = shipped.to_api(read("Prompt to clip"))
    made = {"CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "KSampler", "VAEDecode", "LoadAudio"}
    (portrait,) = (number for number, one in graph.items() if one["class_type"] == "VAEDecode")
    (speech,) = (number for number, one in graph.items() if one["class_type"] == "LoadAudio")
    graph = {number: one for number, one in graph.items() if one["class_type"] not in made}
    graph["example"] = {"class_type": "IMTalkerExample", "inputs": {"seed": 103}}
    for one in graph.values():
        inputs = one["inputs"]
        for key, value in inputs.items():
            inputs[key] = {(portrait, 0): ["example", 0], (speech, 0): ["example", 1]}.get(
                tuple(value) if isinstance(value, list) else value, value
            )
        if "Load" in one["class_type"] and "model" in inputs:
            inputs["model"] = "avatar"
        inputs |= {key: value for key, value in {"model_name": "tiny.pth", "duration": 0.4}.items() if key in inputs}
    found = probe(server, saved_file(server, graph))
    assert (found["frames"], found["size"], found["fps"]) == (10, (256, 256), 25)
    assert found["seconds of sound"] == pytest.approx(0.4, abs=0.1)
