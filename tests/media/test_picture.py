"""Video as it is meant to be seen: upright, square pixels, whole frames, true colours, one size."""

import io
import logging
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from imtalker.errors import InputError
from imtalker.media.audio import read_audio
from imtalker.media.colour import gamut_matrix
from imtalker.media.video import VideoReader
from imtalker.media.video_writer import write_video

av = pytest.importorskip("av")


def first(path):
    with VideoReader(path) as reader:
        shown = next(iter(reader))
        assert shown.shape == (reader.height, reader.width, 3)
        return shown


def write(path, codec, pixels, kind, frames=3, aspect=None, options=None, prepare=None, **context):
    """Writes frames of `pixels`, an array that PyAV knows as `kind`; context: attributes of the encoder."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = context.pop("pix_fmt", kind)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), kind)
            frame = frame if stream.pix_fmt == kind else frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# what a b c d of the display matrix do to an image (H,W,C)
MATRICES = {
    (1, 0, 0, -1): lambda x: x[::-1],
    (-1, 0, 0, 1): lambda x: x[:, ::-1],
    (-1, 0, 0, -1): lambda x: x[::-1, ::-1],
    (0, 1, 1, 0): lambda x: x.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    (0, 1, -1, 0): lambda x: x[::-1].transpose(1, 0, 2),
    (0, -1, 1, 0): lambda x: x[:, ::-1].transpose(1, 0, 2),
    (0, 0, 0, 0): lambda x: x,
    (0.98, 0.17, -0.17, 0.98): lambda x: x,
    (0.17, 0.98, -0.98, 0.17): lambda x: x[::-1].transpose(1, 0, 2),
}


def turned(path, matrix):
    content = bytearray(path.read_bytes())
    values = [round(v * 65536) for v in (*matrix[:2], 0, *matrix[2:], 0, 0, 0)]
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, *values, 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize("matrix", MATRICES)
def test_any_display_matrix_shows_the_picture_upright(tmp_path, matrix, caplog):
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:16, :32], stored[:16, 32:], stored[16:, :32] = 60, 120, 180
    write_video(tmp_path / "a.mp4", [torch.from_numpy(stored)] * 3, 25, crf=1)
    turned(tmp_path / "a.mp4", matrix)
    caplog.clear()
    shown = first(tmp_path / "a.mp4").float()
    expected = torch.from_numpy(np.ascontiguousarray(MATRICES[matrix](stored))).float()
    assert shown.shape == expected.shape
    assert (shown - expected).abs().mean() < 3
    assert ("odd angle" in caplog.text) == (0.17 in matrix)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_jpeg_frames_is_applied(tmp_path, orientation):
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:16, :32], stored[:16, 32:], stored[16:, :32] = 60, 120, 180
    exif, content = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    Image.fromarray(stored).save(content, "JPEG", exif=exif, quality=95)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuvj420p"
        for index in range(3):
            packet = av.Packet(content.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = index
            container.mux(packet)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(content)).convert("RGB")).astype(int)
    shown = first(tmp_path / "a.mkv").numpy()
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).max() <= 2


@pytest.mark.parametrize(
    ("codec", "name", "size", "aspect", "shown"),
    [
        ("mpeg2video", "a.ts", (576, 720), Fraction(64, 45), (576, 1024)),
        ("libx264", "a.mp4", (480, 720), Fraction(8, 9), (480, 640)),
        ("libx264", "a.mkv", (48, 64), Fraction(4, 3), (48, 85)),
        ("mpeg4", "a.mp4", (48, 64), Fraction(200), (48, 64)),  # a broken header
    ],
)
def test_pixels_are_made_square(tmp_path, codec, name, size, aspect, shown):
    grey = np.full((*size, 3), 128, np.uint8)
    write(tmp_path / name, codec, grey, "rgb24", pix_fmt="yuv420p", aspect=aspect)
    assert first(tmp_path / name).shape == (*shown, 3)


def test_a_square_on_a_turned_clip_with_wide_pixels_stays_square(tmp_path):
    stored = np.zeros((90, 128, 3), np.uint8)
    stored[20:65, 32:64] = 255  # 45 high, 32 * 64/45 = 45.5 wide
    write(tmp_path / "a.mp4", "libx264", stored, "rgb24", pix_fmt="yuv420p", aspect=Fraction(64, 45))
    turned(tmp_path / "a.mp4", (0, 1, -1, 0))
    shown = first(tmp_path / "a.mp4")[..., 1] > 128
    assert shown.shape == (182, 90)
    assert shown.any(0).sum() == pytest.approx(45, abs=1)
    assert shown.any(1).sum() == pytest.approx(45.5, abs=1)


def marked(frame, field):
    """The same frame, marked as interlaced."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("setfield", field), graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()


