"""Video: exact timing of frames and audio, colours, constant memory, and never half a file."""

import logging
import math
import os
import struct
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from imtalker.errors import InputError
from imtalker.media.audio import Audio, read_audio
from imtalker.media.video import VideoReader, frame_rate
from imtalker.media.video_writer import write_video

av = pytest.importorskip("av")


def grey(levels, height=48, width=64):
    """Yields one flat frame per level in 0..255."""
    for level in levels:
        yield torch.full((height, width, 3), level, dtype=torch.uint8)


def levels(path, fps=None):
    with VideoReader(path, fps) as video:
        return [frame.float().mean().item() for frame in video]


def tone(seconds, rate=16000, channels=1):
    return Audio(0.3 * torch.sin(torch.arange(round(seconds * rate)) * 0.1).expand(channels, -1), rate)


def write_variable(path, times, shades, step=Fraction(1, 1000), size=(64, 48)):
    """Writes flat frames at the given times in seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height = size
        stream.codec_context.time_base = step
        for time, shade in zip(times, shades, strict=True):
            frame = av.VideoFrame.from_ndarray(
                torch.full((size[1], size[0], 3), shade, dtype=torch.uint8).numpy(), "rgb24"
            ).reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time / step), step
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("fps", [25, 25.0, 24, 23.976, 29.97, 30, 59.94, 60, Fraction(25, 2)])
def test_counts_and_durations_are_exact(tmp_path, fps):
    rate = frame_rate(fps)
    path = tmp_path / "a.mp4"
    assert write_video(path, grey(range(37)), fps, tone(9)) == 37
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.average_rate == rate
        assert video.frames == 37
        assert video.duration * video.time_base == 37 / rate
        assert audio.duration == pytest.approx(37 * 16000 / rate, abs=2)
        assert video.start_time == 0
    with VideoReader(path) as reader:
        assert reader.fps == rate
        assert reader.frames == 37
        assert reader.has_audio
        assert reader.seconds == pytest.approx(37 / rate)
        assert len(list(reader)) == 37


def test_frame_rates_become_exact_fractions():
    assert frame_rate(29.97) == Fraction(30000, 1001)
    assert frame_rate(23.976) == frame_rate(Fraction(24000, 1001)) == Fraction(24000, 1001)
    assert frame_rate(25.0) == 25
    assert frame_rate(12.5) == Fraction(25, 2)
    assert frame_rate(30) == 30
    assert frame_rate(0.02) == Fraction(1, 50)
    for fps in (0, -25, math.nan, math.inf, 1e-9, 0.001):
        with pytest.raises(InputError, match="frame rate"):
            frame_rate(fps)


@pytest.mark.parametrize("sides", [(2, 16386), (16386, 2)])
def test_frames_too_large_for_the_codec_are_a_sentence(tmp_path, sides):
    with pytest.raises(InputError, match="too large for H"):
        write_video(tmp_path / "a.mp4", torch.zeros(1, *sides, 3), 25)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("fps", "rate"), [(25, 16000), (29.97, 44100), (60, 48000), (24, 22050)])
def test_a_flash_and_a_click_are_in_sync(tmp_path, fps, rate):
    flash = 20
    click = torch.zeros(1, rate * 2)
    start = round(flash * rate / frame_rate(fps))
    click[:, start : start + rate // 200] = 0.9
    write_video(tmp_path / "a.mp4", grey([255 if i == flash else 0 for i in range(40)]), fps, Audio(click, rate))
    assert [i for i, level in enumerate(levels(tmp_path / "a.mp4")) if level > 128] == [flash]
    sound = read_audio(tmp_path / "a.mp4")
    heard = sound.waveform[0].abs().gt(0.3).nonzero()[0].item() / sound.sample_rate
    assert heard == pytest.approx(start / rate, abs=0.003)


def test_audio_that_starts_late_stays_late(tmp_path):
    """The audio starts half a second after the video."""
    with av.open(str(tmp_path / "late.mkv"), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for index in range(50):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        block = av.AudioFrame.from_ndarray(torch.full((1, 8000), 9999, dtype=torch.int16).numpy(), "s16", "mono")
        block.sample_rate, block.pts, block.time_base = 16000, 8000, Fraction(1, 16000)
        container.mux(audio.encode(block))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    waveform = read_audio(tmp_path / "late.mkv").waveform
    assert waveform.shape == (1, 16000)
    assert waveform[0, :7990].abs().max() == 0
    assert waveform[0, 8010:].min() > 0.3


@pytest.mark.parametrize("seconds", [0.01, 0.5, 1.0, 3.0])
def test_audio_is_cut_or_padded_to_the_length_of_the_video(tmp_path, seconds):
    write_video(tmp_path / "a.mp4", grey([0] * 25), 25, tone(seconds, 48000))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio[0].duration == 48000
    waveform = read_audio(tmp_path / "a.mp4").waveform[0]
    if seconds < 1:
        assert waveform[round(seconds * 48000) + 2048 :].abs().max() < 0.01


@pytest.mark.parametrize(("channels", "kept"), [(1, 1), (2, 2), (3, 2), (6, 2), (9, 2)])
def test_more_than_two_channels_become_stereo_without_clipping(tmp_path, channels, kept):
    write_video(tmp_path / "a.mp4", grey([0] * 10), 25, tone(0.4, 44100, channels))
    waveform = read_audio(tmp_path / "a.mp4").waveform
    assert len(waveform) == kept
    assert waveform[:, 4000:12000].abs().max() == pytest.approx(0.3, abs=0.02)


def test_stereo_channels_stay_separate(tmp_path):
    left = tone(0.4, 44100).waveform
    write_video(tmp_path / "a.mp4", grey([0] * 10), 25, Audio(torch.cat([left, 0 * left]), 44100))
    waveform = read_audio(tmp_path / "a.mp4").waveform
    assert waveform[0].abs().max() > 0.25
    assert waveform[1].abs().max() < 0.02


@pytest.mark.parametrize(
    ("rate", "kept"), [(8000, 8000), (11025, 11025), (44100, 44100), (96000, 96000), (192000, 48000)]
)
def test_audio_keeps_its_sample_rate_if_aac_supports_it(tmp_path, rate, kept):
    write_video(tmp_path / "a.mp4", grey([0] * 10), 25, tone(0.4, rate))
    audio = read_audio(tmp_path / "a.mp4")
    assert audio.sample_rate == kept
    assert audio.seconds == pytest.approx(0.4, abs=1024 / kept + 0.001)


def test_colours_survive_writing_and_reading(tmp_path):
    """Flat patches, to which chroma subsampling does not matter."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(1, 4, 6, 3, generator=generator)
    image = patches.repeat_interleave(32, 1).repeat_interleave(32, 2)
    write_video(tmp_path / "a.mp4", [image] * 5, 25, crf=8)
    with VideoReader(tmp_path / "a.mp4") as video:
        shown = torch.stack(list(video))[2]
    error = shown.float() - image[0] * 255
    assert error.unflatten(0, (4, 32)).unflatten(2, (6, 32))[:, 8:24, :, 8:24].abs().max() <= 5


