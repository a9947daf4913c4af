"""Picture files of every kind against Pillow's own conversion to sRGB: within 2 of 255."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from profiles import ADOBE_RGB, DISPLAY_P3, cmyk_profile, grey_profile, rgb_profile

from imtalker.errors import InputError
from imtalker.media.image import read_image

PROFILES = {
    "none": None,
    "p3": rgb_profile(DISPLAY_P3, 2.2),
    "adobe": rgb_profile(ADOBE_RGB, 2.19921875),
    "grey": grey_profile(1.8),
    "cmyk": cmyk_profile(),
    "srgb": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "broken": b"not a profile" * 20,
}
MATRIX = [
    *(("RGB", profile, suffix) for profile in ("none", "p3", "adobe", "srgb") for suffix in ("png", "jpg", "tiff")),
    *(("RGB", profile, suffix) for profile in ("none", "p3") for suffix in ("webp", "bmp", "gif", "jp2", "avif")),
    *(("L", profile, suffix) for profile in ("none", "grey", "p3") for suffix in ("png", "jpg", "tiff")),
    *(("CMYK", profile, suffix) for profile in ("none", "cmyk") for suffix in ("jpg", "tiff")),
    *(("RGBA", profile, suffix) for profile in ("none", "adobe") for suffix in ("png", "webp", "tiff")),
    *(("P", profile, suffix) for profile in ("none", "p3") for suffix in ("png", "tiff")),
    *(("LA", "grey", "png"), ("1", "none", "png"), ("1", "none", "tiff"), ("LAB", "none", "tiff")),
    *(("RGB", "broken", "png"), ("CMYK", "broken", "tiff"), ("RGB", "cmyk", "png"), ("RGB", "grey", "png")),
]
LOSSLESS = ("png", "tiff", "bmp", "gif")


def colours(mode, height=24, width=40):
    """Smooth colours in every corner of the mode, so that lossy files lose little."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [columns * 255 / (width - 1), rows * 255 / (height - 1), 255 - columns * 200 / width, rows * 120 / height]
    image = Image.merge("RGBA", [Image.fromarray(plane.astype(np.uint8)) for plane in planes])
    if mode in ("CMYK", "LAB"):
        bands = image.split() if mode == "CMYK" else image.split()[:3]
        return Image.merge(mode, bands)
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def by_pillow(path):
    """The reference: the whole picture at once by Pillow's defaults, over white, as 0..255."""
    image = Image.open(path)
    content, alpha = image.info.get("icc_profile"), None
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"), float)[..., 3:] / 255
    opaque = {"RGBA": "RGB", "P": "RGB", "LA": "L"}.get(image.mode, image.mode)
    image = image if image.mode == opaque else image.convert(opaque)
    space = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}.get(image.mode)
    if content and content[16:20] == b"RGB " and image.mode == "L":
        image, space = image.convert("RGB"), b"RGB "
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(content)) if content and content[16:20] == space else None
    target = ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(image, source, target, outputMode="RGB") if source else image.convert("RGB")
    pixels = np.asarray(image, float)
    return pixels if alpha is None else pixels * alpha + 255 * (1 - alpha)


def saved(folder, mode, profile, suffix):
    path = folder / f"{mode}-{profile}.{suffix}"
    options = {"icc_profile": PROFILES[profile]} if PROFILES[profile] and suffix not in ("bmp", "gif", "jp2") else {}
    colours(mode).save(path, **options)
    return path


@pytest.mark.parametrize(("mode", "profile", "suffix"), MATRIX)
def test_colours_are_those_of_pillow(tmp_path, mode, profile, suffix):
    if suffix == "avif" and "AVIF" not in Image.OPEN:
        pytest.skip("this Pillow has no AVIF")
    path = saved(tmp_path, mode, profile, suffix)
    assert np.abs(read_image(path)[0].numpy() * 255 - by_pillow(path)).max() <= 2


def test_a_profile_changes_the_picture_and_a_broken_one_is_said(tmp_path, caplog):
    plain = read_image(saved(tmp_path, "RGB", "none", "png"))
    for profile, levels in (("p3", 10), ("adobe", 20)):
        assert (read_image(saved(tmp_path, "RGB", profile, "png")) - plain).abs().max() * 255 > levels
    assert not caplog.messages
    assert torch.equal(read_image(saved(tmp_path, "RGB", "broken", "png")), plain)
    assert "colour profile that cannot be used" in caplog.messages[0]


def test_16_bits_a_channel_are_kept(tmp_path):
    levels = np.arange(64 * 3, dtype=np.uint16).reshape(8, 8, 3) * 341 + 77
    for suffix in ("png", "tiff"):
        save_deep(tmp_path / f"a.{suffix}", levels)
        assert np.abs(read_image(tmp_path / f"a.{suffix}")[0].numpy() * 65535 - levels).max() < 0.01
    big = Image.fromarray(levels[..., 0])
    big.save(tmp_path / "grey.tiff")
    assert np.abs(read_image(tmp_path / "grey.tiff")[0, ..., 1].numpy() * 65535 - levels[..., 0]).max() < 0.01