@pytest.mark.parametrize("field", ["tff", "bff"])
def test_interlaced_frames_are_made_whole(tmp_path, field):
    """A bar moves 16 pixels from field to field: with both fields in one frame every other line differs."""

    def bar(moment):
        image = np.full((96, 128), 16, np.uint8)
        image[:, 8 + 4 * moment : 40 + 4 * moment] = 235
        return image

    frames = []
    for index in range(8):
        early, late = bar(2 * index), bar(2 * index + 1)
        woven, lines = early.copy(), (1 if field == "tff" else 0)
        woven[lines::2] = late[lines::2]
        frames.append(woven)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": f"{field}=1", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index, image in enumerate(frames):
            full = np.concatenate([image, np.full((48, 128), 128, np.uint8)])
            frame = av.VideoFrame.from_ndarray(full, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(marked(frame, field)))
        container.mux(stream.encode(None))
    with VideoReader(tmp_path / "a.mkv") as reader:
        shown = [frame[..., 1].float() for frame in reader]
    assert len(shown) == 8
    for index, image in enumerate(shown):
        # neither line of a pair differs from its neighbours, and the bar is where the first field saw it
        assert (image[21:76:2] - image[20:75:2]).abs().mean() < 4
        assert (image[40] > 128).nonzero()[0].item() == pytest.approx(8 + 8 * index, abs=2)


COLOURS = [(512, 512, 512), (600, 300, 200), (200, 700, 300), (100, 400, 800), (760, 760, 760), (900, 850, 300)]
# ffmpeg 5.1: zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,zscale=t=bt709
LIGHTS = {
    "PQ": (16, 9, [(153, 153, 153), (218, 0, 0), (0, 240, 0), (0, 46, 255), (253, 253, 253), (255, 202, 0)]),
    "HLG": (18, 9, [(125, 125, 125), (167, 48, 36), (0, 179, 29), (0, 82, 207), (191, 191, 191), (237, 188, 0)]),
    # the same without tonemap, back to the transfer of the file
    "BT.2020": (1, 9, [(128, 128, 128), (179, 55, 40), (0, 183, 48), (0, 103, 207), (189, 189, 189), (237, 211, 0)]),
    "P3": (13, 12, [(128, 128, 128), (161, 69, 42), (0, 178, 58), (0, 102, 206), (189, 189, 189), (227, 211, 26)]),
}


@pytest.mark.parametrize("light", LIGHTS)
def test_hdr_and_wide_gamuts_are_shown_as_by_ffmpegs_filters(tmp_path, light, caplog):
    transfer, primaries, expected = LIGHTS[light]
    pixels = np.repeat(np.repeat(np.array([COLOURS], np.uint16), 16, 0), 16, 1)
    write(tmp_path / "a.mkv", "ffv1", pixels, "gbrp10le", color_trc=transfer, color_primaries=primaries)
    caplog.clear()
    with VideoReader(tmp_path / "a.mkv") as reader:
        shown = list(reader)[2].numpy()[8, 8::16].astype(int)
    assert np.abs(shown - np.array(expected)).max() <= 2
    assert caplog.text.count("tone-mapped") == (1 if "Q" in light or "H" in light else 0), "said once"


def test_a_gamut_keeps_white_and_is_the_identity_for_its_own():
    for primaries in (1, 9, 11, 12):
        assert torch.allclose(gamut_matrix(primaries).sum(dim=1), torch.ones(3).double(), atol=1e-6)
    assert torch.allclose(gamut_matrix(1), torch.eye(3).double())
    # ITU-R BT.2087
    assert gamut_matrix(9)[0].tolist() == pytest.approx([1.6605, -0.5876, -0.0728], abs=1e-3)


