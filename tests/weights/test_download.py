"""What is downloaded, what is skipped, and the messages, with a small local hub; test_fetch.py has the transfer."""

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imtalker.errors import InputError
from imtalker.face.detectors import DetectorMissing
from imtalker.weights import download

NAMES = [file.name for file in download.PUBLISHED]


def fill(folder, names=NAMES):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"already here")


class Hub(BaseHTTPRequestHandler):
    """Enough of the hub to download a file: its content is its own name, 1000 times."""

    def content(self):
        return self.path.rsplit("/", 1)[1].encode() * 1000

    def do_HEAD(self):
        content = self.content()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.content())

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    yield
    server.shutdown()
    server.server_close()


def test_plan_lists_every_file_with_its_size_and_whether_it_is_there(tmp_path, monkeypatch):
    fill(tmp_path, NAMES[:1])
    monkeypatch.setattr(download, "_sizes_on_hub", lambda missing: {})
    plan = download.plan(tmp_path)
    assert [name for name, _, _ in plan] == NAMES
    assert [there for _, _, there in plan] == [True] + [False] * (len(NAMES) - 1)
    assert all(size > 0 for _, size, _ in plan)


def test_nothing_is_asked_for_when_everything_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *args: pytest.fail("everything is there"))
    monkeypatch.setattr(download, "size_of", lambda *args: pytest.fail("everything is there"))
    fill(tmp_path)
    assert download.download(tmp_path) == [tmp_path / name for name in NAMES]
    assert all(there for _, _, there in download.plan(tmp_path))


def test_only_published_files_can_be_downloaded(tmp_path):
    with pytest.raises(InputError, match=r"'\.\./secret' is not a published file"):
        download.download(tmp_path, files=["../secret"])


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_it_lists_every_missing_file_with_its_address_and_path(tmp_path, monkeypatch, switch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(switch, "1")
    fill(tmp_path, NAMES[:1])
    assert download.plan(tmp_path)[1][1] == download.PUBLISHED[1].size  # the sizes that it knows
    with pytest.raises(InputError) as error:
        download.download(tmp_path)
    for file in download.PUBLISHED[1:]:
        assert f"https://huggingface.co/{file.repo}/resolve/main/{file.name} to {tmp_path / file.name}" in str(
            error.value
        )
    assert download.PUBLISHED[0].url not in str(error.value)
    # of what a loader needs, all that is missing, but not wav2vec2, which its file includes
    with pytest.raises(InputError) as error:
        download.download(tmp_path, files=["generator.ckpt"])
    assert "generator.ckpt to" in str(error.value)
    assert f"{download.DETECTOR.name} to" in str(error.value)
    assert "wav2vec2" not in str(error.value)


def test_fetching_reports_progress_keeps_what_is_there_and_refuses_a_wrong_file(tmp_path, hub):
    told, names = [], ["renderer.ckpt", "wav2vec2-base-960h/config.json"]
    assert download.plan(tmp_path)[0] == ("renderer.ckpt", 13_000, False)
    got = download.download(tmp_path, lambda *step: told.append(step), names)
    assert [path.stat().st_size for path in got] == [13_000, 11_000]
    assert told[-1] == ("wav2vec2-base-960h/config.json", 11_000, 11_000)
    assert (tmp_path / "wav2vec2-base-960h/config.json").read_bytes() == b"config.json" * 1000
    told.clear()
    download.download(tmp_path, lambda *step: told.append(step), names)
    assert told == []
    for get in (
        lambda: download.download(tmp_path, files=[download.DETECTOR.name]),
        lambda: download.fetch_detector(tmp_path),
    ):
        with pytest.raises(InputError, match=r"not the published file|cannot be downloaded"):
            get()
    assert not (tmp_path / download.DETECTOR.name).exists()


def test_the_detector_is_fetched_into_a_new_folder_or_its_address_and_folder_are_said(
    tmp_path, hub, monkeypatch, caplog
):
    content = Hub.content(type("Asked", (), {"path": download.DETECTOR.url}))
    right = replace(download.DETECTOR, sha256=("0" * 64, hashlib.sha256(content).hexdigest()))
    with monkeypatch.context() as patch:
        patch.setattr(download, "DETECTOR", right)
        assert download.fetch_detector(tmp_path / "new").read_bytes() == content
    assert f"downloading the face detector (0.2 MB) to {tmp_path / 'new'}" in caplog.text
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DetectorMissing, match="cannot be downloaded") as error:
        download.fetch_detector(tmp_path)
    assert f"put {download.DETECTOR.url} into {tmp_path}, or " in str(error.value)
