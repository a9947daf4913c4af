"""Pickles that cost more than they say are refused before torch reads them, and ordinary ones are read."""

import argparse
import pathlib
import pickle
import random
import time
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch
from readers import random_pickle, reads, write_zipped

from imtalker import InputError
from imtalker.media.tensors import Skipped, read_pickle, read_tensors, save_safetensors
from imtalker.motion.control import load_pose
from imtalker.weights.checkpoints import inspect

TUPLES = b")" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(40))  # nested 40 deep, of 2**40 values
WIDE = b")" + b"".join(b"q\0(" + b"h\0" * 1000 + b"t" for _ in range(4))
COSTLY = {
    "keys of tuples 40 deep": b"}" + TUPLES + b"K\1s",
    "keys of wide tuples": b"}" + WIDE + b"K\1s",
    "a set of them": b"c__builtin__\nset\n" + TUPLES + b"\x85\x85R",
    "tuples 1e6 deep": b")" + b"\x85" * 1_000_000,
    "lists 5000 deep": b"]" * 5000 + b"a" * 4999,
    "a tensor by its size": b"ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R",
    "a storage by its size": b"ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R",
    "a bytearray by its size": b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R",
    "a new tensor": b"ctorch\nTensor\nJ\xff\xff\xff\x7f\x85\x81",
    "quantised": b"ctorch._utils\n_rebuild_qtensor\n)R",
    "without storage": b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R",
    "text that doubles": b"c_codecs\nencode\nX\1\0\0\0aX\3\0\0\0hex\x86R",
    "hidden methods": b"ccollections\nOrderedDict\n)R}X\5\0\0\0itemsK\1sb",
    "too many steps": b"](" + b"N" * 1_100_000 + b"e",
    "a long number": b"I" + b"9" * 100_000 + b"\n",
    "nothing to pop": b"tttt",
    "a memo that is not there": b"h\7",
    "a huge storage": b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuJ\xff\xff\xff\x7ftQ",
}


def legacy(path, content):
    torch.save({"a": 1}, path, _use_new_zipfile_serialization=False)
    with path.open("rb") as file:
        for _ in range(3):
            pickle.load(file)
        start = file.tell()
        pickle.load(file)
        end = file.tell()
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + content + whole[end:])


@pytest.mark.parametrize("write", [write_zipped, legacy])
@pytest.mark.parametrize("name", COSTLY)
def test_costly_pickles_are_refused_at_once(tmp_path, name, write):
    path = tmp_path / "c.ckpt"
    write(path, b"\x80\2" + COSTLY[name] + b".")
    start = time.process_time()
    with pytest.raises(InputError, match=r"c\.ckpt is (refused|truncated)"):
        read_pickle(path)
    assert time.process_time() - start < 10


def test_random_pickles_are_read_or_refused(tmp_path):
    numbers = random.Random(3)
    for count in range(300):
        write = (write_zipped, legacy)[count % 2]
        write(tmp_path / "r.ckpt", random_pickle(numbers))
        reads(read_tensors, tmp_path / "r.ckpt")
        reads(inspect, tmp_path / "r.ckpt")
        reads(load_pose, tmp_path / "r.ckpt")


def test_what_torch_saves_for_training_is_read(tmp_path):
    layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimiser = torch.optim.AdamW(layers.parameters())
    layers(torch.rand(5, 3)).sum().backward()
    optimiser.step()
    tree = {
        "state_dict": layers.state_dict(),
        "optimizer_states": [optimiser.state_dict()],
        "numbers": [1, 2.5, 10**30, True, None, (1, 2), 1j, b"bytes"],
        "others": {(1, 2): {3, 4}, "c": Counter([1, 1]), "o": OrderedDict(a=1), "size": torch.Size([1])},
        "kinds": [torch.device("cpu"), torch.float16],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    for new in (True, False):
        torch.save(tree, tmp_path / "t.ckpt", _use_new_zipfile_serialization=new)
        found = read_pickle(tmp_path / "t.ckpt")
        assert found["numbers"] == tree["numbers"]
        assert found["others"] == tree["others"]
        assert found["optimizer_states"][0]["state"].keys() == {0, 1, 2, 3}
        for name, tensor in layers.state_dict().items():
            assert torch.equal(found["state_dict"][name], tensor)


def test_unknown_classes_are_skipped(tmp_path, caplog):
    tree = {"w": torch.ones(2), "hyper_parameters": argparse.Namespace(lr=1), "path": pathlib.PurePosixPath("/a")}
    torch.save(tree, tmp_path / "t.ckpt")
    found = read_pickle(tmp_path / "t.ckpt")
    assert torch.equal(found["w"], torch.ones(2))
    assert isinstance(found["hyper_parameters"], Skipped)
    assert "argparse.Namespace" in caplog.text


def test_archives_that_hold_a_part_twice_are_refused(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "t.ckpt")
    with zipfile.ZipFile(tmp_path / "t.ckpt", "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(name, archive.read(name))
    with pytest.raises(InputError, match="one part of it twice"):
        read_pickle(tmp_path / "t.ckpt")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"GGUF\3\0\0\0" + bytes(40), "GGUF"),
        (b"\x93NUMPY\1\0" + bytes(40), "NumPy"),
        (b"\x89HDF\r\n" + bytes(40), "HDF5"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"a".ljust(257, b"\0") + b"ustar" + bytes(300), "tar archive"),
        (pickle.dumps({"a": 1}), "a pickle of something else than weights"),
    ],
)
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_other_kinds_of_files_are_named(tmp_path, content, kind, suffix):
    (tmp_path / f"w.{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=kind if suffix == "ckpt" or b"\x80" not in content[:1] else "truncated"):
        read_tensors(tmp_path / f"w.{suffix}")


def test_a_torchscript_program_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.pt", "w") as archive:
        for name in ("s/data.pkl", "s/constants.pkl", "s/code/a.py"):
            archive.writestr(name, b"\x80\2}.")
    with pytest.raises(InputError, match="TorchScript"):
        read_pickle(tmp_path / "s.pt")


def test_a_renamed_file_is_read_by_its_content(tmp_path):
    save_safetensors(tmp_path / "a.safetensors", {"w": torch.ones(2)}, {"kind": "x"})
    (tmp_path / "a.safetensors").rename(tmp_path / "a.ckpt")
    assert read_tensors(tmp_path / "a.ckpt")[1]["kind"] == "x"
    torch.save({"w": torch.ones(2)}, tmp_path / "b.safetensors")
    assert torch.equal(read_tensors(tmp_path / "b.safetensors")[0]["w"], torch.ones(2))