@pytest.mark.parametrize(
    "kind",
    ["yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuv410p", "yuv440p", "yuv420p10le", "yuv422p10le", "yuv444p12le",
     "yuv420p16le", "gbrp10le", "gbrp12le", "bgr0", "bgra", "yuva444p", "gray"],
)  # fmt: skip
def test_every_pixel_format_has_the_same_colours(tmp_path, kind):
    """Flat patches, to which chroma subsampling does not matter."""
    patches = np.random.default_rng(1).integers(20, 236, (2, 3, 1 if kind.startswith("gray") else 3))
    pixels = patches.repeat(32, 0).repeat(32, 1).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.broadcast_to(pixels, (64, 96, 3))), "rgb24")
    full = 2 if kind.startswith("gray") else 1  # grey has no limited range in libswscale
    frame = frame.reformat(
        format=kind, dst_colorspace=5, src_color_range=2, dst_color_range=full, interpolation=0x42002
    )
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, kind
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    shown = first(tmp_path / "a.mkv").numpy()[16::32, 16::32].astype(int)
    assert np.abs(shown - patches).max() <= 2


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.mov", "png", "rgba"),
        ("a.mov", "qtrle", "argb"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.webm", "libvpx", "yuva420p"),
        ("a.apng", "apng", "rgba"),
        ("a.mkv", "ffv1", "yuva444p"),
    ],
)
def test_transparent_video_is_composited_over_white(tmp_path, name, codec, kind):
    pixels = np.zeros((64, 96, 4), np.uint8)
    pixels[:, :48], pixels[:, 48:] = (200, 0, 0, 255), (0, 0, 200, 128)
    options = {"auto-alt-ref": "0"} if "vp" in codec else {}
    write(tmp_path / name, codec, pixels, "rgba", pix_fmt=kind, options=options)
    shown = first(tmp_path / name)[32, [20, 76]].tolist()
    tolerance = 1 if kind in ("rgba", "argb") else 4
    assert shown[0] == pytest.approx([200, 0, 0], abs=tolerance)
    assert shown[1] == pytest.approx([127, 127, 227], abs=tolerance)


def test_frames_of_another_shape_are_fitted_into_the_first(tmp_path, caplog):
    for name, size in (("a", (96, 128)), ("b", (64, 32)), ("c", (48, 64))):
        white = np.full((*size, 3), 255, np.uint8)
        write(tmp_path / f"{name}.ts", "mpeg2video", white, "rgb24", frames=5, pix_fmt="yuv420p")
    (tmp_path / "abc.ts").write_bytes(b"".join((tmp_path / f"{name}.ts").read_bytes() for name in "abc"))
    caplog.clear()
    with VideoReader(tmp_path / "abc.ts") as reader:
        shown = list(reader)
    assert {frame.shape for frame in shown} == {(96, 128, 3)}
    white = [(frame[..., 1] > 128).float().mean().item() for frame in shown]
    assert white == pytest.approx([1] * 5 + [48 / 128] * 5 + [1] * 5, abs=0.03)
    assert caplog.text.count("changes its shape") == 1


def test_an_unknown_colour_matrix_is_said_once(tmp_path, caplog):
    grey = np.full((32, 32, 3), 128, np.uint8)
    write(tmp_path / "a.mkv", "ffv1", grey, "rgb24", pix_fmt="yuv444p", colorspace=14)
    caplog.clear()
    with VideoReader(tmp_path / "a.mkv") as reader, caplog.at_level(logging.WARNING, logger="imtalker"):
        assert len([*reader, *reader]) == 6
    assert caplog.text.count("colour matrix") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"RIFF\x24\0\0\0WEBPVP8X" + bytes(40), "WebP"),
        (b"FRM8" + bytes(60), "DSDIFF"),
        (b"MThd" + bytes(60), "MIDI"),
        (b"#EXTM3U\n", "playlist"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\xff\xd8\xff\xe0" + bytes(60), "JPEG picture"),
        (b"v/1\1" + bytes(60), "OpenEXR"),
        (b"\n <svg xmlns='x'/>", "SVG"),
    ],
)
def test_a_format_that_is_not_read_is_named(tmp_path, content, words):
    (tmp_path / "a.mp4").write_bytes(content)
    for read in (VideoReader, read_audio):
        with pytest.raises(InputError, match=rf"{words}.*convert it to (MP4|WAV)"):
            read(tmp_path / "a.mp4")


def test_a_dsd_recording_is_read(tmp_path):
    """64 times oversampled one-bit sound: all ones are the highest level."""
    data = b"\xff" * 8192
    head = b"DSD " + struct.pack("<QQQ", 28, 28 + 52 + 12 + len(data), 0)
    kind = b"fmt " + struct.pack("<QIIIIIIQII", 52, 1, 0, 1, 1, 2822400, 1, len(data) * 8, 4096, 0)
    (tmp_path / "a.dsf").write_bytes(head + kind + b"data" + struct.pack("<Q", 12 + len(data)) + data)
    audio = read_audio(tmp_path / "a.dsf")
    assert (audio.sample_rate, audio.samples) == (352800, 8192)
    assert audio.waveform[0, 4000:].min() > 0.4


@pytest.mark.skipif(not hasattr(__import__("os"), "mkfifo"), reason="Windows has no pipes among files")
def test_a_pipe_is_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.mp4")
    for read in (VideoReader, read_audio):
        with pytest.raises(InputError, match="pipe"):
            read(tmp_path / "a.mp4")


def test_a_picture_larger_than_8k_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16384, 8192, "gray"
        container.mux(stream.encode(av.VideoFrame(16384, 8192, "gray")))
    with pytest.raises(InputError, match="scale it to 8192x4352"):
        VideoReader(tmp_path / "a.mkv")
