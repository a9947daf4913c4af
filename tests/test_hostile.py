"""Malicious files: each is refused with a sentence before it takes memory, runs code or opens another file."""

import io
import json
import pickle
import random
import shutil
import struct
import zipfile
import zlib

import av
import numpy as np
import pytest
import torch
from PIL import Image
from readers import corrupt, good_files, read_control, read_motion, reads

from imtalker import InputError
from imtalker.media import audio
from imtalker.media.image import read_image
from imtalker.media.tensors import read_pickle, save_safetensors
from imtalker.media.video import VideoReader
from imtalker.media.video_writer import write_video
from imtalker.motion import keyframes
from imtalker.motion.control import load_gaze, load_pose
from imtalker.weights.checkpoints import inspect, load_l2cs

CASES = 16  # per reader; `make fuzz` runs hundreds


@pytest.fixture(scope="module")
def good(inputs, tmp_path_factory):
    return good_files(tmp_path_factory.mktemp("good"), inputs)


def test_corrupted_files_are_read_or_refused(good, tmp_path):
    numbers = random.Random(6)
    refused = 0
    for name, (path, read) in good.items():
        read(path)
        for _ in range(CASES):
            (tmp_path / name).write_bytes(corrupt(path.read_bytes(), numbers))
            refused += not reads(read, tmp_path / name)
    assert refused > CASES * len(good) / 2


def test_a_zip_bomb_is_refused(tmp_path):
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, stream)
    with zipfile.ZipFile(stream) as original, zipfile.ZipFile(tmp_path / "b.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in original.namelist():
            bomb.writestr(entry, original.read(entry) + bytes(100_000_000 if entry.endswith(".pkl") else 0))
    assert (tmp_path / "b.ckpt").stat().st_size < 1_000_000
    with pytest.raises(InputError, match="unpacks to more"):
        read_pickle(tmp_path / "b.ckpt")


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("size", [10**11, 10])
def test_a_pickle_that_would_make_gigabytes_is_refused(tmp_path, zipped, size):
    path = tmp_path / "b.pt"
    torch.save({"pose_params": Call(bytearray, size)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="bytearray"):
        load_pose(path)


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    torch.save({"pose_params": torch.zeros(1, 3).expand(10**10, 3)}, tmp_path / "p.pt")
    with pytest.raises(InputError, match="but must hold"):
        load_pose(tmp_path / "p.pt")
    torch.save({"state_dict": {"model.fmt.a": torch.zeros(1).expand(10**12)}}, tmp_path / "g.ckpt")
    assert inspect(tmp_path / "g.ckpt").problems


@pytest.mark.parametrize(
    "tree",
    [
        {"state_dict": torch.zeros(3)},
        {"state_dict": [1, 2]},
        {"state_dict": {"model": 3, 7: torch.zeros(1)}},
        {"state_dict": {"fmt.x": torch.zeros(3, 3).to_sparse()}, "ema_state_dict": 5},
    ],
)
def test_checkpoints_without_a_dictionary_of_tensors_have_no_weights(tmp_path, tree):
    torch.save(tree, tmp_path / "c.ckpt")
    assert "without any weights" in inspect(tmp_path / "c.ckpt").weights.describe()


def test_a_pickle_never_runs_code(tmp_path):
    torch.save({"pose_params": Call(open, str(tmp_path / "was_here"), "w")}, tmp_path / "p.pt")
    with pytest.raises(InputError):
        load_pose(tmp_path / "p.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Call(open, str(tmp_path / "was_here"), "w")))
    with pytest.raises(InputError):
        load_pose(tmp_path / "raw.pt")
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 2), }",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000, 2), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 300 + ")" * 300 + ", }",
    ],
)
def test_npy_headers_that_lie_are_refused(tmp_path, header):
    text = header.encode() + b"\n"
    (tmp_path / "g.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(80))
    with pytest.raises(InputError):
        load_gaze(tmp_path / "g.npy")


def test_numpy_files_of_other_types_are_converted_or_refused(tmp_path):
    np.savez_compressed(tmp_path / "z.npz", a=np.zeros((9, 2)))
    shutil.move(tmp_path / "z.npz", tmp_path / "z.npy")
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "big_endian.npy", np.ones((9, 2), ">f8"))
    for name in ("z.npy", "words.npy"):
        with pytest.raises(InputError, match=r"not a (readable )?\.npy"):
            load_gaze(tmp_path / name)
    assert torch.equal(load_gaze(tmp_path / "big_endian.npy"), torch.ones(9, 2))


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"pose": torch.ones(4, 3)}, {}),
        ({"pose": torch.ones(4, 3)}, {"fps": "quick"}),
        ({"pose": torch.ones(4, 3)}, {"fps": "nan"}),
        ({"pose": torch.ones(4, 3)}, {"fps": "1e-9"}),  # four rows that claim to last a century
        ({"pose": torch.ones(4, 3)}, {"fps": "25", "pose_strength": "strong"}),
        ({"nose": torch.ones(4, 3)}, {"fps": "25"}),
        ({"pose": torch.ones(4, 3, dtype=torch.int64)}, {"fps": "25"}),
        ({"pose": torch.ones(4, 3).to(torch.float8_e4m3fn)}, {"fps": "25"}),
        ({"pose": torch.ones(4)}, {"fps": "25"}),
    ],
)
def test_control_files_that_lie_are_refused(tmp_path, tensors, metadata):
    save_safetensors(tmp_path / "c.safetensors", tensors, {"kind": "control", **metadata})
    with pytest.raises(InputError):
        read_control(tmp_path / "c.safetensors")


