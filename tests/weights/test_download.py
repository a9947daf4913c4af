"""What is downloaded, what is skipped, and the messages, with the real huggingface_hub and a small local hub."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imtalker.errors import InputError
from imtalker.weights import download

ROOT = Path(__file__).parents[2]
NAMES = [file.name for file in download.PUBLISHED]


def fill(folder, names=NAMES):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"already here")


def run(script, folder, **environment):
    """Runs in a new interpreter: huggingface_hub reads its environment once, at its first import."""
    pytest.importorskip("huggingface_hub")
    script = f"from imtalker.weights import download\nfrom pathlib import Path\nto = Path({str(folder)!r})\n{script}"
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "home"), **environment}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


class Hub(BaseHTTPRequestHandler):
    """Enough of the hub to download a file: its content is its own name, 1000 times."""

    def content(self):
        return self.path.rsplit("/", 1)[1].encode() * 1000

    def do_HEAD(self):
        content = self.content()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.content())

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        entries = [{"type": "file", "path": "renderer.ckpt", "size": 4321, "oid": "0" * 40}]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(entries).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_plan_lists_every_file_with_its_size_and_whether_it_is_there(tmp_path, monkeypatch):
    fill(tmp_path, NAMES[:1])
    monkeypatch.setattr(download, "_sizes_on_hub", lambda missing: {})
    plan = download.plan(tmp_path)
    assert [name for name, _, _ in plan] == NAMES
    assert [there for _, _, there in plan] == [True] + [False] * (len(NAMES) - 1)
    assert all(size > 0 for _, size, _ in plan)


def test_nothing_is_fetched_or_even_imported_when_everything_is_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    fill(tmp_path)
    assert download.download(tmp_path) == [tmp_path / name for name in NAMES]
    assert all(there for _, _, there in download.plan(tmp_path))


def test_without_the_hub_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        download.download(tmp_path)


def test_only_published_files_can_be_downloaded(tmp_path):
    with pytest.raises(InputError, match=r"'\.\./secret' is not a published file"):
        download.download(tmp_path, files=["../secret"])


def test_a_file_that_is_not_the_published_one_is_removed(tmp_path):
    fill(tmp_path)
    with pytest.raises(InputError, match="was removed: download it again"):
        download._verify(download.PUBLISHED[-1], tmp_path / NAMES[-1])
    assert not (tmp_path / NAMES[-1]).exists()
    right = download.PublishedFile("x", "a/b", 12, hashlib.sha256(b"already here").hexdigest())
    download._verify(right, tmp_path / NAMES[0])
    assert (tmp_path / NAMES[0]).exists()


def test_offline_it_lists_every_missing_file_with_its_address_and_path(tmp_path):
    fill(tmp_path, NAMES[:1])
    said = run(
        "print(download.plan(to))\ntry: download.download(to)\nexcept download.InputError as error: print(error)",
        tmp_path,
        HF_HUB_OFFLINE="1",
    )
    assert str(download.PUBLISHED[1].size) in said  # offline the plan falls back to the sizes it knows
    for file in download.PUBLISHED[1:]:
        assert f"https://huggingface.co/{file.repo}/resolve/main/{file.name} to {tmp_path / file.name}" in said
    assert download.PUBLISHED[0].url not in said
    assert len(said.splitlines()) == 2, "the plan, then one sentence"


def test_fetching_reports_progress_keeps_what_is_there_and_refuses_a_wrong_file(tmp_path, hub):
    said = run(
        "told = []\n"
        "names = ['renderer.ckpt', 'wav2vec2-base-960h/config.json']\n"
        "print(download.plan(to)[0])\n"
        "got = download.download(to, lambda *step: told.append(step), names)\n"
        "print([path.stat().st_size for path in got], told[-1],\n"
        "      all(b[1] > a[1] for a, b in zip(told, told[1:]) if a[0] == b[0]))\n"
        "told.clear(); download.download(to, lambda *step: told.append(step), names); print(told)\n"
        "try: download.download(to, files=[download.YUNET_FILE])\n"
        "except download.InputError as error: print(error)",
        tmp_path,
        HF_ENDPOINT=hub,
    ).splitlines()
    assert said[0] == "('renderer.ckpt', 4321, False)"
    assert said[1] == "[13000, 11000] ('wav2vec2-base-960h/config.json', 11000, 11000) True"
    assert said[2] == "[]"
    assert "is not the published file" in said[3]
    assert not (tmp_path / NAMES[-1]).exists()
    assert (tmp_path / "wav2vec2-base-960h/config.json").read_bytes() == b"config.json" * 1000
