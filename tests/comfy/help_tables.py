"""Writes the tables of inputs and outputs in the help pages: from the schemas, and in Chinese from locales/zh.

python tests/comfy/help_tables.py, after a change of a schema or of locales/zh. The rest of a page is written by hand.
"""

import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path[1:1] = [str(Path(__file__).resolve().parents[folder]) for folder in (1, 2)]

# found through the path above
from server import ROOT, Server, comfyui  # noqa: E402

# combos that list the server's files
FILE_INPUTS = {"model", "wav2vec2", "smirk", "gaze", "pose", "motion_file", "rig_file"}
SEED_MAX = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True)
class Language:
    """The words that are not in the schema."""

    page: str  # of a node, below web/docs
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kinds: dict[str, str]
    default: str
    separator: str

    def path(self, name: str) -> Path:
        return ROOT / "web/docs" / self.page.format(name)


ENGLISH = Language(
    "{}.md",
    ("Inputs", "Input", "Meaning"),
    ("Outputs", "Output", "Meaning"),
    {"connection": "connection", "file": "file", "text": "text", "json": "text, JSON", "switch": "on or off"}
    | {"optional": "optional", True: "on", False: "off"},
    " ({})",
    ", ",
)
CHINESE = Language(
    "{}/zh.md",
    ("输入", "输入", "含义"),
    ("输出", "输出", "含义"),
    {"connection": "连接", "file": "文件", "text": "文本", "json": "文本，JSON", "switch": "开或关"}
    | {"optional": "可选", True: "开", False: "关"},
    "（{}）",
    "，",
)
LANGUAGES = {"en": ENGLISH, "zh": CHINESE}


def schema_texts(kind: dict) -> dict:
    """The texts in a node's /object_info, in the form of locales/*/nodeDefs.json."""
    outputs = zip(kind["output_name"], kind["output_tooltips"], strict=True)
    return {
        "display_name": kind["display_name"],
        "description": kind["description"],
        "inputs": {name: {"name": name, "tooltip": options["tooltip"]} for name, (_, options) in inputs(kind).items()},
        "outputs": {str(slot): {"name": name, "tooltip": tip} for slot, (name, tip) in enumerate(outputs)},
    }


def inputs(kind: dict) -> dict:
    return kind["input"]["required"] | kind["input"].get("optional", {})


def choices(name: str, spec: list) -> list[str]:
    """The options of a combo, none for a list of files."""
    return spec[1]["options"] if spec[0] == "COMBO" and name not in FILE_INPUTS else []


def values(name: str, spec: list, language: Language, labels: dict[str, str]) -> str:
    """What an input takes: "0 … 1 (0.5)", "face, none". labels: of the choices, where they are translated."""
    kind, options = spec
    default = options.get("default")
    if kind == "COMBO":
        shown = [labels.get(choice, choice) for choice in choices(name, spec)]
        return ("、" if language is CHINESE else ", ").join(shown) or language.kinds["file"]
    if kind in ("INT", "FLOAT"):
        most = "" if options["max"] == SEED_MAX else f" {options['max']:g}"
        shown = language.default.format(f"{default:g}") if most or default else ""
        return f"{options['min']:g} …{most}{shown}"
    if kind == "BOOLEAN":
        return language.kinds["switch"] + language.default.format(language.kinds[default])
    if kind == "STRING":
        is_json = (default or "").startswith("{")
        shown = "" if is_json or not default else language.default.format(default)
        return language.kinds["json" if is_json else "text"] + shown
    return language.kinds["connection"]


def tables(kind: dict, texts: dict, language: Language) -> dict[str, str]:
    """The table below each of the two headings."""
    english = schema_texts(kind)

    def label(part: str, key: str) -> str:
        name, shown = english[part][key]["name"], texts[part][key]["name"]
        return f"`{name}`" if shown == name else f"`{name}` {shown}"

    rows = []
    for name, spec in inputs(kind).items():
        optional = language.separator + language.kinds["optional"] if name in kind["input"].get("optional", {}) else ""
        taken = values(name, spec, language, texts["inputs"][name].get("options", {})) + optional
        # two columns, because ComfyUI shows the page in a narrow panel
        rows.append((f"{label('inputs', name)} · {taken}", texts["inputs"][name]["tooltip"]))
    results = [(label("outputs", slot), one["tooltip"]) for slot, one in texts["outputs"].items()]
    parts = ((language.inputs, rows), (language.outputs, results))
    return {title: _table(heads, rows) for (title, *heads), rows in parts}


def _table(heads: list[str], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, *rows]
    written = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(heads), *written[1:]])


def with_tables(page: str, found: dict[str, str]) -> str:
    """The page with the table below each heading replaced."""
    for title, table in found.items():
        page, count = re.subn(rf"(?<=\n## {title}\n\n)(\|.*\n)*", lambda _, table=table: f"{table}\n", page)
        if count != 1:
            raise ValueError(f"A page has {count} headings {title!r}: it needs one.")
    return page


def expected_pages(server: Server) -> dict[Path, str]:
    """Each help page as it should be."""
    chinese = json.loads((ROOT / "locales/zh/nodeDefs.json").read_text("utf-8"))
    pages = {}
    for name, kind in server.get("/object_info").items():
        if name.startswith("IMTalker"):
            for language, texts in ((ENGLISH, schema_texts(kind)), (CHINESE, chinese[name])):
                path = language.path(name)
                pages[path] = with_tables(path.read_text("utf-8"), tables(kind, texts, language))
    return pages


def main() -> None:
    with tempfile.TemporaryDirectory() as base:
        server = Server(*comfyui("0.3.64"), Path(base))
        server.start()
        try:
            for path, page in expected_pages(server).items():
                path.write_text(page, "utf-8")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
