"""Frames as planes: what libswscale makes of the same frames, and what a reader of the file sees."""

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import fake_device
from benchmarks.fake_device import FakeDevice
from imtalker import InputError
from imtalker.media.planes import Planes, to_planes
from imtalker.media.video import BT709, FULL, LIMITED, VideoReader
from imtalker.media.video_writer import write_video
from imtalker.models import backend


def pictures(height, width):
    """Noise, something smooth, and hard edges of colour at odd places; uint8 (3,H,W,3)."""
    random = torch.Generator().manual_seed(height)
    noise = torch.rand(height, width, 3, generator=random)
    coarse = torch.rand(1, 3, 5, 7, generator=random)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)
    edges = torch.zeros(height, width, 3)
    edges[:, 33:, 0], edges[21:, :, 2], edges[41:, 7:9] = 1.0, 0.8, 1.0
    return torch.stack([noise, smooth, edges]).mul(255).round().to(torch.uint8)


def by_swscale(picture):
    frame = av.VideoFrame.from_ndarray(picture.numpy(), format="rgb24").reformat(
        format="yuv420p", dst_colorspace=BT709, src_color_range=FULL, dst_color_range=LIMITED
    )
    planes = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width] for plane in frame.planes]
    return torch.cat([torch.from_numpy(plane.copy()).flatten() for plane in planes])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 48), (66, 98)])
def test_planes_are_those_of_libswscale(height, width):
    frames = pictures(height, width)
    found = to_planes(frames / 255)
    assert (found.dtype, found.shape) == (torch.uint8, (3, height * 3 // 2, width))
    for planes, picture in zip(found, frames):
        difference = (planes.flatten().int() - by_swscale(picture).int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 0.1, "a shifted colour or another rounding differs everywhere"


def test_odd_sides_repeat_their_edge():
    frames = pictures(65, 49) / 255
    padded = F.pad(frames.permute(0, 3, 1, 2), (0, 1, 0, 1), mode="replicate").permute(0, 2, 3, 1)
    assert torch.equal(to_planes(frames), to_planes(padded))


def test_values_out_of_range_are_cut():
    frames = torch.tensor([-3.0, 0.0, 1.0, 7.0])[:, None, None, None].expand(-1, 4, 4, 3)
    assert to_planes(frames)[:, :4].flatten(1).unique(dim=1).tolist() == [[16], [16], [235], [235]]
    assert (to_planes(frames)[:, 4:] == 128).all()


def test_a_file_of_planes_shows_the_same_picture(tmp_path):
    frames = pictures(64, 96)
    write_video(tmp_path / "rgb.mp4", [frames], 25, crf=0)
    assert write_video(tmp_path / "planes.mp4", [Planes(to_planes(frames[:2] / 255)), frames[2]], 25, crf=0) == 3
    shown = []
    for name in ("rgb", "planes"):
        with VideoReader(tmp_path / f"{name}.mp4") as video:
            shown.append(torch.stack(list(video)).float())
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            context = container.streams.video[0].codec_context
            assert (context.pix_fmt, context.colorspace, context.color_range) == ("yuv420p", BT709, LIMITED)
    difference = (shown[0] - shown[1]).abs()
    assert difference.max() <= 3, "1 of each plane, and what a reader makes of it"
    assert difference.mean() < 0.2


def test_planes_of_another_size_are_refused(tmp_path):
    blocks = [torch.zeros(64, 64, 3), Planes(to_planes(torch.zeros(1, 64, 48, 3)))]
    with pytest.raises(InputError, match="48x64"):
        write_video(tmp_path / "a.mp4", blocks, 25)


def test_on_a_cpu_frames_stay_frames():
    frames = [torch.rand(2, 8, 8, 3)]
    assert torch.equal(next(backend.to_file(frames)), frames[0])


@pytest.mark.skipif(bool(fake_device.why_not()), reason=str(fake_device.why_not()))
@pytest.mark.parametrize("name", ["cuda:0", "cuda:1"])
def test_from_a_device_come_bytes_on_a_stream_of_their_own(name):
    with FakeDevice() as gpu:
        frames = (torch.rand(2, 16, 16, 3, device=name) for _ in range(3))
        blocks = list(backend.to_file(frames))
        assert [(type(block), block.values.shape, block.values.device.type) for block in blocks] == [
            (Planes, (2, 24, 16), "cpu")
        ] * 3
        assert not gpu.faults
        assert not gpu.syncs
