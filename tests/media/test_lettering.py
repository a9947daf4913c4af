"""Lines of text in any script: which font writes them, how they look, and what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont, features

from imtalker import InputError
from imtalker.media import lettering
from imtalker.media.lettering import draw, runs

CYRILLIC, HEBREW = "\u0416\u0438", "\u05d0\u05d1\u05d2"


def written(text: str) -> np.ndarray:
    return np.asarray(draw(runs(text)), dtype=float)


def only(monkeypatch, *folders) -> None:
    """The machine has the fonts of these folders, and no others."""
    monkeypatch.setattr(lettering, "_font_folders", lambda: list(folders))


@pytest.fixture
def font() -> ImageFont.FreeTypeFont:
    """A font of this machine that has Cyrillic and Hebrew."""
    found = lettering.Fonts().find(CYRILLIC + HEBREW)
    if found is None:
        pytest.skip("no font for Cyrillic and Hebrew: apt-get install fonts-dejavu-core")
    return found


def test_plain_letters_need_no_font_of_the_machine(monkeypatch):
    only(monkeypatch)
    (run,) = runs("  AI-generated\n (c) 2026! ")
    assert (run.text, run.font.getname()) == ("AI-generated (c) 2026!", ImageFont.load_default(64).getname())


def test_other_scripts_are_written_by_the_first_font_that_has_them(font, tmp_path, monkeypatch):
    (run,) = runs(f"AI {CYRILLIC}")
    assert lettering._has(run.font, set("AI" + CYRILLIC))
    assert written(CYRILLIC[0]).shape != written(CYRILLIC[1]).shape  # two letters, not two boxes
    # neither a broken file nor one that has a placeholder for every letter is asked
    (tmp_path / "broken.ttf").write_bytes(b"\0\1\0\0 not a font")
    (tmp_path / "LastResort.ttf").write_bytes(Path(font.path).read_bytes())
    only(monkeypatch, tmp_path)
    with pytest.raises(InputError, match="no font on this machine has it"):
        runs(CYRILLIC)
    (tmp_path / "Mine.TTF").write_bytes(Path(font.path).read_bytes())
    assert runs(CYRILLIC)[0].font.getname() == font.getname()


@pytest.mark.parametrize(
    ("system", "folder"), [("win32", "Windows/Fonts"), ("darwin", "/Library/Fonts"), ("linux", "share/fonts")]
)
def test_each_system_has_its_folders_of_fonts(system, folder, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    for variable in ("WINDIR", "XDG_DATA_DIRS", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    folders = [path.as_posix() for path in lettering._font_folders()]
    assert any(path.endswith(folder) for path in folders)
    assert len(folders) >= 2


def test_a_letter_and_its_accent_are_one_letter(monkeypatch):
    only(monkeypatch)
    assert [run.text for run in runs("i\u200dj")] == ["ij"]  # a joiner is not drawn as a box
    with pytest.raises(InputError, match="'x\u0301'"):
        runs("x\u0301")


def test_a_text_of_several_scripts_may_need_several_fonts(font, monkeypatch):
    has = {"Aileron": set("AI-b"), font.getname()[0]: set(CYRILLIC)}
    monkeypatch.setattr(lettering, "_has", lambda font, letters: letters <= has.get(font.getname()[0], set()))
    line = runs(f"AI {CYRILLIC} b")
    assert [run.text for run in line] == ["AI ", f"{CYRILLIC} ", "b"]
    apart = [np.asarray(draw([run])).shape[1] - lettering.SIZE for run in line]
    assert draw(line).width - lettering.SIZE >= sum(apart)
    with pytest.raises(InputError, match="right to left"):
        runs(f"{HEBREW} {CYRILLIC}")


@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow has no Raqm")
def test_right_to_left_is_written_from_right_to_left(font):
    plain = ImageFont.truetype(font.path, lettering.SIZE, layout_engine=ImageFont.Layout.BASIC)
    wanted = np.asarray(draw([lettering.Run(HEBREW[::-1], plain)]), dtype=float)
    found = np.asarray(draw([lettering.Run(HEBREW, font)]), dtype=float)
    assert found.shape == wanted.shape
    assert abs(found - wanted).mean() < 1


def test_what_the_layout_cannot_do_is_said_and_not_drawn_wrong(font, monkeypatch):
    monkeypatch.setattr(lettering, "_has_raqm", lambda: False)
    for text in (HEBREW, "AI \u0639", "\u0939\u093f"):
        with pytest.raises(InputError, match="Raqm"):
            runs(text)
    assert [run.text for run in runs(f"{CYRILLIC}\u200f")] == [CYRILLIC]


@pytest.mark.parametrize("letter", ["\x07", "\0", "\x1b", "\ud800", "\ue000", "\U0010fffd"])
def test_what_is_no_letter_is_refused(letter):
    with pytest.raises(InputError, match="not a letter"):
        runs(f"AI{letter}")


def test_what_nobody_sees_is_nothing_and_too_much_is_refused():
    for text in ("", " \n\t ", "\u200b\u200f \ufeff"):
        assert runs(text) == []
    assert runs("x" * 80)
    with pytest.raises(InputError, match="81 characters"):
        runs("x" * 81)
