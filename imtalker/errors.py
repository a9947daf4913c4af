"""The one exception for user mistakes; its message is a sentence that can be shown as is, on every terminal."""

import logging

LONGEST = 2000  # characters of a message
JOINERS = "\u200c\u200d"  # invisible, but Persian and emoji need them


class InputError(ValueError):
    """A file, image, audio clip or setting cannot be used; the message says what is wrong, where, and what to do."""

    def __init__(self, message: object = ""):
        super().__init__(printable(message))


def printable(text: object) -> str:
    r"""`text` as one line that every log, terminal in UTF-8 and JSON encoder takes.

    Line breaks, control and direction characters become escapes such as \n and \u202e, and bytes of a file name that
    are not UTF-8 become \xc7. Of more than LONGEST characters the middle is left out.
    """
    text = str(text)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(letter if letter.isprintable() or letter in JOINERS else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    # Python keeps a byte that it could not decode as U+DC80 to U+DCFF
    undecoded = 0xDC80 <= ord(letter) <= 0xDCFF
    return f"\\x{ord(letter) - 0xDC00:02x}" if undecoded else letter.encode("unicode_escape").decode("ascii")


class _Printable(logging.Filter):
    """Makes every line of the package's log printable: file names come from anywhere."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage()), ()
        return True


logging.getLogger("imtalker").addFilter(_Printable())
