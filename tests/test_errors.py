"""Messages and log lines: printable on every terminal, whatever is in a file's name."""

import logging
import os

import pytest

from imtalker.errors import LONGEST, InputError, printable

NAMES = {
    os.fsdecode(b"\xc7\xfd\xb6\xaf.png"): r"\xc7\xfd\xb6\xaf.png",
    "two\nlines\r.png": r"two\nlines\r.png",
    "\x1b[2Jred": r"\x1b[2Jred",
    "right\u202eleft": r"right\u202eleft",
    "nul\0": r"nul\x00",
    "lone\ud800": r"lone\ud800",
    "tilt\U0001f600 \u5f20\u4e09 \u05e9\u05dc\u05d5\u05dd": "tilt\U0001f600 \u5f20\u4e09 \u05e9\u05dc\u05d5\u05dd",
    "family\U0001f468\u200d\U0001f469": "family\U0001f468\u200d\U0001f469",
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items(), ids=range(len(NAMES)))
def test_every_message_and_log_line_is_one_printable_line(name, shown, caplog):
    message = str(InputError(f"There is no file {name}: check it."))
    assert message == f"There is no file {shown}: check it."
    message.encode("utf-8")
    with caplog.at_level(logging.INFO, "imtalker"):
        logging.getLogger("imtalker").info("Reading %s", name)
    assert caplog.messages == [f"Reading {shown}"]


def test_a_message_is_never_endless():
    assert len(printable("x" * 10**6)) < LONGEST + 10
    assert printable("a sentence") == "a sentence"
