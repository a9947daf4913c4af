"""Every file reader with a good file to corrupt, for test_hostile.py and the longer tests/fuzz."""

import shutil
import struct
import zipfile

import numpy as np
import torch
from PIL import Image
from profiles import DISPLAY_P3, cmyk_profile, rgb_profile
from tiny import tiny_generator

from imtalker import Control, InputError, Motion, save_weights
from imtalker.cli import batch
from imtalker.media.audio import read_audio, to_mono_16k
from imtalker.media.image import read_image
from imtalker.media.video import VideoReader
from imtalker.motion import keyframes
from imtalker.motion.control import load_gaze, load_pose
from imtalker.weights.checkpoints import inspect

MOST_FRAMES = 2000


def read_control(path):
    Control.load(path).at_fps(25)


def read_motion(path):
    Motion.load(path).at_fps(25)


def read_keyframes(path):
    return keyframes.to_control(keyframes.load(path), allow_more=True)


def read_speech(path):
    audio = read_audio(path)
    to_mono_16k(audio.waveform[:, : audio.sample_rate], audio.sample_rate)


def read_video(path):
    with VideoReader(path) as reader:
        for number, _ in enumerate(reader):
            if number > MOST_FRAMES:
                break


def good_files(folder, inputs):
    """Writes one good file for every reader: {file name: (path, reader)}."""
    torch.manual_seed(0)
    Control(pose=torch.rand(9, 3), gaze=torch.rand(9, 2)).save(folder / "control.safetensors")
    Motion(torch.rand(9, 32)).save(folder / "motion.safetensors")
    save_weights(tiny_generator(), folder / "weights.safetensors")
    state = {f"fmt.layer{i}.weight": torch.rand(3, 4) for i in range(4)}
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}}, folder / "weights.ckpt")
    torch.save(state, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    torch.save({"pose_params": torch.rand(9, 3), "cam": torch.rand(9, 3)}, folder / "pose.pt")
    np.save(folder / "gaze.npy", np.random.default_rng(0).random((9, 2), np.float32))
    (folder / "keys.json").write_text('{"version": 1, "channels": {"yaw": [[0, 0], [1, 20]], "vertical": [[0.5, -8]]}}')
    (folder / "jobs.csv").write_text("source,audio,output,seed\na.png,b.wav,c.mp4,7\nd.png,e.wav,f.mp4,8\n")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8))
    for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff"):
        image.save(folder / f"image.{suffix}")
    image.save(folder / "wide.png", icc_profile=rgb_profile(DISPLAY_P3, 2.2), exif=b"Exif\0\0" + bytes(20))
    image.convert("CMYK").save(folder / "ink.jpg", icc_profile=cmyk_profile())
    Image.fromarray(np.random.default_rng(0).random((9, 8), np.float32)).save(folder / "float.tiff")
    Image.fromarray(np.arange(72, dtype=np.uint16).reshape(9, 8)).save(folder / "deep.png")
    shutil.copy(inputs / "speech.wav", folder / "speech.wav")
    shutil.copy(inputs / "driving.mp4", folder / "driving.mp4")
    readers = {
        "control.safetensors": read_control,
        "motion.safetensors": read_motion,
        "weights.safetensors": inspect,
        "weights.ckpt": inspect,
        "old.ckpt": inspect,
        "pose.pt": load_pose,
        "gaze.npy": load_gaze,
        "keys.json": read_keyframes,
        "jobs.csv": batch.read_jobs,
        **{f"image.{suffix}": read_image for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff")},
        **{name: read_image for name in ("wide.png", "ink.jpg", "float.tiff", "deep.png")},
        "speech.wav": read_speech,
        "driving.mp4": read_video,
    }
    return {name: (folder / name, read) for name, read in readers.items()}


def reads(read, path):
    """True if the reader returns a result, False if it raises InputError; other errors pass through."""
    try:
        read(path)
    except InputError:
        return False
    return True


FRAGMENTS = (
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    struct.pack("<Q", 1 << 60),
    b"\n",
    b'"',
    b"{[" * 9,
)


# What torch's reader knows, with short arguments, and some that it does not.
STEPS = (
    *(b")", b"]", b"}", b"\x8f", b"N", b"\x88", b"(", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"0"),
    *(b"K\1", b"M\1\2", b"J\xff\xff\xff\x7f", b"X\1\0\0\0a", b"U\1a", b"G" + bytes(8), b"\x8a\1\2", b"\x90", b"2"),
    *(b"q\0", b"q\1", b"h\0", b"h\1", b"R", b"\x81", b"b", b"Q", b".", b"I9\n", b"\x95" + b"\xff" * 8),
    *(f"c{module}\n{name}\n".encode() for module, name in (
        ("collections", "OrderedDict"), ("collections", "Counter"), ("torch", "FloatStorage"), ("torch", "Size"),
        ("torch._utils", "_rebuild_tensor_v2"), ("torch", "Tensor"), ("__builtin__", "set"), ("os", "system"),
        ("__builtin__", "bytearray"), ("_codecs", "encode"), ("argparse", "Namespace"), ("torch", "float32"),
    )),
)  # fmt: skip


def write_zipped(path, pickle):
    """A torch file with this pickle in place of its own."""
    torch.save({"a": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(name, pickle if name.endswith("data.pkl") else part)


def random_pickle(random):
    """A short pickle of random steps, mostly ones that follow each other."""
    return b"\x80\2" + b"".join(random.choice(STEPS) for _ in range(random.randint(1, 40))) + b"."


def corrupt(content, random):
    """Changes, cuts, repeats or inserts a few bytes, more often near the start, where headers are."""
    content = bytearray(content)
    for _ in range(random.randint(1, 4)):
        position = int(len(content) * random.random() ** random.choice((1, 4)))
        change = random.randrange(6)
        if change == 0:
            del content[position:]
        elif change == 1:
            content[position : position + 1] = bytes([random.randrange(256)])
        elif change == 2:
            piece = random.choice(FRAGMENTS)
            content[position : position + len(piece)] = piece
        elif change == 3:
            content[position:position] = random.choice(FRAGMENTS)
        elif change == 4:
            del content[position : position + random.randint(1, 16)]
        else:
            content[position:position] = content[position : position + random.randint(1, 64)]
    return bytes(content)
