"""Crops: the published convention, exact resampling, and pasting without a seam."""

import pytest
import torch
import torch.nn.functional as F
from meaning import TALK, follows, mouth_in, sentence

from imtalker import talk
from imtalker.drawn import example as drawn
from imtalker.drawn.example import SOMEBODY
from imtalker.drawn.head import MOTION, MOTION_SIZE
from imtalker.drawn.people import random_appearances
from imtalker.drawn.portraits import draw
from imtalker.errors import InputError
from imtalker.face import blend
from imtalker.face import crop as cropping
from imtalker.face.crop import Box, Crop


def smooth_image(height=300, width=400, seed=0):
    """A smooth random image (H, W, 3), without detail finer than a few pixels."""
    noise = torch.rand(1, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0).contiguous()


def test_the_square_is_1_6_times_the_longer_side_of_the_box():
    crop = cropping.square_crop(Box(100, 50, 160, 150), 480, 640)
    assert crop == Crop(x=130 - 80, y=100 - 80, size=160, height=480, width=640)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(100, 100, 200, 200), Crop(70, 70, 160, 300, 400)),  # inside: as published
        (Box(10, 100, 110, 200), Crop(0, 70, 160, 300, 400)),  # moved by 20
        (Box(0, 100, 100, 200), Crop(0, 220 / 3, 460 / 3, 300, 400)),  # moved by a sixth, and a little smaller
        (Box(100, 70, 280, 250), Crop(46, 12, 288, 300, 400)),  # moved up
        (Box(100, 50, 300, 250), Crop(50, 0, 300, 300, 400)),  # shrunk to what there is
        (Box(100, -50, 400, 250), Crop(0, -50, 400, 300, 400)),  # shrunk by a sixth: what is left is padded
    ],
)
def test_a_square_stays_inside_where_it_nearly_does(box, expected):
    crop = cropping.framed(box, 300, 400)
    for name in ("x", "y", "size"):
        assert getattr(crop, name) == pytest.approx(getattr(expected, name), abs=1e-6)


def test_a_square_changes_smoothly_as_its_box_moves_out_of_the_picture():
    crops = [cropping.framed(Box(x, 120, x + 100, 220), 300, 400) for x in torch.arange(-90, 390, 0.5).tolist()]
    track = torch.tensor([(crop.x, crop.y, crop.size) for crop in crops])
    assert track.diff(dim=0).abs().max() <= 1.0 + 1e-4


def test_a_crop_on_whole_pixels_is_an_exact_copy():
    image = smooth_image()
    crop = Crop(37, 21, 128, 300, 400)
    assert torch.equal(cropping.apply_crop(image[None], crop, size=128)[0], image[21:149, 37:165])


def test_resampling_equals_the_antialiased_cubic_of_torch():
    image = smooth_image()
    ours = cropping.apply_crop(image[None], cropping.centre_crop(300, 400), size=96)[0]
    theirs = F.interpolate(image[:, 50:350].permute(2, 0, 1)[None], (96, 96), mode="bicubic", antialias=True)
    inner = slice(3, -3)  # the border differs: torch sees nothing beyond the cut, we see the rest of the image
    assert (ours - theirs[0].permute(1, 2, 0).clamp(0, 1))[inner, inner].abs().max() < 1e-5


def test_a_fraction_of_a_pixel_moves_the_image_by_that_much():
    ramp = torch.linspace(0, 1, 401)[None, :, None].expand(401, -1, 3).contiguous()
    still, moved = (cropping.apply_crop(ramp[None], Crop(x, 100, 128, 401, 401), size=128) for x in (100, 100.25))
    assert torch.allclose(moved - still, torch.tensor(0.25 / 400), atol=1e-6)


def test_outside_the_image_its_edge_is_repeated_or_it_is_black():
    image = smooth_image()
    crop = Crop(-50, 250, 100, 300, 400)
    edge, zero = (cropping.apply_crop(image[None], crop, size=100, pad=pad)[0] for pad in ("edge", "zero"))
    assert torch.equal(edge[:50, :50], image[250:, :1].expand(-1, 50, -1))
    assert torch.equal(edge[50:], edge[49:50].expand(50, -1, -1))
    assert torch.equal(zero[:50, 50:], image[250:, :50])
    assert zero[50:].eq(0).all()
    assert zero[:, :50].eq(0).all()


