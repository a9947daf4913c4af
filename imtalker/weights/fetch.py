"""One file over HTTP: it stops at once, goes on where it stopped, and is in place only when whole and right.

Plain urllib: huggingface_hub deletes what it has when it is interrupted, and cannot be stopped while it connects.
"""

import contextlib
import functools
import hashlib
import os
import queue
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path

CHUNK = 1 << 18  # bytes
SILENT_SECONDS = 20.0  # without a byte, after which a connection counts as broken
TICK_SECONDS = 0.2  # between calls of `tick` while nothing arrives

Tick = Callable[[int, int | None], None]  # bytes so far, bytes in all if known


class FetchFailed(Exception):
    """The file did not arrive; the message says why, in a few words."""


class WrongContent(FetchFailed):
    """The file that arrived is not the right one."""


class _Broken(Exception):
    """A connection failed or ended early."""


def fetch(url: str, path: str | Path, tick: Tick, sha256: Collection[str] = ()) -> None:
    """Fetches `url` into `path`, whose folder exists.

    What has arrived waits beside it in a .partial file and is used next time, if the server still has the same content.
    tick: called several times a second, also while nothing arrives; an exception from it stops the transfer.
    sha256: the hashes that are right; without any, the server's own where it gives one.
    FetchFailed: no connection, or a refusal. WrongContent: another hash; the file is gone. OSError: the disk.
    """
    path = Path(path)
    while True:
        had = _kept(path)
        try:
            part, tag = _receive(url, path, tick)
            break
        except _Broken as broken:
            if _kept(path) <= had:  # connect again only as long as that brings something
                raise FetchFailed(str(broken)) from broken
    known = sha256 or ([tag] if re.fullmatch(r"[0-9a-f]{64}", tag) else [])
    if known and _sha256(part, tick) not in known:
        part.unlink()
        raise WrongContent("its SHA-256 differs")
    os.replace(part, path)


def size_of(url: str) -> int | None:
    """The size in bytes of what is behind `url`; None if the server does not say. FetchFailed: no answer."""
    try:
        with _open(url, "HEAD") as (response, redirects):
            size = redirects.size or response.headers.get("Content-Length")
            return int(size) if size else None
    except (OSError, HTTPException, ValueError) as error:
        raise FetchFailed(_reason(error)) from error


def _receive(url: str, path: Path, tick: Tick) -> tuple[Path, str]:
    """One connection: adds to the .partial file; returns it and the content's tag when it is whole."""
    part = _existing_part(path)
    if part == _part(path, ""):  # from a server that does not tell one content from another
        part.unlink()
        part = None
    have = part.stat().st_size if part else 0
    connection = _Connection(url, have)
    try:
        answer = connection.next(partial(tick, have, None))
        if part and (part != _part(path, answer.tag) or answer.start != have):
            part.unlink()
            if answer.start:  # the rest of another content
                return _receive(url, path, tick)
        part, done = _part(path, answer.tag), answer.start
        with open(part, "ab" if done else "wb") as file:
            while chunk := connection.next(partial(tick, done, answer.size)):
                file.write(chunk)
                done += len(chunk)
                tick(done, answer.size)
    finally:
        connection.close()
    if answer.size is not None and done != answer.size:
        raise _Broken(f"the connection ended after {done:,} of {answer.size:,} bytes")
    return part, answer.tag


def _part(path: Path, tag: str) -> Path:
    """The .partial file of a content with this tag."""
    return path.with_name(f"{path.name}.{hashlib.sha256(tag.encode()).hexdigest()[:16]}.partial")


def _existing_part(path: Path) -> Path | None:
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}\.partial")
    return next((other for other in sorted(path.parent.iterdir()) if pattern.fullmatch(other.name)), None)


def _kept(path: Path) -> int:
    """Bytes that have arrived so far."""
    part = _existing_part(path)
    return part.stat().st_size if part else 0


def _sha256(path: Path, tick: Tick) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with open(path, "rb") as file:
        while block := file.read(16 * CHUNK):
            digest.update(block)
            tick(size, size)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Answer:
    """How a server answers: the content's tag, "" for none; the first byte that it sends; the content's size."""

    tag: str
    start: int
    size: int | None


class _Connection:
    """Receives in a thread of its own, so that whoever waits for it can stop at any moment."""

    def __init__(self, url: str, start: int):
        self.items: queue.Queue = queue.Queue(16)  # an _Answer, then chunks, then b"" or an exception
        self.closed = threading.Event()
        threading.Thread(target=self._run, args=(url, start), daemon=True).start()

    def next(self, idle: Callable[[], None]) -> _Answer | bytes:
        """What comes next; calls `idle` while nothing does. _Broken: the connection is."""
        while True:
            try:
                item = self.items.get(timeout=TICK_SECONDS)
            except queue.Empty:
                idle()
                continue
            if isinstance(item, Exception):
                raise _Broken(_reason(item)) from item
            return item

    def close(self) -> None:
        self.closed.set()

    def _run(self, url: str, start: int) -> None:
        try:
            for item in _answered(url, start):
                self._put(item)
            self._put(b"")
        except _Closed:
            pass
        except Exception as error:  # whatever it is, the waiting thread says it
            with contextlib.suppress(_Closed):
                self._put(error)

    def _put(self, item: object) -> None:
        while not self.closed.is_set():
            with contextlib.suppress(queue.Full):
                return self.items.put(item, timeout=TICK_SECONDS)
        raise _Closed


class _Closed(Exception):
    """Nobody waits for this connection any more."""


def _answered(url: str, start: int) -> Iterator[_Answer | bytes]:
    """The answer to a request for the content from byte `start` on, then the content in chunks."""
    try:
        with _open(url, start=start) as (response, redirects):
            ranges = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if response.status == 206 and ranges:
                first, size = int(ranges[1]), ranges[2]
            else:
                first, size = 0, response.headers.get("Content-Length", "")
            yield _Answer(redirects.tag_of(response.headers), first, int(size) if size.isdigit() else None)
            while chunk := response.read1(CHUNK):
                yield chunk
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        size = error.headers.get("Content-Range", "").removeprefix("bytes */")  # nothing from `start` on
        yield _Answer(error.redirects.tag_of(error.headers), int(size) if size.isdigit() else -1, None)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps what Hugging Face says of the content before it sends us elsewhere."""

    tag = size = None

    def redirect_request(self, request, file, code, message, headers, address):
        self.tag = headers.get("X-Linked-ETag", self.tag)
        self.size = headers.get("X-Linked-Size", self.size)
        return super().redirect_request(request, file, code, message, headers, address)

    def tag_of(self, headers) -> str:
        return (self.tag or headers.get("X-Linked-ETag") or headers.get("ETag") or "").removeprefix("W/").strip('"')


@contextlib.contextmanager
def _open(url: str, method: str = "GET", start: int = 0) -> Iterator[tuple[HTTPResponse, _Redirects]]:
    request = urllib.request.Request(url, method=method, headers={"Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    if token := os.environ.get("HF_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects, urllib.request.HTTPSHandler(context=_certificates()))
    try:
        with opener.open(request, timeout=SILENT_SECONDS) as response:
            yield response, redirects
    except urllib.error.HTTPError as error:
        error.redirects = redirects
        raise


@functools.cache
def _certificates() -> ssl.SSLContext:
    """The system's certificates and, where it is installed, certifi's: Python on macOS comes without any."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        error = error.reason
    return (str(error) or type(error).__name__).strip().splitlines()[0]