def test_frames_are_read_neither_darker_nor_tinted(tmp_path):
    across, down = torch.meshgrid(torch.linspace(0.1, 0.9, 256), torch.linspace(0.2, 0.8, 256), indexing="xy")
    image = torch.stack([across, (across + down) / 2, 1 - down], dim=-1)
    write_video(tmp_path / "a.mp4", [image], 25, crf=0)
    with VideoReader(tmp_path / "a.mp4") as video:
        error = next(iter(video)).float() - image * 255
    assert error.mean((0, 1)).abs().max() <= 0.5


@pytest.mark.parametrize(("space", "full"), [(1, False), (1, True), (5, False), (5, True), (2, False)])
def test_the_files_own_colour_matrix_is_used(tmp_path, space, full):
    """Luma and chroma computed from the standards; a small untagged file is bt601."""
    colour = torch.tensor([200.0, 40.0, 90.0])
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 2: (0.299, 0.114)}[space]
    luma = (colour * torch.tensor([red, 1 - red - blue, blue])).sum()
    chroma = (colour[2] - luma) / (2 - 2 * blue), (colour[0] - luma) / (2 - 2 * red)
    planes = [luma if full else 16 + luma * 219 / 255, *(128 + c * (1 if full else 224 / 255) for c in chroma)]
    frame = av.VideoFrame(64, 64, "yuv420p")
    for plane, value in zip(frame.planes, planes, strict=True):
        plane.update(bytes([round(value.item())]) * plane.buffer_size)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width = stream.height = 64
        stream.codec_context.colorspace, stream.codec_context.color_range = space, 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader(tmp_path / "a.mp4") as video:
        assert (next(iter(video))[20:40, 20:40].float().mean((0, 1)) - colour).abs().max() <= 3


def test_float_uint8_and_blocks_of_frames_give_the_same_file(tmp_path):
    frames = (torch.rand(6, 32, 32, 3) * 255).round().to(torch.uint8)
    write_video(tmp_path / "a.mp4", frames, 25)
    write_video(tmp_path / "b.mp4", [(frames[:4] - 0.3) / 255, frames[4] / 255, frames[5:].double() / 255], 25)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    bright = torch.full((1, 32, 32, 3), 1.7)
    write_video(tmp_path / "c.mp4", [bright, -bright], 25)
    assert levels(tmp_path / "c.mp4") == pytest.approx([255, 0], abs=2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 8), (8, 7), (33, 17)])