def test_one_crop_serves_all_images_or_each_has_its_own():
    images = torch.stack([smooth_image(seed=seed) for seed in range(3)])
    crops = [Crop(5.5 * n, 3.25 * n, 100 + n, 300, 400) for n in range(3)]
    each = cropping.apply_crop(images, crops, size=64)
    assert torch.equal(each[2], cropping.apply_crop(images[2:], crops[2], size=64)[0])
    with pytest.raises(InputError, match="2 crops"):
        cropping.apply_crop(images, crops[:2], size=64)
    with pytest.raises(InputError, match=r"400x300.*200x200"):
        cropping.apply_crop(torch.zeros(1, 200, 200, 3), crops[0])


def test_a_crop_of_a_very_large_image_does_not_copy_it():
    resource = pytest.importorskip("resource")
    big = torch.zeros(1, 8000, 8000, 3)  # 768 MB of zeros, which take no memory until they are touched
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cropping.apply_crop(big, Crop(1, 1, 4000, 8000, 8000), size=256)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 150  # megabytes


@pytest.mark.parametrize(
    "crop", [Crop(60, 40, 200, 300, 400), Crop(60.3, 40.7, 201.9, 300, 400), Crop(-40, 150, 220, 300, 400)]
)
@pytest.mark.parametrize("options", [{}, {"shape": "square"}, {"colour_match": 1.0}, {"feather": 0.0}])
def test_pasting_an_unchanged_crop_changes_nothing(crop, options):
    image = smooth_image()[None]
    pasted, masks = cropping.paste_back(image, cropping.apply_crop(image, crop, size=512), crop, **options)
    assert masks.max() == 1
    assert (pasted - image).abs().max() < 0.01
    assert torch.equal(pasted[masks == 0], image[masks == 0])


@pytest.mark.parametrize("shape", ["ellipse", "square"])
def test_the_mask_fades_to_zero_at_the_crops_border(shape):
    crop = Crop(60.4, 40.6, 200.5, 300, 400)
    white, black = torch.ones(1, 64, 64, 3), torch.zeros(1, 300, 400, 3)
    pasted, masks = cropping.paste_back(black, white, crop, shape=shape)
    rows, columns = (masks[0].amax(dim) > 0 for dim in (1, 0))
    assert rows.nonzero().min() >= 40
    assert rows.nonzero().max() <= 241
    assert columns.nonzero().min() >= 60
    steps = torch.cat([masks.diff(dim=1).abs().flatten(), masks.diff(dim=2).abs().flatten()])
    assert steps.max() < 0.08  # 20 pixels of feather, 1.5 / 20 per pixel at the steepest
    assert masks[0, 140, 160] == 1
    assert torch.allclose(pasted[..., 0], masks)


def test_there_is_no_fade_where_the_crop_leaves_the_image():
    _, masks = cropping.paste_back(
        torch.zeros(1, 300, 400, 3), torch.ones(1, 64, 64, 3), Crop(100, -60, 200, 300, 400), shape="square"
    )
    assert masks[0, 0, 200] == 1


def test_a_given_mask_still_fades_at_the_border():
    crop = Crop(60, 40, 200, 300, 400)
    mask = torch.zeros(1, 50, 100)
    mask[:, :, 50:] = 1
    _, masks = cropping.paste_back(torch.zeros(1, 300, 400, 3), torch.ones(1, 64, 64, 3), crop, mask)
    assert masks[0, 140, 70:150].max() == 0
    assert masks[0, 140, 175] == pytest.approx(1)
    assert masks[0, 140, 259] < 0.01
    assert masks[0, 140, 240:260].diff().max() <= 0