@pytest.mark.parametrize("metadata", [{"fps": "25"}, {"generation": "v2"}, {"fps": "25", "generation": "<b>v9</b>"}])
def test_motion_files_that_lie_are_refused(tmp_path, metadata):
    save_safetensors(tmp_path / "m.safetensors", {"latents": torch.ones(4, 32)}, {"kind": "motion", **metadata})
    with pytest.raises(InputError):
        read_motion(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "config",
    ["[" * 5000, "3", "null", '{"generation": "v2", "depth": 1000000000}', '{"generation": "v2", "heads": 0}',
     '{"generation": "v2", "width": "wide"}', '{"generation": ["v2"]}', '{"generation": "v2", "audio": 3}'],
)  # fmt: skip
def test_configurations_that_lie_are_refused(tmp_path, config):
    save_safetensors(tmp_path / "g.safetensors", {"fmt.x": torch.ones(2)}, {"config": config})
    with pytest.raises(InputError, match="configuration"):
        inspect(tmp_path / "g.safetensors")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"version":1,"channels":' + "[" * 900 + "]" * 900 + "}",
     '{"version":1,"channels":{"yaw":[[' + "9" * 4000 + ",0]]}}", '{"version":1e999}',
     '{"version":1,"channels":{"yaw":' + '{"a":' * 900 + "1" + "}" * 900 + "}}"],
)  # fmt: skip
def test_keyframes_too_deep_or_too_large_are_refused(tmp_path, text):
    (tmp_path / "k.json").write_text(text)
    with pytest.raises(InputError):
        keyframes.to_control(keyframes.load(tmp_path / "k.json"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"version":1,"channels":{"yaw":[[0,1e400]]}}', r"must be \[seconds, value\]"),
        (b'{"version":1,"channels":{"yaw":[[0,NaN]]}}', "not a number"),
        (b'{"version":1,"channels":{"yaw":[[0,-Infinity]]}}', "not a number"),
        (b'{"version":1,"channels":{"yaw":[[0,1' + b"0" * 400 + b"]]}}", r"must be \[seconds, value\]"),
        (b'{"version":1,"channels":{"yaw":[[0,1]],"yaw":[[0,2]]}}', "'yaw' twice"),
        (b'{"version":1,"version":1}', "'version' twice"),
        (b'{"version":1,"channels":{"yaw":' + b"[" * 5000 + b"]" * 5000 + b"}}", "."),
        (b'{"version":' + b"[" * 5000 + b"]" * 5000 + b"}", "."),
        ('{"version":1}'.encode("utf-16"), "UTF-8"),
        (b'{"version":1,"channels":{"\\ud800":1}}', "unknown"),
    ],
)
def test_keyframes_beyond_sense_are_refused_in_one_line(tmp_path, content, words):
    (tmp_path / "k.json").write_bytes(content)
    with pytest.raises(InputError, match=words) as refusal:
        keyframes.to_control(keyframes.load(tmp_path / "k.json"))
    assert str(refusal.value).isprintable()


def test_keyframes_with_a_byte_order_mark_are_read(tmp_path):
    (tmp_path / "k.json").write_text('{"version":1,"channels":{"yaw":[[0,9]]}}', encoding="utf-8-sig")
    assert keyframes.parse(keyframes.load(tmp_path / "k.json")) == {"yaw": [(0.0, 9.0)]}


def test_keyframes_of_a_graph_with_endless_numbers_are_refused():
    for value in (10**5000, float("inf"), [[10**5000] * 3], {"a": 10**5000}):
        with pytest.raises(InputError):
            keyframes.to_control({"version": 1, "channels": {"yaw": [[0, value]]}})
        with pytest.raises(InputError):
            keyframes.to_control({"version": value})


