"""python tests/matrix.py: how far readers are from the truth and from the ffmpeg program, as two Markdown tables.

Sound and picture: milliseconds between beeps and flashes over containers x frame rates x starts x gaps.
Colours: levels of 255 between `VideoReader` and ffmpeg's decode over codecs x pixel formats x light.
"""

import argparse
import itertools
import logging
import shutil
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from clips import offsets, remux, write_clip  # noqa: E402

from imtalker.media.video import VideoReader  # noqa: E402

CONTAINERS = [
    ("mp4", "libx264", "aac"),
    ("mov", "prores_ks", "pcm_s16le"),
    ("mkv", "libx264", "libopus"),
    ("webm", "libvpx-vp9", "libopus"),
    ("ts", "libx264", "aac"),
    ("mpg", "mpeg2video", "mp2"),
    ("flv", "libx264", "libmp3lame"),
    ("avi", "mjpeg", "pcm_s16le"),
    ("mxf", "mpeg2video", "pcm_s16le"),
    ("nut", "mpeg4", "flac"),
]
RATES = (Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(60000, 1001))
STARTS = (("0", "0"), ("0", "0.3"), ("0.3", "0"))  # of picture and sound, in seconds
# These count samples instead of storing times: neither gaps nor a late start of sound can be told from the file.
COUNTING = {"mov", "avi", "mxf"}

# flags of the ffmpeg program that are as exact as ours
EXACT = "scale=flags=bilinear+accurate_rnd+full_chroma_int"
TONED = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=tonemap=hable:desat=0,"
    "zscale=t=bt709:m=gbr:r=pc,format=gbrp"
)
OPTIONS = {"libx265": {"x265-params": "log-level=none:crf=4"}, "libx264": {"crf": "4"}}
FORMATS = (
    *("yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuv410p", "yuv420p10le", "yuv422p10le", "yuv444p10le"),
    *("yuv420p12le", "yuv444p16le", "gbrp10le", "gbrp12le", "bgr0", "gray"),
)


def without_a_stretch(kind: str, seconds: Fraction, packet: av.Packet) -> list[av.Packet]:
    return [] if kind == "audio" and 0.95 <= seconds < 1.3 else [packet]


def in_sync(folder: Path) -> list[str]:
    rows = [
        "| container | frame rates, starts | worst of whole clips, ms | worst with a gap in the sound, ms |",
        "|---|---|---|---|",
    ]
    for suffix, video, audio in CONTAINERS:
        whole, gaps, count = [], [], 0
        rates = RATES if suffix not in ("mxf", "mpg") else (Fraction(25),)
        for rate, late in itertools.product(rates, STARTS):
            if suffix in COUNTING and late != STARTS[0]:
                continue
            starts = {"video_late": Fraction(late[0]), "audio_late": Fraction(late[1])}
            path = write_clip(folder / f"a.{suffix}", video, audio, rate, **starts)
            whole += offsets(path)
            count += 1
            if suffix not in COUNTING:
                gaps += offsets(remux(path, folder / f"gap.{suffix}", without_a_stretch))
        worst = [f"{max(map(abs, found)) * 1000:.1f}" if found else "not stored" for found in (whole, gaps)]
        rows.append(f"| {suffix}, {video}, {audio} | {count} | {worst[0]} | {worst[1]} |")
    return rows


def decoded(path: Path, filters: str, shape: tuple) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", f"{filters},format=rgb24", "-frames:v", "1"]
    done = subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(shape).astype(int)


def colours(folder: Path) -> list[str]:
    rows = ["| codec | pixels | light | worst patch, of 255 | mean |", "|---|---|---|---|---|"]
    patches = np.random.default_rng(0).integers(64, 940, (4, 6, 3)).repeat(32, 0).repeat(32, 1).astype(np.uint16)
    cases = [("ffv1", kind, "BT.601", (5, 2, 2)) for kind in FORMATS]
    cases += [("ffv1", kind, "BT.709", (1, 1, 1)) for kind in ("yuv420p", "yuv422p10le")]
    cases += [
        ("libx264", "yuv420p", "BT.709", (1, 1, 1)),
        ("libvpx-vp9", "yuv420p", "BT.601", (5, 6, 6)),
        ("prores_ks", "yuv422p10le", "BT.709", (1, 1, 1)),
        ("mpeg2video", "yuv420p", "BT.601", (5, 6, 6)),
    ]
    wide = {"PQ": (9, 16, 9), "HLG": (9, 18, 9), "BT.2020": (9, 14, 9)}
    cases += [(codec, "yuv420p10le", light, wide[light]) for codec in ("ffv1", "libx265") for light in wide]
    for codec, kind, light, (matrix, transfer, primaries) in cases:
        path = folder / "c.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, options=OPTIONS.get(codec, {}))
            stream.height, stream.width = patches.shape[:2]
            stream.pix_fmt = kind
            context = stream.codec_context
            context.colorspace, context.color_trc = matrix, transfer
            context.color_primaries, context.color_range = primaries, 1
            full = 2 if kind[:3] in ("gbr", "bgr") else 1
            frame = av.VideoFrame.from_ndarray(patches, "gbrp10le")
            for made, given, to in (("yuv444p10le", 2, 1), (kind, 1, full)):
                frame = frame.reformat(
                    format=made,
                    src_colorspace=matrix,
                    dst_colorspace=matrix,
                    src_color_range=given,
                    dst_color_range=to,
                    interpolation=0x42002,
                )
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with VideoReader(path) as reader:
            shown = next(iter(reader)).numpy().astype(int)
        filters = TONED if light in ("PQ", "HLG") else EXACT
        if light == "BT.2020":
            filters = "zscale=t=linear,format=gbrpf32le,zscale=p=bt709,zscale=t=bt709:m=gbr:r=pc,format=gbrp"
        error = np.abs(shown - decoded(path, filters, shown.shape))[16::32, 16::32]
        rows.append(f"| {codec} | {kind} | {light} | {error.max()} | {error.mean():.2f} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("sound", "colour"))
    only = parser.parse_args().only
    logging.getLogger("imtalker").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        if only != "colour":
            print("\n".join(in_sync(Path(name))), end="\n\n")
        if only != "sound" and shutil.which("ffmpeg"):
            print("\n".join(colours(Path(name))))


if __name__ == "__main__":
    main()