def test_moving_crops_place_the_face_with_subpixel_accuracy():
    bell = torch.exp(-(((torch.arange(64) - 31.5) / 4) ** 2))
    spot = (bell[:, None] * bell)[None, :, :, None].expand(1, -1, -1, 3).contiguous()
    crops = [Crop(60 + n / 8, 40, 200, 300, 400) for n in range(9)]
    pasted, _ = cropping.paste_back(torch.zeros(1, 300, 400, 3), spot.expand(9, -1, -1, -1), crops)
    weight = pasted[..., 0].sum(1)
    position = (weight * torch.arange(400)).sum(1) / weight.sum(1)
    assert torch.allclose(position.diff(), torch.tensor(1 / 8), atol=1e-3)


def test_a_talking_face_is_pasted_in_place_without_a_seam(avatar):
    """A drawn head on a larger wall: the mouth is in place and in sync, and the wall continues around it."""
    crop, speech = Crop(90, 40, 192, 280, 400), sentence(1.6, pause=0.4)
    rows, columns = (torch.arange(n).sub(start).clamp(0, 191) for n, start in ((280, 40), (400, 90)))
    whole = drawn.portrait(192)[:, rows][:, :, columns]
    faces = torch.cat(list(talk(avatar.renderer, avatar.generator, whole, speech, **TALK | {"crop": crop}).blocks))
    pasted, _ = cropping.paste_back(whole, faces, crop)
    shown = cropping.apply_crop(pasted, crop, 128)
    assert (shown - faces)[:, 32:96, 32:96].abs().mean() < 0.02
    with_own, lag = follows(mouth_in(shown.permute(0, 3, 1, 2)), speech)
    assert with_own > 0.5
    assert abs(lag) <= 1
    change = (pasted - whole).abs().amax(-1)
    y, x = torch.meshgrid(torch.arange(280) - 135.5, torch.arange(400) - 185.5, indexing="ij")
    radius = torch.hypot(x, y) / 96
    assert (change[:, radius > 1] == 0).all()
    assert change[:, (radius < 1) & (radius > 0.98)].max() < 0.1
    assert change[:, radius < 0.6].max() > 0.3


def test_one_background_serves_all_faces_or_each_has_its_own():
    backgrounds = torch.stack([smooth_image(seed=seed) for seed in range(3)])
    faces = torch.rand(3, 64, 64, 3)
    crop = Crop(60, 40, 200, 300, 400)
    both, _ = cropping.paste_back(backgrounds, faces, crop, colour_match=0.5)
    alone, _ = cropping.paste_back(backgrounds[1:2], faces[1:2], crop, colour_match=0.5)
    assert torch.equal(both[1], alone[0])
    assert (
        len(cropping.paste_back(backgrounds[:1], faces, crop)[0])
        == len(cropping.paste_back(backgrounds, faces[:1], crop)[0])
        == 3
    )
    for wrong in ((backgrounds[:2], faces, crop), (backgrounds, faces, [crop] * 2)):
        with pytest.raises(InputError, match=r"2 .* use 1 or 3"):
            cropping.paste_back(*wrong)
    with pytest.raises(InputError, match="connect the image that was cropped"):
        cropping.paste_back(torch.zeros(1, 200, 200, 3), faces, crop)


def test_colour_match_removes_a_tint():
    image, crop = smooth_image()[None] * 0.6 + 0.2, Crop(60, 40, 200, 300, 400)
    tinted = cropping.apply_crop(image, crop) * torch.tensor([0.8, 1.0, 0.9]) + 0.05
    plain, masks = cropping.paste_back(image, tinted, crop)
    matched, _ = cropping.paste_back(image, tinted, crop, colour_match=1.0)
    inside = masks > 0.9
    assert (matched - image)[inside].abs().mean() < 0.5 * (plain - image)[inside].abs().mean()


def test_colour_match_ignores_a_head_that_moves_into_the_soft_edge():
    """Dark hair moves into the soft edge on the left: the rest of the face keeps its colours."""
    image, crop = smooth_image()[None] * 0.2 + 0.7, Crop(60, 40, 200, 300, 400)
    before = cropping.apply_crop(image, crop)
    after = before.clone()
    after[:, 150:350, :90] = 0.2
    pasted, masks = cropping.paste_back(image, torch.cat([before, after]), crop, colour_match=1.0)
    still = masks[0] > 0.9
    still[:, :120] = False  # the hair and its surroundings
    assert (pasted[1] - pasted[0])[still].abs().max() * 255 < 2


