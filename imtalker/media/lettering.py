"""A line of text as a picture, in any script that a font on this machine can write."""

import os
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from PIL import Image, ImageFont

SIZE = 64  # pixels at which text is drawn before it is scaled
MAX_CHARACTERS = 80
FONT_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
STYLES = ("bold", "italic", "oblique", "black", "light", "thin", "condensed", "narrow", "mono", "serif")
PLACEHOLDERS = ("lastresort", "blank")  # fonts that have every letter, and draw none
NOBODY = "\U0010fffd"  # a letter that no font has
# scripts whose letters change with their neighbours, besides those from right to left: Indic, Tibetan, Burmese, Khmer
SHAPED = ((0x0900, 0x0DFF), (0x0F00, 0x109F), (0x1780, 0x17FF))


@dataclass
class Run:
    """A part of the text, and the font that has all its letters."""

    text: str
    font: "ImageFont.FreeTypeFont"


def runs(text: str) -> list[Run]:
    """The text in as few fonts as possible: Pillow's own if it has every letter, else those of the machine.

    InputError: more than 80 characters, a control character, a letter that no font has, or a script that this Pillow
    cannot lay out. An empty list: nothing that could be seen.
    """
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"The mark has {len(text)} characters: use {MAX_CHARACTERS} or fewer.")
    strange = [letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn")]
    if strange:
        raise InputError(f"The mark contains {strange[0]!r}, which is not a letter: remove it.")
    if not any(map(_is_visible, text)):
        return []
    if not _has_raqm():
        shaped = next(filter(_is_shaped, text), None)
        if shaped:
            raise InputError(
                f"The mark contains {shaped!r}, whose script needs the Raqm library, and this Pillow has none: install "
                "FriBiDi, which Pillow then finds, or write the mark in another script."
            )
    fonts = Fonts()
    whole = fonts.find(text)
    if whole:
        return [Run(_drawable(text, whole), whole)]
    if any(map(_is_leftward, text)):
        raise InputError(
            f"No font on this machine has all letters of the mark {text!r}, and text from right to left needs one "
            "that has: install one, or use fewer scripts."
        )
    found: list[Run] = []
    for cluster in _clusters(text):
        if cluster.isspace() and found:
            found[-1].text += cluster
            continue
        font = fonts.find(cluster)
        if font is None:
            raise InputError(
                f"The mark contains {cluster!r}, and no font on this machine has it: install one that does, or use "
                "other letters."
            )
        if found and found[-1].font is font:
            found[-1].text += cluster
        else:
            found.append(Run(cluster, font))
    return [Run(_drawable(run.text, run.font), run.font) for run in found]


def draw(line: list[Run]) -> "Image.Image":
    """The line in white on black, with a margin around it."""
    from PIL import Image, ImageDraw

    boxes, x = [], 0.0
    for run in line:
        left, top, right, bottom = run.font.getbbox(run.text, anchor="ls")
        boxes.append((x + left, top, x + right, bottom))
        x += run.font.getlength(run.text)
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    image = Image.new("L", (round(right - left) + SIZE, round(bottom - top) + SIZE // 2))
    pen, x = ImageDraw.Draw(image), SIZE // 2 - left
    for run in line:
        pen.text((x, SIZE // 4 - top), run.text, fill=255, font=run.font, anchor="ls")
        x += run.font.getlength(run.text)
    return image


class Fonts:
    """The machine's fonts, opened one after the other as long as letters are missing; Pillow's own is the first."""

    def __init__(self):
        from PIL import ImageFont

        self._opened = [ImageFont.load_default(SIZE)]
        self._files = _font_files()

    def find(self, text: str) -> "ImageFont.FreeTypeFont | None":
        """The first font that has every letter of the text, or None."""
        letters = {letter for letter in text if _is_visible(letter) and not _is_selector(letter)}
        return next((font for font in self._all() if _has(font, letters)), None)

    def _all(self) -> Iterator["ImageFont.FreeTypeFont"]:
        from PIL import ImageFont

        yield from self._opened
        for path in self._files:
            try:
                font = ImageFont.truetype(path, SIZE)
            except (OSError, ValueError):  # broken, or pictures of one size only, as emoji in colour are
                continue
            self._opened.append(font)
            yield font


def _has(font: "ImageFont.FreeTypeFont", letters: set[str]) -> bool:
    # a font draws every letter that it lacks as the same box
    box = bytes(font.getmask(NOBODY))
    return all(bytes(font.getmask(letter)) != box for letter in letters)


def _drawable(text: str, font: "ImageFont.FreeTypeFont") -> str:
    """Without what is not to be seen, such as a mark of direction, where the font would draw a box for it."""
    return "".join(letter for letter in text if _is_printed(letter) or (_has_raqm() and _has(font, {letter})))


def _font_files() -> Iterator[Path]:
    """Plain upright fonts first."""
    found = [
        Path(folder, name)
        for start in _font_folders()
        for folder, _, names in os.walk(start)
        for name in names
        if name.lower().endswith(FONT_SUFFIXES) and not name.lower().startswith(PLACEHOLDERS)
    ]
    return iter(sorted(found, key=_plainness))


def _plainness(path: Path) -> tuple:
    name = path.stem.lower().replace("sansserif", "sans")
    return sum(style in name for style in STYLES), "sans" not in name, name, str(path)


def _font_folders() -> list[Path]:
    home = Path.home()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home / "AppData/Local")
        return [Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts"), Path(local, "Microsoft/Windows/Fonts")]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    data = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or home / ".local/share"
    return [*(Path(folder, "fonts") for folder in data.split(":") if folder), Path(own, "fonts"), home / ".fonts"]


def _clusters(text: str) -> Iterator[str]:
    """Letters with the marks that belong to them."""
    cluster = ""
    for letter in text:
        joined = cluster.endswith("\u200d") or unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf", "Sk")
        if cluster and not joined:
            yield cluster
            cluster = ""
        cluster += letter
    yield cluster


def _has_raqm() -> bool:
    from PIL import features

    return features.check("raqm")


def _is_printed(letter: str) -> bool:
    return unicodedata.category(letter) != "Cf"


def _is_visible(letter: str) -> bool:
    return _is_printed(letter) and not letter.isspace()


def _is_selector(letter: str) -> bool:
    """A choice between forms of the letter before it."""
    return "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"


def _is_leftward(letter: str) -> bool:
    return unicodedata.bidirectional(letter) in ("R", "AL") and _is_printed(letter)


def _is_shaped(letter: str) -> bool:
    return _is_leftward(letter) or any(low <= ord(letter) <= high for low, high in SHAPED)
