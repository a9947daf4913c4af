"""README, docs and help pages are true: links lead somewhere, commands and code run, what they name is there."""

import argparse
import importlib.util
import json
import re
import runpy
import sys
import warnings
import wave
from unittest.mock import patch
from urllib.parse import unquote

import pages
import pytest
import tiny
import torch
from pages import HELP, HELP_PAGES, PAGES, ROOT

import imtalker
from benchmarks import measure
from imtalker import pipeline
from imtalker.avatar import train as avatar
from imtalker.cli import commands as cli
from imtalker.drawn import example as drawn
from imtalker.dubbing import dub, plan
from imtalker.face.crop import Box, centre_crop
from imtalker.face.follow import View
from imtalker.models.config import PUBLISHED

if sys.version_info < (3, 11):
    pytest.skip("reading pyproject.toml takes Python 3.11", allow_module_level=True)

import release

CHINESE = json.loads((ROOT / "locales/zh/nodeDefs.json").read_text("utf-8"))
COMMANDS = [(page, words) for page in PAGES for words in pages.commands(page)]
README = PAGES[0]


# Links


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_links_lead_to_files_and_headings(page):
    assert not pages.broken(page)


def test_links_of_help_pages_are_as_comfyui_reads_them():
    # the page of ComfyUI takes them from the folder of all help pages, whichever language is shown
    assert not {pages.name(page): wrong for page in HELP_PAGES if (wrong := pages.broken(page, HELP))}


def test_a_broken_link_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('# One\n\n[a](none.md) [b](#two) [c](page.md#one) <img src="x.png">\n\n    [d](code.md)\n', "utf-8")
    assert pages.broken(page) == ["none.md", "#two", "x.png"]


# Commands


class Parsed(Exception):
    """The arguments were taken."""


@pytest.fixture
def stop_after_parsing(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *arguments):
        parse(self, *arguments)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)


def check_command(words: list[str]) -> None:
    """Raises for a command that is not there, or does not take these arguments."""
    words = [word for word in words if not re.fullmatch(r"[A-Z_0-9]+=.*", word)]
    match words:
        case ["python", "-m", "imtalker", *rest]:
            with pytest.raises((Parsed, SystemExit)) as ended:
                cli.main(rest)
            assert ended.type is Parsed or ended.value.code == 0
        case ["python", "-m", module, *rest] if module.startswith(("benchmarks.", "imtalker.")):
            # as Python runs it, since a package is run by its __main__
            with (
                patch.object(sys, "argv", [module, *rest]),
                warnings.catch_warnings(action="ignore"),
                pytest.raises((Parsed, SystemExit)) as ended,
            ):
                runpy.run_module(module, run_name="__main__")
            assert ended.type is Parsed
        case ["python", "-m", module]:
            assert importlib.util.find_spec(module)
        case ["python", script, *_]:
            assert (ROOT / script).is_file()
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        case ["pip", "install", extra] if extra.startswith("."):
            assert {*extra[2:-1].split(",")} <= {*release.settings()["project"]["optional-dependencies"]}
        case ["export"]:
            pass
        case _:
            raise AssertionError("nothing is known that could be run so")


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{pages.name(p)}: {' '.join(w)}" for p, w in COMMANDS])
def test_commands_are_taken(page, words, stop_after_parsing):
    check_command(words)


@pytest.mark.parametrize(
    "page", [*PAGES, HELP_PAGES], ids=lambda page: "help" if page is HELP_PAGES else pages.name(page)
)
def test_commands_in_the_text_are_taken(page, stop_after_parsing):
    several = page if isinstance(page, list) else [page]
    said = {text for one in several for text in pages.mentions(one)}
    for text in sorted(said):
        if re.match(r"(python -m|python \w+/|make |pip install \"?\.)", text):
            words = text.replace('"', "").replace("TORCH=...", "").split()
            if words[:3] == ["python", "-m", "imtalker"] and len(words) <= 4:
                words.append("--help")  # named without what it needs
            check_command(words)


def test_commands_that_are_not_there_would_be_found(stop_after_parsing):
    for line in (
        "python -m imtalker speak",
        "python -m imtalker talk --source a",
        "python -m imtalker.avatar --minutes none",
        "make nothing",
        "python none.py",
        "rm x",
    ):
        with pytest.raises(AssertionError):
            check_command(line.split())


@pytest.fixture(scope="module")
def folder(inputs, models, tmp_path_factory):
    """What the examples name: pictures, sounds, weights as they are published, a table, keyframes."""
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("examples")
    for name in ("face", "anna", "ben"):
        (folder / f"{name}.png").write_bytes((inputs / "portrait.png").read_bytes())
    sound = drawn.speech(0.2)
    for name in ("speech", "hour", "hello"):
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, sound.sample_rate, 0, "NONE", ""))
            file.writeframes((sound.waveform[0] * 32767).short().numpy().tobytes())
    for name in ("clip", "nod", "interview"):
        (folder / f"{name}.mp4").write_bytes((inputs / "driving.mp4").read_bytes())
    for name, prefix in (("renderer", "gen."), ("generator", "model.")):
        tensors = load_file(models / f"{name}.safetensors")
        torch.save({"state_dict": {prefix + key: value for key, value in tensors.items()}}, folder / f"{name}.ckpt")
    (folder / "turn.json").write_text(*_only("json", README))
    (folder / "jobs.csv").write_text(*_only("csv", ROOT / "docs/command_line.md"))
    return folder