ENTRY = {"dtype": "F32", "shape": [1, 32], "data_offsets": [0, 128]}


@pytest.mark.parametrize(
    "header",
    [
        json.dumps({"latents": ENTRY | {"shape": [2**62, 4]}}),
        json.dumps({"latents": ENTRY | {"data_offsets": [0, 2**63]}}),
        json.dumps({"latents": ENTRY | {"dtype": "F4"}}),
        json.dumps({"latents": ENTRY, "other": ENTRY}),
        json.dumps({"latents": ENTRY})[:-1] + ',"latents":' + json.dumps(ENTRY | {"shape": [32, 1]}) + "}",
        json.dumps({"__metadata__": {"kind": 3}, "latents": ENTRY}),
        "[" * 100_000,
        "{" + " " * 100 + "}",
        "",
    ],
)
def test_safetensors_headers_that_lie_are_refused(tmp_path, header):
    for length in (len(header), len(header) + 10**9, 2**64 - 1):
        (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", length) + header.encode() + bytes(128))
        with pytest.raises(InputError, match=r"m\.safetensors"):
            read_motion(tmp_path / "m.safetensors")


def test_a_tracker_that_claims_huge_tensors_is_refused_before_a_copy(tmp_path):
    torch.save({"fc_yaw_gaze.weight": torch.zeros(1).expand(10**12)}, tmp_path / "l2cs.pt")
    with pytest.raises(InputError, match="does not fit"):
        load_l2cs(tmp_path / "l2cs.pt")


def test_an_image_of_a_few_bytes_and_many_pixels_is_refused(tmp_path, monkeypatch):
    stream = io.BytesIO()
    Image.new("1", (8, 8)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "b.png").write_bytes(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as some node packs do
    with pytest.raises(InputError, match="too large: scale it"):
        read_image(tmp_path / "b.png")


def test_postscript_is_not_read_as_an_image(tmp_path):
    (tmp_path / "p.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(tmp_path / "p.png")


@pytest.mark.parametrize(
    "playlist",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"],
)
def test_a_playlist_opens_no_other_file(inputs, tmp_path, playlist):
    shutil.copy(inputs / "driving.mp4", tmp_path / "other.mp4")
    path = tmp_path / "list.mp4"
    path.write_text(playlist.format("other.mp4"))
    with pytest.raises(InputError, match="cannot be read as audio or video"):
        audio.read_audio(path)


def test_a_jump_in_time_stamps_does_not_add_millions_of_frames(tmp_path, caplog):
    write_video(tmp_path / "a.mp4", torch.rand(10, 16, 16, 3), 25)
    with av.open(str(tmp_path / "a.mp4")) as original, av.open(str(tmp_path / "jump.mkv"), "w") as jump:
        stream = jump.add_stream_from_template(original.streams.video[0])
        for number, packet in enumerate(packet for packet in original.demux(video=0) if packet.dts is not None):
            packet.stream = stream
            # 1000 days
            late = 0 if number < 5 else int(86_400_000 / packet.time_base)
            packet.pts, packet.dts = packet.pts + late, packet.dts + late
            jump.mux(packet)
    frames = 0
    with VideoReader(tmp_path / "jump.mkv", fps=25) as reader:
        for _ in reader:
            frames += 1
            assert frames < 60
    assert frames >= 10
    assert "skipped a jump of 86400000 s" in caplog.text


def test_a_broken_driving_frame_is_skipped_and_counted(inputs, tmp_path, caplog):
    with av.open(str(inputs / "driving.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.dts is not None]
    content = bytearray((inputs / "driving.mp4").read_bytes())
    victim = packets[len(packets) // 2]
    content[victim.pos : victim.pos + victim.size] = bytes([0xA5]) * victim.size
    (tmp_path / "broken.mp4").write_bytes(content)
    with VideoReader(inputs / "driving.mp4") as reader:
        whole = len(list(reader))
    with VideoReader(tmp_path / "broken.mp4") as reader:
        assert len(list(reader)) == whole, (
            "the previous frame is repeated for the missing one, so that the audio stays in sync"
        )
    assert "skipped 1 broken video frames" in caplog.text


def test_impossible_sample_rates_are_refused():
    for rate in (0, 1, 2**31):
        with pytest.raises(InputError, match="sample rate"):
            audio.to_mono_16k(torch.zeros(1, 100), rate)


def test_names_in_messages_are_printable(tmp_path):
    torch.save({"\x1b[2J\nfmt": torch.zeros(2)}, tmp_path / "c.ckpt")
    assert inspect(tmp_path / "c.ckpt").weights.describe().isprintable()
