"""Names, tooltips and help pages: the English ones come from the schemas, the Chinese ones agree with them."""

import json
import re

import help_tables
import shipped
from help_tables import LANGUAGES
from server import ROOT, Server
from test_nodes import OURS

CHINESE = json.loads((ROOT / "locales/zh/nodeDefs.json").read_text("utf-8"))


def kinds_of(server: Server) -> dict:
    return {name: kind for name, kind in server.get("/object_info").items() if kind["python_module"] == OURS}


def texts(tree: dict | str) -> list[str]:
    return [text for value in tree.values() for text in texts(value)] if isinstance(tree, dict) else [tree]


def keys(tree: dict | str) -> dict | None:
    """Without the labels of choices, which stand in the schema as they are."""
    return {key: keys(value) for key, value in tree.items() if key != "options"} if isinstance(tree, dict) else None


def test_every_text_is_there_in_both_languages(server):
    english = {name: help_tables.schema_texts(kind) for name, kind in kinds_of(server).items()}
    assert keys(CHINESE) == keys(english)
    assert all(texts(english))
    assert all(texts(CHINESE))


def test_tooltips_of_both_languages_explain_every_choice_of_a_combo(server):
    for name, kind in kinds_of(server).items():
        for language in (help_tables.schema_texts(kind), CHINESE[name]):
            for key, spec in help_tables.inputs(kind).items():
                tooltip = language["inputs"][key]["tooltip"]
                assert [choice for choice in help_tables.choices(key, spec) if choice not in tooltip] == [], (name, key)


def test_every_choice_of_a_combo_has_a_chinese_label_that_the_tooltip_explains(server):
    for name, kind in kinds_of(server).items():
        for key, spec in help_tables.inputs(kind).items():
            text = CHINESE[name]["inputs"][key]
            labels = text.get("options", {})
            assert labels.keys() >= set(help_tables.choices(key, spec)), (name, key)
            assert len(set(labels.values())) == len(labels), (name, key)
            for choice in help_tables.choices(key, spec):
                assert labels[choice] in text["tooltip"], (name, key)


def test_the_page_shows_english_from_the_schemas_and_chinese_from_its_file(server):
    offered = server.get("/i18n")
    # texts of a locale would win over those of the schema
    assert not offered.get("en", {}).get("nodeDefs", {}).keys() & kinds_of(server).keys()
    assert offered["zh"]["nodeDefs"].items() >= CHINESE.items()


def test_no_chinese_text_holds_what_the_page_would_take_for_code():
    for text in texts(CHINESE):
        assert not re.search(r"[{}|@]", text), text


def test_help_pages_hold_the_tables_of_the_schemas(server):
    for path, page in help_tables.expected_pages(server).items():
        assert path.read_text("utf-8") == page, f"{path}: run python tests/comfy/help_tables.py"


def test_every_node_has_a_help_page_and_nothing_else_has_one(server):
    kinds = kinds_of(server)
    assert {path.name for path in (ROOT / "web/docs").iterdir()} == {*kinds, *(f"{name}.md" for name in kinds)}
    for name, kind in kinds.items():
        titles = {"en": kind["display_name"], "zh": CHINESE[name]["display_name"]}
        for key, language in LANGUAGES.items():
            page = language.path(name).read_text("utf-8")
            assert page.startswith(f"# {titles[key]}\n"), (name, key)
            shown = re.findall(r"^(?:Workflow: |工作流：)(.*)$", page, flags=re.MULTILINE)
            assert set(re.findall(r"`([^`]+)`", " ".join(shown))) <= set(shipped.NAMES), name