def _only(language: str, page) -> tuple[str, str]:
    (block,) = (block for block in pages.blocks(page) if block.language == language)
    return block.text, "utf-8"


@pytest.fixture
def at_hand(folder, monkeypatch):
    """In that folder, with it as the place of weights; faces need not be found, nor a rig asked for."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cli, "DEFAULT_MODELS", folder)
    # a checkpoint says nothing of its sizes, and is taken for the published one
    monkeypatch.setitem(PUBLISHED["renderer"], "v2", tiny.renderer_config())
    monkeypatch.setitem(PUBLISHED["generator"], "v2", tiny.generator_config())
    monkeypatch.setattr(pipeline, "_portrait_crop", lambda image, *_: centre_crop(*image.shape[1:3]))
    monkeypatch.setattr(pipeline, "_driving_view", lambda reader, *_: View(centre_crop(reader.height, reader.width)))
    monkeypatch.setattr(plan, "open_detector", lambda *_: lambda frame: [Box(20, 10, 60, 50)])
    monkeypatch.setattr(dub, "_kept_rig", lambda *_: None)
    return folder


OFFLINE = ("talk", "reenact", "dub", "batch", "info", "convert")


def test_the_commands_of_the_readme_run(at_hand, capsys):
    run = [words[3:] for words in pages.commands(README) if words[:3] == ["python", "-m", "imtalker"]]
    assert {words[0] for words in run} == {*OFFLINE, "download", "sign", "live"}
    for words in run:
        if words[0] in OFFLINE and "--help" not in words:
            assert cli.main(words) == 0, capsys.readouterr().err
    assert all((at_hand / name).is_file() for name in ("out.mp4", "hour.mp4", "anna.mp4", "ben.mp4", "dubbed.mp4"))
    assert "v2" in capsys.readouterr().out


# Code


async def _pieces(samples):
    for piece in samples.split(960):
        yield piece


async def _recognised(samples):
    return "hello"


@pytest.mark.parametrize("page", [README, ROOT / "docs/python.md"], ids=pages.name)
def test_python_runs(page, at_hand):
    shown = []
    # what the examples leave to the reader
    names = {
        "torch": torch,
        "square_picture": drawn.portrait(64),
        "waveform": drawn.speech(0.2).waveform,
        "sound_card": drawn.speech(0.5).waveform.split(4096, dim=1),
        "show": lambda *parts: shown.append(parts),
        "microphone": _pieces(drawn.speech(0.5).waveform[0]),
        "recognise": _recognised,
        "answer": str,
        "synthesise": lambda text: _pieces(torch.zeros(4800)),
    }
    code = [block.text for block in pages.blocks(page) if block.language == "python"]
    assert code
    for text in code:
        exec(compile(text, pages.name(page), "exec"), names)
    assert "show(" not in "".join(code) or len(shown) > 1


def test_every_block_is_of_a_kind_that_is_checked():
    kinds = {block.language for page in [*PAGES, *HELP_PAGES] for block in pages.blocks(page)}
    assert kinds <= {"", "python", "json", "csv", "bibtex", "mermaid"}
    with_python = {page for page in PAGES for block in pages.blocks(page) if block.language == "python"}
    assert with_python == {README, ROOT / "docs/python.md"}


@pytest.mark.parametrize("page", [README, *HELP_PAGES], ids=pages.name)
def test_keyframes_are_read(page, tmp_path):
    for block in pages.blocks(page):
        if block.language == "json":
            if "Expression" in str(page):  # its channels are those of a rig
                assert imtalker.motion.keyframes.parse(block.text, None)
                continue
            (tmp_path / "drawn.json").write_text(block.text, "utf-8")
            drawn_in = imtalker.motion.keyframes.load(tmp_path / "drawn.json")
            assert imtalker.motion.keyframes.to_control(drawn_in, seconds=1)


# What is named


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_files_named_are_there(page):
    known = [
        path.relative_to(ROOT).as_posix() for suffix in ("py", "js", "md", "yml", "txt") for path in _sources(suffix)
    ]
    for text in pages.mentions(page):
        if re.fullmatch(r"[\w./-]+\.(py|js|md|yml|txt)", text) and "IMTalkerName" not in text and text != "zh.md":
            assert any(path == text or path.endswith(f"/{text}") for path in known), text


def _sources(suffix: str) -> list:
    places = ("imtalker", "nodes", "web", "tests", "benchmarks", "docs", ".github")
    return [*ROOT.glob(f"*.{suffix}"), *(path for place in places for path in (ROOT / place).rglob(f"*.{suffix}"))]


def test_the_readme_shows_every_node_and_workflow():
    text = README.read_text("utf-8")
    section = text.split("\n## Nodes\n")[1].split("\n## ")[0]
    named = {
        name.strip()
        for row in re.findall(r"^\| .* \| (.*IMTalker.*) \|$", section, re.MULTILINE)
        for name in row.split(",")
    }
    assert named == {page.read_text("utf-8").partition("\n")[0].removeprefix("# ") for page in HELP.glob("*.md")}
    workflows = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    shown = {unquote(name) for name in re.findall(r"<img src=\"workflows/([^\"]+)\.jpg\"", text)}
    assert shown == workflows
    assert workflows <= set(re.findall(r"`([^`\n]+)`", text))


def test_the_readme_starts_with_what_an_artist_needs():
    lines = README.read_text("utf-8").splitlines()
    assert len(lines) < 220
    assert [line for line in lines[:65] if line.startswith("## ")][:3] == ["## Install", "## First video", "## Control"]


def test_the_table_of_changes_names_what_its_files_hold():
    section = (ROOT / "docs/architecture.md").read_text("utf-8").split("## I want to change")[1].split("\n## ")[0]
    checked = 0
    for row in re.findall(r"^\| .* \|$", section, re.MULTILINE):
        spans = re.findall(r"`([^`]+)`", row)
        files = [ROOT / text for text in spans if (ROOT / text).is_file()]
        code = "".join(path.read_text("utf-8") for path in files)
        for name in spans:
            if files and "/" not in name:
                assert name in code, (name, row)
                checked += 1
    assert checked > 10


def test_environment_variables_and_settings_are_those_of_the_code():
    text = "".join(page.read_text("utf-8") for page in PAGES)
    known = {imtalker.media.provenance.CERTIFICATE, imtalker.media.provenance.KEY}
    assert set(re.findall(r"IMTALKER_\w+", text)) == known
    options = {
        word for page in PAGES for said in _settings(page) for word in re.findall(r"(?<![\w-])--[a-z][\w-]+", said)
    }
    theirs = {
        "--novram",
        "--disable-metadata",
        "--disable-cuda-graphs",
        "--force-reinstall",
        "--no-deps",
    }  # ComfyUI's and pip's
    ours = (*_actions(cli.parser()), *_actions(measure.parser("")), *_actions(avatar.parser()))
    assert options - theirs <= {word for action in ours for word in action.option_strings}


def _settings(page) -> list[str]:
    """Of the commands whose options have no place of their own above."""
    return [said for said in pages.mentions(page) if "benchmarks." not in said]


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    commands = (action for action in parser._actions if isinstance(action.choices, dict))
    below = (child for action in commands for child in action.choices.values() if hasattr(child, "_actions"))
    return [*parser._actions, *(action for child in below for action in _actions(child))]


# Help pages; tests/comfy/test_locales.py compares their tables with the schemas


@pytest.mark.parametrize("kind", CHINESE)
def test_every_node_has_a_page_with_a_picture_in_both_languages(kind):
    english, chinese = ((HELP / name).read_text("utf-8") for name in (f"{kind}.md", f"{kind}/zh.md"))
    assert chinese.startswith(f"# {CHINESE[kind]['display_name']}\n")
    for text in (english, chinese):
        assert f"]({kind}/node.jpg)" in text
    assert 2000 < (HELP / kind / "node.jpg").stat().st_size < 40_000
    for mark in ("\n## ", "\n| ", "\n- ", "\n```"):
        assert english.count(mark) == chinese.count(mark), mark


def test_messages_quoted_in_help_pages_are_those_of_the_code():
    sources = [path for folder in ("nodes", "imtalker") for path in (ROOT / folder).rglob("*.py")]
    code = re.sub(r'"\s+f?"', "", "".join(path.read_text("utf-8") for path in sources))  # joins the lines of a message
    for page in HELP_PAGES:
        for quoted in re.findall(r"“([ -~]+)”", page.read_text("utf-8")):
            assert quoted in code, (pages.name(page), quoted)


# ComfyUI's own Chinese names that our pages use, seen in its frontend
COMFYUI_SAYS = {
    "模板",
    "保存视频",
    "创建视频",
    "从批次获取图像",
    "MediaPipe 人脸标记器",
    "生成后控制",
    "加载音频",
    "预览任意",
    "加载图像",
    "加载视频",
}


@pytest.mark.parametrize("kind", CHINESE)
def test_chinese_pages_call_things_as_the_page_shows_them(kind):
    """Names in quotes and in bold are those of nodes (also without "IMTalker"), inputs, outputs and choices."""
    shown = set(COMFYUI_SAYS)
    for node in CHINESE.values():
        shown |= {node["display_name"], node["display_name"].replace("IMTalker", "").replace(" ", "")}
        shown |= {one["name"] for part in ("inputs", "outputs") for one in node[part].values()}
        shown |= {label for one in node["inputs"].values() for label in one.get("options", {}).values()}
    text = (HELP / kind / "zh.md").read_text("utf-8")
    named = {name for pair in re.findall(r"“([^”]+)”|\*\*([^*]+)\*\*", text) for name in pair}
    chinese = {name for name in named if re.search("[\u4e00-\u9fff]", name)}
    assert chinese <= shown, chinese - shown