def save_deep(path, levels):
    import av

    with av.open(str(path), "w", format="image2") as file:
        stream = file.add_stream(path.suffix[1:])
        stream.height, stream.width = levels.shape[:2]
        stream.pix_fmt = "rgb48be" if path.suffix == ".png" else "rgb48le"
        frame = av.VideoFrame.from_ndarray(levels, format="rgb48le").reformat(format=stream.pix_fmt)
        file.mux([*stream.encode(frame), *stream.encode(None)])


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_pictures_of_floats_are_read_by_their_range(tmp_path, white):
    values = np.linspace(0, white, 60, dtype=np.float32).reshape(6, 10)
    Image.fromarray(values).save(tmp_path / "f.tiff")
    assert np.abs(read_image(tmp_path / "f.tiff")[0, ..., 2].numpy() - values / white).max() < 1e-6


@pytest.mark.parametrize("values", [[0.0, 7.0], [0.0, 1e9], [-400.0, 255.0], [0.0, float("inf")], [float("nan"), 1.0]])
def test_pictures_of_floats_of_no_known_range_are_refused(tmp_path, values):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(InputError):
        read_image(tmp_path / "f.tiff")


def test_only_the_first_frame_is_used_and_said(tmp_path, caplog):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for suffix in ("gif", "png", "webp", "tiff"):
        caplog.clear()
        options = {"lossless": True} if suffix == "webp" else {}
        first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second], **options)
        assert torch.allclose(read_image(tmp_path / f"a.{suffix}")[0, 0, 0], torch.tensor([1.0, 0, 0]), atol=0.01)
        assert "only the first is used" in caplog.text
    caplog.clear()
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second])
    read_image(tmp_path / "a.mpo")
    assert not caplog.messages, "a stereo photo is not an animation"


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (chunk(b"cICP", bytes([9, 16, 0, 1])), "wide or HDR colours"),
        (chunk(b"cICP", bytes([12, 13, 0, 1])), "wide or HDR colours"),
        (chunk(b"gAMA", struct.pack(">I", 100000)), "gamma of 1.00"),
        (chunk(b"cICP", bytes([1, 13, 0, 1])), None),
        (chunk(b"gAMA", struct.pack(">I", 45455)), None),
    ],
)
def test_what_a_png_asks_in_vain_is_said(tmp_path, caplog, added, said):
    stream = io.BytesIO()
    colours("RGB").save(stream, "PNG")
    content = stream.getvalue()
    (tmp_path / "a.png").write_bytes(content[:33] + added + content[33:])
    read_image(tmp_path / "a.png")
    assert said in caplog.text if said else not caplog.messages


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"8BPS\0\1" + bytes(40), "Photoshop"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"\0\0\0\x18ftypisom" + bytes(40), "a video"),
        (b"\0\0\1\0\1\0" + bytes(40), "icon"),
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"v/1\1" + bytes(40), "OpenEXR"),
        (b" <svg xmlns='x'/>", "SVG"),
        (b"%PDF-1.4", "PDF"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"MThd" + bytes(40), "MIDI"),
        (b"#EXTM3U\n", "playlist"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path, content, kind):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.png cannot be read as an image \(.*{kind}.*convert it to PNG or JPEG"):
        read_image(tmp_path / "a.png")


HUGE = """
import resource, sys, time
from imtalker.media.image import read_image
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
image = read_image(sys.argv[1])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(*image.shape, peak - before, time.process_time() - start, float(image.mean()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs ru_maxrss in kilobytes")
@pytest.mark.parametrize(("mode", "size"), [("RGB", (7_000, 7_000)), ("1", (100_000, 1_000))])
def test_huge_pictures_take_little_memory_and_seconds(tmp_path, mode, size):
    path = tmp_path / "huge.png"
    Image.new(mode, size, 1 if mode == "1" else (255, 0, 0)).save(path, compress_level=1)
    done = subprocess.run([sys.executable, "-c", HUGE, str(path)], capture_output=True, text=True, check=True)
    one, height, width, channels, kilobytes, seconds, mean = map(float, done.stdout.split())
    assert (one, channels) == (1, 3)
    assert 5_000_000 < height * width <= 25_000_000
    assert abs(width / height - size[0] / size[1]) < 0.02 * width / height
    assert mean == pytest.approx(1 if mode == "1" else 1 / 3, abs=1e-4)
    assert kilobytes < 600_000
    assert seconds < 15


def test_a_reduced_picture_is_the_mean_of_its_pixels(tmp_path, monkeypatch):
    from imtalker.media import pictures

    monkeypatch.setattr(pictures, "READ_WHOLE", 600)
    monkeypatch.setattr(pictures, "BAND", 150)
    pixels = np.random.default_rng(0).integers(0, 255, (45, 53, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")[0].numpy()
    assert found.shape == (23, 27, 3)
    alpha = pixels[..., 3:] / 255
    shown = pixels[..., :3] / 255 * alpha + 1 - alpha
    wanted = [[shown[y : y + 2, x : x + 2].mean((0, 1)) for x in range(0, 53, 2)] for y in range(0, 45, 2)]
    assert np.abs(found - np.array(wanted)).max() <= 2 / 255
