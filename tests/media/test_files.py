"""What may be read and written: only ordinary files, any name, no output that is an input, one run at a time."""

import builtins
import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from readers import good_files

from imtalker import InputError, Motion
from imtalker.media.atomic import only_run, whole_file
from imtalker.media.files import check_output, regular_file, sha256_of
from imtalker.media.tensors import read_pickle, read_tensors
from imtalker.media.video_writer import write_video

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
NAMES = [
    os.fsdecode(b"\xc7\xfd\xb6\xaf"),
    "two\nlines\r",
    "x" * 240,
    "\U0001f600" * 50,
    "dots. . ",
    "con",
    "\u05e9\u05dc\u05d5\u05dd\u202egnp",
    "-o",
    "%03d",
    "a:b*?",
]


@pytest.fixture(scope="module")
def good(inputs, tmp_path_factory):
    return list(good_files(tmp_path_factory.mktemp("good"), inputs).values())


@pytest.fixture
def endless(tmp_path):
    """Paths that are there but never end, or are no files."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "empty").touch()
    (tmp_path / "to_zero").symlink_to("/dev/zero")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(tmp_path / "socket"))
    found = [tmp_path / name for name in ("pipe", "folder", "circle", "empty", "to_zero", "socket", "none", "x" * 300)]
    yield [*found, Path("/dev/zero"), Path("/proc/kmsg"), Path("/proc/kcore"), Path("/proc/self/mem"), Path("a\0b")]
    server.close()


@posix
def test_only_ordinary_files_are_read(endless, good):
    readers = {read: None for _, read in good}
    for path in endless:
        for read in (regular_file, sha256_of, read_tensors, read_pickle, *readers):
            with pytest.raises(InputError) as refusal:
                read(path)
            assert str(refusal.value).isprintable()


@posix
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_every_name_is_saved_and_loaded(good, tmp_path, name):
    for source, read in good:
        path = tmp_path / f"{name}{source.suffix}"
        path.write_bytes(source.read_bytes())
        if source.suffix == ".csv":
            continue
        read(path)
        path.unlink()
    Motion(torch.rand(3, 32)).save(tmp_path / f"{name}.safetensors")
    assert len(Motion.load(tmp_path / f"{name}.safetensors")) == 3
    write_video(tmp_path / f"{name}.mp4", torch.rand(2, 16, 16, 3), 25)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


ERRORS = ["EACCES", "EPERM", "EROFS", "ENOSPC", "ENAMETOOLONG", "ELOOP", "EISDIR", "EMFILE", "EIO", "ENOENT", "ENOTDIR"]


def failing(monkeypatch, code, where):
    """Makes every opening of a path that contains `where` fail, as root may open everything."""
    real_open, real_os_open = builtins.open, os.open

    def fail(real):
        def opened(path, *arguments, **options):
            if not isinstance(path, int) and where in os.fspath(path):
                raise OSError(code, os.strerror(code), os.fspath(path))
            return real(path, *arguments, **options)

        return opened

    monkeypatch.setattr(builtins, "open", fail(real_open))
    monkeypatch.setattr("io.open", fail(real_open))
    monkeypatch.setattr(os, "open", fail(real_os_open))


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_of_the_system_is_one_sentence(good, tmp_path, monkeypatch, name):
    failing(monkeypatch, getattr(errno, name), "good")
    for path, read in good:
        assert "good" in str(path)
        with pytest.raises(InputError, match=path.name):
            read(path)


@pytest.mark.parametrize("name", ERRORS)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, name):
    (tmp_path / "o.mp4").write_bytes(b"older")
    failing(monkeypatch, getattr(errno, name), "o.probe")
    with pytest.raises(InputError, match=r"o\.mp4 cannot be written|no folder"):
        check_output(tmp_path / "o.mp4")
    with pytest.raises(InputError), whole_file(tmp_path / "o.mp4"):
        raise AssertionError("work was begun")
    monkeypatch.undo()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


@posix
def test_outputs_that_are_no_files_are_refused(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "zero.mp4").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("folder.mp4", "zero.mp4", "pipe.mp4", "x" * 300, "none/o.mp4", "a\0b"):
        with pytest.raises(InputError):
            check_output(tmp_path / name)
    assert os.path.exists("/dev/null")
    assert len(list(tmp_path.iterdir())) == 3


@posix
def test_an_output_is_none_of_the_inputs(tmp_path):
    source = tmp_path / "in.mp4"
    source.write_bytes(b"mine")
    os.link(source, tmp_path / "hard.mp4")
    (tmp_path / "soft.mp4").symlink_to(source)
    (tmp_path / "sub").mkdir()
    for name in ("in.mp4", "hard.mp4", "soft.mp4", "sub/../in.mp4"):
        with pytest.raises(InputError, match="also an input"):
            check_output(tmp_path / name, inputs=[source])
    assert check_output(tmp_path / "other.mp4", inputs=[source, tmp_path / "none"]) == tmp_path / "other.mp4"


def test_a_folder_that_is_removed_meanwhile_is_one_sentence(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match="removed or renamed meanwhile"), whole_file(folder / "o.txt"):
        folder.rename(tmp_path / "renamed")
    assert not list((tmp_path / "renamed").glob("o*"))


HOLD = """
import sys, time
from imtalker.media.atomic import only_run
with only_run(sys.argv[1]):
    print(1, flush=True)
    time.sleep(60)
"""


def test_one_run_at_a_time_and_a_dead_one_leaves_no_lock(tmp_path):
    path = tmp_path / "o.mp4"
    root = Path(__file__).parents[2]
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], cwd=root, stdout=subprocess.PIPE)
    other.stdout.readline()
    with pytest.raises(InputError, match="Another run is writing"), only_run(path):
        pass
    other.kill()
    other.communicate()
    with only_run(path), pytest.raises(InputError, match="Another run is writing"), only_run(path):
        pass
    assert not list(tmp_path.iterdir())


def test_threads_write_one_file_one_after_the_other(tmp_path):
    writing, go_on = threading.Event(), threading.Event()

    def write():
        with whole_file(tmp_path / "o.txt") as temporary:
            temporary.write_text("first")
            writing.set()
            go_on.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    writing.wait(10)
    with pytest.raises(InputError, match="Another run is writing"), whole_file(tmp_path / "o.txt"):
        pass
    go_on.set()
    thread.join()
    with whole_file(tmp_path / "o.txt") as temporary:
        temporary.write_text("second")
    assert (tmp_path / "o.txt").read_text() == "second"
