"""Names, tooltips and help pages say what the nodes are: all of it, in each language, and nothing else."""

import json
import re

import pytest
import shipped
from server import ROOT, Server
from test_nodes import OURS

LANGUAGES = ("en", "zh")


def nodes_of(server: Server) -> dict:
    """As the locale files describe them, from the schemas."""
    described = {}
    for name, kind in server.get("/object_info").items():
        if kind["python_module"] != OURS:
            continue
        inputs = kind["input"]["required"] | kind["input"].get("optional", {})
        outputs = zip(kind["output_name"], kind["output_tooltips"], strict=True)
        described[name] = {
            "display_name": kind["display_name"],
            "description": kind["description"],
            "inputs": {key: {"name": key, "tooltip": options["tooltip"]} for key, (_, options) in inputs.items()},
            "outputs": {str(slot): {"name": key, "tooltip": tip} for slot, (key, tip) in enumerate(outputs)},
        }
    return described


def locale(language: str) -> dict:
    return json.loads((ROOT / f"locales/{language}/nodeDefs.json").read_text())


def texts(tree: dict | str) -> list[str]:
    return [text for value in tree.values() for text in texts(value)] if isinstance(tree, dict) else [tree]


def keys(tree: dict | str) -> dict | None:
    return {key: keys(value) for key, value in tree.items()} if isinstance(tree, dict) else None


def test_english_is_what_the_schemas_say(server):
    # where the page has English of its own, it shows that instead of the schema's
    found, wanted = locale("en"), nodes_of(server)
    assert found.keys() == wanted.keys()
    for name, node in wanted.items():
        assert found[name] == node, f"locales/en/nodeDefs.json: {name}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text(server, language):
    assert keys(locale(language)) == keys(nodes_of(server))
    assert all(texts(locale(language)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_holds_what_the_page_would_take_for_code(language):
    for text in texts(locale(language)):
        assert not re.search(r"[{}|@]", text), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_server_offers_the_texts(server, language):
    offered = server.get("/i18n")[language]["nodeDefs"]
    assert offered.items() >= locale(language).items()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_a_help_page_of_all_its_inputs_and_outputs(server, language):
    titles = {"en": ("## Inputs", "## Outputs"), "zh": ("## 输入", "## 输出")}[language]
    for name, node in nodes_of(server).items():
        page = (ROOT / f"web/docs/{name}/{language}.md").read_text()
        assert page.startswith(f"# {locale(language)[name]['display_name']}\n"), name
        for title, part in zip(titles, ("inputs", "outputs"), strict=True):
            section = page.split(f"{title}\n")[1].split("\n## ")[0]
            listed = re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE)
            assert listed == [one["name"] for one in node[part].values()], (name, part)
        shown = re.findall(r"^(?:Workflow: |工作流：)(.*)$", page, flags=re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", " ".join(shown))) <= set(shipped.NAMES), name


def test_help_pages_in_other_languages_are_english(server):
    pages = ROOT / "web/docs"
    assert {path.name for path in pages.iterdir()} == {
        name for node in nodes_of(server) for name in (node, f"{node}.md")
    }
    for page in pages.glob("*.md"):
        assert page.read_text() == (pages / page.stem / "en.md").read_text()
