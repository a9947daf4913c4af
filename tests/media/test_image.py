"""Images: every kind of file and tensor becomes upright RGB in 0..1 or is refused with a sentence."""

import math

import pytest
import torch

from imtalker.errors import InputError
from imtalker.media.image import check_image, read_image, resize

Image = pytest.importorskip("PIL.Image")
np = pytest.importorskip("numpy")


def gradient(height: int = 6, width: int = 9) -> "np.ndarray":
    return (np.arange(height * width * 3).reshape(height, width, 3) * 5 % 256).astype(np.uint8)


def test_a_png_is_read_exactly(tmp_path):
    pixels = gradient()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (1, 6, 9, 3)
    assert image.dtype == torch.float32
    assert torch.equal(image[0], torch.from_numpy(pixels) / 255)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("1", "png"), ("L", "png"), ("P", "png"), ("LA", "png"), ("CMYK", "tiff")]
)
def test_every_mode_is_read_as_rgb(tmp_path, mode, suffix):
    Image.new("RGB", (7, 5), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert torch.equal(read_image(tmp_path / f"a.{suffix}"), torch.ones(1, 5, 7, 3))


def test_16_bit_grey_keeps_its_levels(tmp_path):
    levels = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert torch.allclose(read_image(tmp_path / "a.png")[0, 0, :, 1], torch.tensor([0, 1 / 255, 32768 / 65535, 1]))


def test_transparency_is_composited_over_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert torch.equal(read_image(tmp_path / "clear.png"), torch.ones(1, 2, 2, 3))
    Image.new("RGBA", (2, 2), (255, 0, 0, 128)).save(tmp_path / "half.png")
    half = torch.tensor([1, 127 / 255, 127 / 255])
    assert torch.allclose(read_image(tmp_path / "half.png")[0, 0, 0], half)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([9, 9, 9])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert torch.equal(read_image(tmp_path / "palette.png"), torch.ones(1, 2, 2, 3))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_in_any_exif_orientation_is_read_upright(tmp_path, orientation):
    upright = Image.fromarray(gradient(4, 6))
    turn = Image.Transpose
    stored = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = upright.transpose(stored[orientation]) if orientation > 1 else upright
    image.save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png")[0], torch.from_numpy(gradient(4, 6)) / 255)


def test_unreadable_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no file.*missing.png"):
        read_image(tmp_path / "missing.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(gradient(60, 60)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-60])
    for name in ("empty.png", "text.png", "cut.png"):
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(InputError):
        read_image(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="too large"):
        read_image(tmp_path / "whole.png")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.float64])
def test_tensors_with_any_channels_become_rgb(dtype):
    for channels in (1, 3, 4):
        white = torch.ones(2, 5, 4, channels, dtype=dtype) * (255 if dtype == torch.uint8 else 1)
        assert torch.equal(check_image(white), torch.ones(2, 5, 4, 3))
        assert torch.equal(check_image(white[0]), torch.ones(1, 5, 4, 3))


def test_values_out_of_range_are_clamped():
    assert torch.equal(check_image(torch.tensor([[[-1.0, 0.25, 7.0]]])), torch.tensor([[[[0.0, 0.25, 1.0]]]]))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(4, 4), r"\(4, 4\)"),
        (torch.zeros(3, 64, 64), r"\(3, 64, 64\)"),
        (torch.zeros(0, 4, 4, 3), r"\(0, 4, 4, 3\)"),
        (torch.zeros(4, 0, 3), r"\(4, 0, 3\)"),
        (torch.zeros(1, 1, 4, 4, 3), r"\(1, 1, 4, 4, 3\)"),
        (torch.full((4, 4, 3), math.nan), "NaN"),
        (torch.zeros(4, 4, 3, dtype=torch.int64), "int64"),
    ],
)
def test_unusable_tensors_are_refused(image, words):
    with pytest.raises(InputError, match=words):
        check_image(image)


def test_resize_returns_the_right_size_unchanged():
    images = torch.rand(2, 64, 64, 3)
    assert resize(images, 64) is images


@pytest.mark.parametrize("side", [1, 8, 100, 512, 700])
def test_resize_keeps_flat_colour_and_range(side):
    flat = torch.full((1, side, side, 3), 0.3)
    assert torch.allclose(resize(flat, 256), torch.full((1, 256, 256, 3), 0.3), atol=1e-6)
    noise = resize(torch.rand(2, side, side, 3).round(), 256)
    assert noise.shape == (2, 256, 256, 3)
    assert noise.min() >= 0
    assert noise.max() <= 1


def test_resize_is_antialiased():
    stripes = torch.zeros(1, 512, 512, 3)
    # a filter over only the four nearest pixels would see nothing but the bright half
    stripes[:, :, 1::4], stripes[:, :, 2::4] = 1, 1
    assert (resize(stripes, 128)[:, 8:-8, 8:-8] - 0.5).abs().max() < 0.15


def test_resize_refuses_images_that_are_not_square():
    with pytest.raises(InputError, match=r"64x32.*crop"):
        resize(torch.zeros(1, 32, 64, 3), 256)
