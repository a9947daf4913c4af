"""Fetching from a small local server: stopped, stalled, cut off, changed, and servers that cannot resume."""

import hashlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imtalker.weights import fetch as fetching
from imtalker.weights.fetch import FetchFailed, WrongContent, fetch

CONTENT = bytes(range(256)) * 8000  # 2 MB


class Cancelled(Exception):
    """What ComfyUI raises when the artist stops the run."""


@dataclass
class Shelf:
    """What the server has, and how it behaves."""

    content: bytes = CONTENT
    tag: str = '"one"'
    ranges: bool = True
    cut: int | None = None  # bytes after which a connection ends
    stall: int | None = None  # byte of the file after which nothing more comes
    redirect: bool = False  # as Hugging Face does, with the tag in the first answer
    asked: list = field(default_factory=list)  # the Range of each request
    release: threading.Event = field(default_factory=threading.Event)


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        shelf = self.server.shelf
        if shelf.redirect and self.path == "/file":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("X-Linked-ETag", shelf.tag)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        asked = self.headers.get("Range")
        shelf.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and shelf.ranges else 0
        if start and start >= len(shelf.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(shelf.content)}")
        else:
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(shelf.content) - 1}/{len(shelf.content)}")
            self.send_header("Content-Length", str(len(shelf.content) - start))
        if not shelf.redirect and shelf.tag:
            self.send_header("ETag", shelf.tag)
        self.end_headers()
        body = shelf.content[start:]
        end = min(shelf.cut or len(body), len(body) if shelf.stall is None else max(0, shelf.stall - start))
        self.wfile.write(body[:end])
        if shelf.stall is not None:
            shelf.release.wait(10)

    def log_message(self, *args):
        pass


@pytest.fixture
def shelf():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.shelf = Shelf()
    server.shelf.url = f"http://127.0.0.1:{server.server_port}/file"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.shelf
    server.shelf.release.set()
    server.shutdown()
    server.server_close()


def nothing(done, size):
    pass


def stop_after(count):
    def tick(done, size):
        if done >= count:
            raise Cancelled

    return tick


def interrupted(shelf, path, count=500_000):
    with pytest.raises(Cancelled):
        fetch(shelf.url, path, stop_after(count))
    assert not path.exists()
    (part,) = path.parent.iterdir()
    return part.stat().st_size


@pytest.mark.parametrize("redirect", [False, True])
def test_a_stopped_fetch_goes_on_where_it_was(shelf, tmp_path, redirect):
    shelf.redirect = redirect
    path, told = tmp_path / "file", []
    have = interrupted(shelf, path)
    assert 500_000 <= have < len(CONTENT)
    fetch(shelf.url, path, lambda *sizes: told.append(sizes))
    assert shelf.asked == [None, f"bytes={have}-"]
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]
    assert min(done for done, _ in told) >= have
    assert told[-1][0] == len(CONTENT)


def test_a_changed_file_starts_anew(shelf, tmp_path):
    path = tmp_path / "file"
    interrupted(shelf, path)
    shelf.content, shelf.tag = CONTENT[::-1], '"two"'
    fetch(shelf.url, path, nothing)
    assert path.read_bytes() == CONTENT[::-1]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("ranges", "tag"), [(False, '"one"'), (True, "")], ids=["no ranges", "no tag"])
def test_a_server_that_cannot_resume_starts_anew(shelf, tmp_path, ranges, tag):
    shelf.ranges, shelf.tag = ranges, tag
    path = tmp_path / "file"
    interrupted(shelf, path)
    fetch(shelf.url, path, nothing)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_part_needs_only_its_name(shelf, tmp_path):
    path = tmp_path / "file"
    interrupted(shelf, path, len(CONTENT))
    fetch(shelf.url, path, nothing)
    assert path.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_starts_anew(shelf, tmp_path):
    path = tmp_path / "file"
    interrupted(shelf, path)
    (part,) = tmp_path.iterdir()
    part.write_bytes(CONTENT + b"more")
    fetch(shelf.url, path, nothing)
    assert path.read_bytes() == CONTENT


def test_a_connection_that_ends_early_is_made_again(shelf, tmp_path):
    shelf.cut = 700_000
    fetch(shelf.url, tmp_path / "file", nothing)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(shelf.asked) == 3


def test_a_stalled_server_can_be_left_at_once_and_is_given_up_in_time(shelf, tmp_path, monkeypatch):
    shelf.stall = 300_000
    started = time.monotonic()

    def tick(done, size):
        if time.monotonic() - started > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetch(shelf.url, tmp_path / "file", tick)
    assert time.monotonic() - started < 2
    monkeypatch.setattr(fetching, "SILENT_SECONDS", 0.2)
    with pytest.raises(FetchFailed, match="timed out"):
        fetch(shelf.url, tmp_path / "other", nothing)


def test_a_connection_that_is_not_made_can_be_left_at_once(tmp_path):
    started = time.monotonic()

    def tick(done, size):
        if time.monotonic() - started > 0.3:
            raise Cancelled

    with pytest.raises((Cancelled, FetchFailed)):  # an address that nobody answers, or none at all without a network
        fetch("http://192.0.2.1/file", tmp_path / "file", tick)
    assert time.monotonic() - started < 2


def test_a_refusal_is_said(shelf, tmp_path):
    with pytest.raises(FetchFailed, match="refused"):
        fetch("http://127.0.0.1:9/file", tmp_path / "file", nothing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("by_hub", [False, True])
def test_another_content_than_expected_is_thrown_away(shelf, tmp_path, by_hub):
    right = hashlib.sha256(CONTENT).hexdigest()
    shelf.tag = f'"{right if by_hub else "one"}"'
    fetch(shelf.url, tmp_path / "file", nothing, () if by_hub else ("0" * 64, right))
    shelf.content = CONTENT[1:]
    with pytest.raises(WrongContent):
        fetch(shelf.url, tmp_path / "wrong", nothing, () if by_hub else (right,))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
