"""Reads the project's pages: headings, links, commands and code."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
HELP = ROOT / "web/docs"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HELP_PAGES = [*sorted(HELP.glob("*.md")), *sorted(HELP.glob("*/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code; language "" if it is indented or names none."""

    language: str
    text: str


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    text = FENCE.sub("", page.read_text("utf-8"))
    return re.sub(r"(?<=\n\n)(?: {4}.*\n)+", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


def links(page: Path) -> list[str]:
    text = prose(page)
    found = re.findall(r"\]\(([^()\s]+(?:\([^()\s]*\))?)\)", text)
    return found + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)


def broken(page: Path, base: Path | None = None) -> list[str]:
    """Links to missing files or headings; links to other sites are not followed."""
    wrong = []
    for link in links(page):
        if re.match(r"(https?|mailto):", link):
            continue
        target, _, anchor = link.partition("#")
        path = (base or page.parent) / unquote(target) if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            wrong.append(link)
    return wrong


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = [Block(language, body) for language, body in FENCE.findall(text)]
    indented = re.findall(r"(?<=\n\n)((?: {4}.*\n)+)", FENCE.sub("", text))
    return found + [Block("", re.sub(r"^ {4}", "", body, flags=re.MULTILINE)) for body in indented]


def commands(page: Path) -> list[list[str]]:
    """The lines of its blocks without a language, split into words; # starts a comment."""
    lines = "\n".join(block.text for block in blocks(page) if not block.language)
    lines = lines.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def mentions(page: Path) -> list[str]:
    """The inline code in its prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))