def test_odd_sizes_are_padded_with_their_edge(tmp_path, height, width):
    image = torch.zeros(height, width, 3)
    image[-1], image[:, -1] = 1, 1
    write_video(tmp_path / "a.mp4", [image], 25, crf=1)
    with VideoReader(tmp_path / "a.mp4") as video:
        shown = next(iter(video))
    assert shown.shape == (height + height % 2, width + width % 2, 3)
    assert shown[-1].min() > 200
    assert shown[:, -1].min() > 200


def test_files_have_their_tags_codecs_and_index_at_the_front(tmp_path):
    tags = {"title": "A talk", "comment": "made by hand", "workflow": '{"nodes": []}'}
    write_video(tmp_path / "a.mp4", grey(range(30)), 25, tone(1.2), metadata=tags)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert tags.items() <= dict(container.metadata).items()
        context = container.streams.video[0].codec_context
        assert context.name == "h264"
        assert context.pix_fmt == "yuv420p"
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert container.streams.audio[0].codec_context.name == "aac"
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    write_video(tmp_path / "b.mov", grey(range(3)), 25, metadata={"title": "A talk"})
    with av.open(str(tmp_path / "b.mov")) as container:
        assert container.metadata["title"] == "A talk"


def test_variable_frame_rates_keep_their_timing(tmp_path):
    shades = [0, 50, 100, 150, 200]
    path = write_variable(tmp_path / "a.mkv", [0, 0.1, 0.5, 0.52, 1.0], shades)
    shown = levels(path, 25)
    for time, shade in [(0.04, 0), (0.12, 50), (0.48, 50), (0.52, 150), (0.96, 150), (1.0, 200)]:
        assert shown[round(time * 25)] == pytest.approx(shade, abs=4), time


def test_times_count_from_the_first_frame(tmp_path):
    path = write_variable(tmp_path / "a.mkv", [3.0, 3.04, 3.08], [0, 100, 200])
    assert levels(path, 25)[:3] == pytest.approx([0, 100, 200], abs=4)


@pytest.mark.parametrize("fps", [29.97, 30, 60, 23.976])
def test_rounded_times_drop_and_repeat_no_frame(tmp_path, fps):
    """Matroska stores whole milliseconds."""
    rate = frame_rate(fps)
    shades = [(i * 37) % 250 for i in range(60)]
    path = write_variable(tmp_path / "a.mkv", [i / rate for i in range(60)], shades)
    assert levels(path, fps)[:60] == pytest.approx(shades, abs=5)


