"""Listings of large folders, and the temporary files that links lead to."""

import gc
import os
import sys
import time
import types

import pytest


@pytest.fixture
def listing(pack):
    return pack("nodes.listing").Listing((".safetensors", ".npy"))


SUFFIX = (".safetensors",)


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


class TestListing:
    def test_names_are_sorted_relative_and_of_the_suffix(self, listing, tmp_path):
        fill(
            tmp_path,
            "b.safetensors",
            "a.NPY",
            "sub/deep/c.SAFETENSORS",
            "d.png",
            ".e.partial-1.safetensors",
            ".f/g.npy",
        )
        assert listing.files(str(tmp_path), SUFFIX) == ["b.safetensors", "sub/deep/c.SAFETENSORS"]
        assert listing.files(str(tmp_path), (".npy",)) == ["a.NPY"]
        assert listing.files(str(tmp_path / "nowhere"), SUFFIX) == []

    def test_new_moved_and_removed_files_are_seen_at_once(self, listing, tmp_path):
        root = str(tmp_path)
        for number in range(20):  # faster than the clock of most file systems
            fill(tmp_path, f"sub/{number}.safetensors")
            assert len(listing.files(root, SUFFIX)) == number + 1
        (tmp_path / "sub/0.safetensors").unlink()
        (tmp_path / "sub/1.safetensors").rename(tmp_path / "top.safetensors")
        names = listing.files(root, SUFFIX)
        assert len(names) == 19
        assert names[-1] == "top.safetensors"
        (tmp_path / "sub").rename(tmp_path / "other")
        assert listing.files(root, SUFFIX)[0].startswith("other/")

    def test_links_are_followed_but_not_round_in_circles(self, listing, tmp_path):
        fill(tmp_path, "far/x.safetensors", "here/y.safetensors")
        (tmp_path / "here/link").symlink_to(tmp_path / "far", target_is_directory=True)
        (tmp_path / "far/back").symlink_to(tmp_path / "here", target_is_directory=True)
        (tmp_path / "here/dangling.safetensors").symlink_to(tmp_path / "nothing")
        names = listing.files(str(tmp_path / "here"), SUFFIX)
        assert names == ["link/x.safetensors", "y.safetensors"]

    def test_a_folder_is_listed_once_by_its_own_path(self, listing, tmp_path):
        names = "abcdefghijklmnop"
        fill(tmp_path, *(f"{name}/{name}.safetensors" for name in names))
        for name in names:  # every folder in every other: 16! paths
            for other in names:
                (tmp_path / name / f"a{other}").symlink_to(tmp_path / other, target_is_directory=True)
        (tmp_path / "0").symlink_to(tmp_path / "a", target_is_directory=True)
        assert listing.files(str(tmp_path), SUFFIX) == [f"{name}/{name}.safetensors" for name in names]

    def test_a_link_to_itself_hides_no_file(self, listing, tmp_path):
        fill(tmp_path, "x.safetensors", "folder.safetensors/y.npy")
        for name in ("loop", "loop.safetensors"):
            (tmp_path / name).symlink_to(tmp_path / name)
        os.mkfifo(tmp_path / "pipe.safetensors")
        assert listing.files(str(tmp_path), SUFFIX) == ["x.safetensors"]
        assert listing.files(str(tmp_path), (".npy",)) == ["folder.safetensors/y.npy"]

    def test_any_bytes_and_no_permission(self, listing, tmp_path):
        raw = os.fsencode(tmp_path) + b"/\xc7\xfd\xb6\xaf.safetensors"
        os.close(os.open(raw, os.O_CREAT))
        fill(tmp_path, "closed/z.safetensors")
        (tmp_path / "closed").chmod(0)
        try:
            assert os.fsdecode(raw).split("/")[-1] in listing.files(str(tmp_path), SUFFIX)
        finally:
            (tmp_path / "closed").chmod(0o700)

    def test_a_large_folder_is_read_once(self, listing, tmp_path, monkeypatch):
        names = [f"{number:05}.png" for number in range(3_000)]
        for name in [*names, "a.safetensors"]:
            os.close(os.open(tmp_path / name, os.O_CREAT))
        time.sleep(0.2)
        start = time.perf_counter()
        assert listing.files(str(tmp_path), SUFFIX) == ["a.safetensors"]
        first = time.perf_counter() - start
        monkeypatch.setattr(os, "scandir", lambda path: pytest.fail("read again"))
        start = time.perf_counter()
        for _ in range(20):
            listing.files(str(tmp_path), SUFFIX)
        assert (time.perf_counter() - start) / 20 < first / 10


class TestTemporaryFiles:
    @pytest.fixture
    def temporary(self, pack, tmp_path, monkeypatch):
        monkeypatch.setitem(
            sys.modules, "folder_paths", types.SimpleNamespace(get_temp_directory=lambda: str(tmp_path / "temp"))
        )
        yield pack("nodes.temporary")
        del sys.modules["pack.nodes.temporary"]

    def write(self, temporary):
        path = temporary.new_temporary(".mp4")
        with open(path, "wb") as file:
            file.write(b"video")
        return temporary.handed_out(path)

    def test_files_that_nothing_leads_to_are_deleted_but_for_a_few(self, temporary, tmp_path):
        kept = self.write(temporary)
        for _ in range(20):
            self.write(temporary)
        assert len(list((tmp_path / "temp").iterdir())) <= temporary.KEPT + 2
        assert os.path.exists(kept)

    def test_a_trimmed_video_keeps_the_file(self, temporary):
        class Video:  # as ComfyUI's, which stores the path and hands the same object on
            def __init__(self, file):
                self.file = file

        whole = Video(self.write(temporary))
        name, trimmed = str(whole.file), Video(whole.file)
        del whole
        for _ in range(20):
            self.write(temporary)
        gc.collect()
        assert os.path.exists(name)
        assert isinstance(trimmed.file, str)

    def test_the_fingerprint_changes_once_when_a_file_is_lost(self, temporary):
        first, second = self.write(temporary), self.write(temporary)
        before = temporary.lost_files()
        assert temporary.lost_files() == before
        os.unlink(first)
        after = temporary.lost_files()
        assert after != before
        assert temporary.lost_files() == after
        assert os.path.exists(second)
        unwritten = temporary.new_temporary(".mp4")  # a render that failed
        assert temporary.lost_files() == after
        assert not os.path.exists(unwritten)