def test_lab_is_oklab_and_inverts():
    white = blend._to_lab(torch.ones(1, 1, 3))
    assert torch.allclose(white, torch.tensor([1.0, 0, 0]), atol=1e-4)
    rgb = torch.rand(32, 32, 3)
    assert torch.allclose(blend._from_lab(blend._to_lab(rgb)), rgb, atol=1e-4)


class TestDevices:
    """ "meta" is a device whose tensors refuse to meet those of another, as a GPU's do."""

    def test_crops_stay_on_the_device_of_the_picture(self):
        picture = torch.rand(1, 90, 120, 3)
        squares = cropping.apply_crop(picture.to("meta"), Crop(10.5, 20, 60, 90, 120), 32)
        assert (squares.device.type, squares.shape) == ("meta", (1, 32, 32, 3))

    @pytest.mark.parametrize("mask", [None, torch.rand(1, 16, 16)])
    @pytest.mark.parametrize("colour_match", [0.0, 1.0])
    def test_faces_come_to_the_device_of_the_background(self, mask, colour_match):
        crop = Crop(10.5, 20, 60, 90, 120)
        whole, shade = cropping.paste_back(
            torch.rand(2, 90, 120, 3, device="meta"), torch.rand(2, 32, 32, 3), crop, mask, colour_match=colour_match
        )
        assert (whole.device.type, shade.device.type) == ("meta", "meta")


def moved_head(count=8):
    """A drawn portrait on a larger wall, its square, and a head that turns in it, with a slight cast."""
    people, motion = random_appearances(1, SOMEBODY), torch.zeros(count, MOTION_SIZE)
    turn = torch.linspace(0, 2 * torch.pi, count + 1)[:-1]
    motion[:, MOTION.index("yaw")], motion[:, MOTION.index("x")] = 0.7 * turn.sin(), 0.5 * turn.sin()
    rows, columns = (torch.arange(n).sub(start).clamp(0, 191) for n, start in ((280, 40), (400, 90)))
    wall = drawn.portrait(192)[:, rows][:, :, columns]
    faces = draw(people[torch.zeros(count, dtype=torch.long)], motion, 192).permute(0, 2, 3, 1)
    return wall, (faces * torch.tensor([0.97, 1.0, 1.02]) - 0.01).clamp(0, 1), Crop(90, 40, 192, 280, 400)


def ghost(pasted, wall, faces):
    """How far pixels are from both the old and the new picture, beyond a cast: an old outline beside the new one."""
    square = pasted[:, 40:232, 90:282]
    far = torch.minimum((square - faces).abs().amax(-1), (square - wall[:, 40:232, 90:282]).abs().amax(-1))
    return float((far - 0.05).clamp_min(0).mean())


def seam(pasted, wall, faces):
    """The mean step across the soft edge where both the old and the new picture show the wall."""
    change, cast = (pasted - wall).mean(-1), (faces_in(wall, faces) - wall).abs().amax(-1)
    edge = torch.zeros_like(change, dtype=torch.bool)
    edge[:, 36:232, 86:286], edge[:, 56:232, 106:266] = True, False
    same = edge & (cast < 0.06)
    return float(change.diff(dim=2).abs()[same[:, :, 1:] & same[:, :, :-1]].mean())


def test_a_head_that_moves_leaves_no_second_outline_and_no_edge():
    wall, faces, crop = moved_head()
    ellipse, _ = cropping.paste_back(wall, faces, crop, feather=0.15)
    square, _ = cropping.paste_back(wall, faces, crop, shape="square", feather=0.05)
    joined, _ = cropping.paste_back(wall, faces, crop, **cropping.SOFT_SQUARE)
    assert ghost(joined, wall, faces) < 0.2 * ghost(ellipse, wall, faces)
    assert seam(joined, wall, faces) < 0.5 * seam(square, wall, faces)
    assert (joined - faces_in(wall, faces))[:, 100:170, 150:220].abs().max() < 0.01  # the middle keeps its colours


def faces_in(wall, faces):
    whole = wall.expand(len(faces), -1, -1, -1).clone()
    whole[:, 40:232, 90:282] = faces
    return whole