def test_another_frame_rate_keeps_the_timing(tmp_path):
    write_video(tmp_path / "a.mp4", grey(range(0, 240, 4)), 60)
    assert levels(tmp_path / "a.mp4", 25) == pytest.approx([4 * (i * 60 // 25) for i in range(25)], abs=3)
    assert levels(tmp_path / "a.mp4", 120) == pytest.approx([4 * (i // 2) for i in range(120)], abs=3)
    with VideoReader(tmp_path / "a.mp4", 25) as video:
        assert video.frames == 25
        assert video.fps == 25
        assert torch.equal(torch.stack(list(video)), torch.stack(list(video)))


# a, b, c, d of the display matrix
MATRICES = {
    "none": (1, 0, 0, 1),
    "90": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "270": (0, -1, 1, 0),
    "mirror": (-1, 0, 0, 1),
    "transpose": (0, 1, 1, 0),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_display_matrix_is_applied(tmp_path, name):
    a, b, c, d = MATRICES[name]
    stored = torch.zeros(32, 64, 3)
    stored[:16, :32], stored[:16, 32:], stored[16:, :32] = 0.25, 0.5, 0.75
    write_video(tmp_path / "a.mp4", [stored] * 3, 25)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    # in version 0 of the track header the matrix comes 44 bytes after the name
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *(n << 16 for n in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data)
    with VideoReader(tmp_path / "a.mp4") as video:
        shown = next(iter(video))
        assert (video.height, video.width) == shown.shape[:2] == ((32, 64) if a else (64, 32))
    for y, x in [(8, 16), (8, 48), (24, 16), (24, 48)]:
        # where the standard puts a stored point, measured from the centre
        u, v = x - 31.5, y - 15.5
        across, down = a * u + c * v + (video.width - 1) / 2, b * u + d * v + (video.height - 1) / 2
        assert shown[round(down), round(across)].float().mean() == pytest.approx(stored[y, x, 0].item() * 255, abs=6)


def write_broken(path, wrong):
    """Writes 20 frames, each ten levels brighter; the data of those in `wrong` is zeros."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for index, image in enumerate(grey(range(0, 200, 10))):
            frame = av.VideoFrame.from_ndarray(image.numpy(), "rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            for packet in stream.encode(frame):
                if index in wrong:
                    broken = av.Packet(bytes(50))
                    broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                    broken.stream = stream
                    packet = broken
                container.mux(packet)
        container.mux(stream.encode(None))
    return path


def test_a_broken_frame_is_skipped_and_counted(tmp_path, caplog):
    write_broken(tmp_path / "a.mkv", (5, 6))
    with caplog.at_level(logging.WARNING, logger="imtalker"):
        shown = levels(tmp_path / "a.mkv")
    assert shown == pytest.approx([40 if i in (5, 6) else 10 * i for i in range(20)], abs=4)
    assert [r.getMessage() for r in caplog.records if "skipped 2 broken video frames" in r.getMessage()]


def test_unreadable_files_are_refused(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 100)
    write_video(tmp_path / "whole.mp4", grey(range(20)), 25)
    (tmp_path / "cut.mkv").write_bytes(write_variable(tmp_path / "b.mkv", [0, 1], [0, 9]).read_bytes()[:500])
    (tmp_path / "half.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:700])
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        block = av.AudioFrame.from_ndarray(torch.zeros(1, 800).short().numpy(), "s16", "mono")
        block.sample_rate = 8000
        container.mux(stream.encode(block))
    write_broken(tmp_path / "broken.mkv", range(20))
    for name in ("missing.mp4", "broken.mkv", "empty.mp4", "text.mp4", "half.mp4", "cut.mkv", "sound.wav", "."):
        with pytest.raises(InputError) as refusal:
            VideoReader(tmp_path / name)
        assert str(tmp_path / name) in str(refusal.value)
        assert "\n" not in str(refusal.value)


def broken_stream(exception):
    yield from grey(range(20))
    raise exception


@pytest.mark.parametrize("exception", [RuntimeError("no memory"), KeyboardInterrupt(), SystemExit(3), OSError("odd")])
def test_any_error_leaves_only_the_older_file(tmp_path, exception):
    path = tmp_path / "a.mp4"
    path.write_text("an earlier result")
    with pytest.raises(type(exception)) as raised:
        write_video(path, broken_stream(exception), 25, tone(1))
    assert raised.value is exception
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert path.read_text() == "an earlier result"


def test_the_file_is_replaced_only_when_it_is_complete(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("an earlier result")

    def watched():
        for frame in grey(range(60)):
            assert path.read_text() == "an earlier result"
            yield frame

    assert write_video(path, watched(), 25) == 60
    assert len(levels(path)) == 60
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path):
    (tmp_path / f".a.partial-{os.getpid()}.mp4").symlink_to("/dev/full")
    noise = (torch.rand(64, 64, 3) for _ in range(60))
    with pytest.raises(InputError, match="disk is full"):
        write_video(tmp_path / "a.mp4", noise, 25, tone(3))
    assert os.listdir(tmp_path) == []


def test_unusable_frames_audio_and_paths_are_refused(tmp_path):
    with pytest.raises(InputError, match="no frames"):
        write_video(tmp_path / "a.mp4", [], 25)
    with pytest.raises(InputError, match="folder"):
        write_video(tmp_path / "none" / "a.mp4", grey([0]), 25)
    with pytest.raises(InputError, match=r"end in \.mp4"):
        write_video(tmp_path / "a.avi", grey([0]), 25)
    with pytest.raises(InputError, match=r"\(4, 4\)"):
        write_video(tmp_path / "a.mp4", [torch.zeros(4, 4)], 25)
    with pytest.raises(InputError, match=r"64x50.*64x48"):
        write_video(tmp_path / "a.mp4", [torch.zeros(48, 64, 3), torch.zeros(50, 64, 3)], 25)
    with pytest.raises(InputError, match="NaN"):
        write_video(tmp_path / "a.mp4", grey([0]), 25, Audio(torch.tensor([[math.nan]]), 16000))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux, which reports memory in /proc")
def test_memory_does_not_grow_with_the_length(tmp_path):
    """300 more frames of this size are 69 MB as bytes, four times as much as floats."""

    def measured(frames):
        for index, frame in enumerate(frames):
            if index in (100, 400):
                pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
            yield frame

    pages = []
    shades = (torch.full((240, 320, 3), index / 401) for index in range(401))
    write_video(tmp_path / "a.mp4", measured(shades), 25, tone(1), preset="ultrafast")
    with VideoReader(tmp_path / "a.mp4") as video:
        assert sum(1 for _ in measured(video)) == 401
    assert max(pages[1] - pages[0], pages[3] - pages[2]) * os.sysconf("SC_PAGE_SIZE") < 30e6
