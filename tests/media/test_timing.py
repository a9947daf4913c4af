"""Sound and picture of a file stay together: start offsets, gaps, jumps, cuts; and the rate of a video."""

import logging
from fractions import Fraction

import pytest
import torch
from clips import heard, offsets, remux, seen, write_clip

from imtalker.media.audio import AudioFile
from imtalker.media.timing import constant_rate, placed
from imtalker.media.video import VideoReader

av = pytest.importorskip("av")

HALF_FRAME = 0.02  # seconds
THREE_YEARS = 3 * 365 * 86400

PAIRS = [
    ("mp4", "libx264", "aac"),
    ("mp4", "mpeg4", "libmp3lame"),
    ("mp4", "mpeg4", "ac3"),
    ("mkv", "libx264", "libopus"),
    ("mkv", "mpeg4", "flac"),
    ("mkv", "ffv1", "pcm_s16le"),
    ("webm", "libvpx", "libopus"),
    ("ts", "mpeg2video", "mp2"),
    ("flv", "libx264", "aac"),
    ("mpg", "mpeg2video", "mp2"),
]


def in_sync(path, count):
    apart = offsets(path)
    assert len(apart) == count
    assert max(map(abs, apart)) < HALF_FRAME


@pytest.mark.parametrize(("suffix", "video", "audio"), PAIRS)
def test_beeps_stay_with_their_flashes_where_sound_is_missing(tmp_path, suffix, video, audio):
    whole = write_clip(tmp_path / f"whole.{suffix}", video, audio)
    in_sync(whole, 5)
    gap = tmp_path / f"gap.{suffix}"
    remux(whole, gap, lambda kind, seconds, packet: [] if kind == "audio" and 0.95 <= seconds < 1.45 else [packet])
    in_sync(gap, 4)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
@pytest.mark.parametrize(("video_late", "audio_late"), [(0, 0.3), (0.3, 0), (0.5, 0.3)])
def test_tracks_that_start_late_stay_late(tmp_path, suffix, video_late, audio_late):
    late = {"video_late": Fraction(video_late), "audio_late": Fraction(audio_late)}
    in_sync(write_clip(tmp_path / f"a.{suffix}", **late), 4 if video_late > 0.4 else 5)


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe+delay_moov", "faststart"])
def test_fragmented_files_are_in_sync(tmp_path, flags):
    in_sync(write_clip(tmp_path / "a.mp4", options={"movflags": flags}), 5)


@pytest.mark.parametrize(("suffix", "video"), [("ts", "mpeg2video"), ("mkv", "libvpx-vp9"), ("mp4", "libx264")])
@pytest.mark.parametrize("kinds", [("video",), ("video", "audio")])
def test_a_clip_cut_within_a_group_of_pictures_is_in_sync(tmp_path, suffix, video, kinds):
    whole = write_clip(tmp_path / f"a.{suffix}", video, "libopus" if "vp9" in video else "aac")
    cut = tmp_path / f"cut.{suffix}"
    remux(whole, cut, lambda kind, seconds, packet: [] if kind in kinds and seconds < 0.2 else [packet])
    apart = offsets(cut)
    assert len(apart) >= 4
    assert max(map(abs, apart)) < HALF_FRAME


def test_files_joined_end_to_end_are_read_to_the_end_and_in_sync(tmp_path, caplog):
    first, second = write_clip(tmp_path / "a.ts", seconds=1.2), write_clip(tmp_path / "b.ts")
    (tmp_path / "ab.ts").write_bytes(first.read_bytes() + second.read_bytes())
    in_sync(tmp_path / "ab.ts", 7)
    assert seen(tmp_path / "ab.ts") == pytest.approx([0.4, 0.8, 1.6, 2.0, 2.4, 2.8, 3.2], abs=0.001)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="imtalker"):
        file = AudioFile(tmp_path / "ab.ts")
        for _ in range(2):
            list(file.blocks())
    assert [record.getMessage().count("jump") for record in caplog.records] == [1], "said once"


@pytest.mark.parametrize("kinds", [("audio",), ("audio", "video")])
@pytest.mark.parametrize("seconds", [THREE_YEARS, 5000])
def test_a_jump_in_time_stamps_is_no_endless_silence(tmp_path, kinds, seconds):
    def jump(kind, time, packet):
        if kind in kinds and time >= 1:
            packet.pts += round(seconds / packet.time_base)
            packet.dts = packet.pts if kind == "audio" else packet.dts + round(seconds / packet.time_base)
        return [packet]

    broken = remux(write_clip(tmp_path / "a.mkv", "mpeg4", "flac"), tmp_path / "b.mkv", jump)
    in_sync(broken, 5)


def test_a_long_pause_of_one_track_is_kept(tmp_path):
    """The sound is away for two seconds, longer than any jitter, while the picture goes on."""
    whole = write_clip(tmp_path / "a.mkv", "mpeg4", "flac", seconds=4.8)
    pause = tmp_path / "b.mkv"
    remux(whole, pause, lambda kind, seconds, packet: [] if kind == "audio" and 1 <= seconds < 3 else [packet])
    assert heard(pause) == pytest.approx([0.4, 0.8, 3.2, 3.6, 4.0, 4.4], abs=HALF_FRAME)


def blocks_at(*times, length=100):
    return [
        (time if time is None else float(Fraction(time)), torch.full((1, length), float(i + 1))) for i, time in times
    ]


def signal(times, rate=1000, zero=None):
    return torch.cat(list(placed(blocks_at(*enumerate(times)), rate, zero)), dim=-1)[0].tolist()


def test_blocks_are_placed_at_their_times():
    assert signal(["0", "1/10", "2/10"]) == [1.0] * 100 + [2.0] * 100 + [3.0] * 100
    gap = signal(["0", "1/10", "3/10", "4/10"])
    assert gap[200:300] == [0.0] * 100
    assert gap[300:] == [3.0] * 100 + [4.0] * 100
    assert signal(["0", "1/10", "15/100", "25/100"])[150:] == [2.0] * 50 + [3.0] * 50 + [4.0] * 100, "overlap is cut"
    assert signal(["1/10", "2/10"], zero=0.05)[:50] == [0.0] * 50
    assert signal(["0", "1/10"], zero=0.15) == [2.0] * 50


def test_jitter_and_a_stray_time_stamp_change_nothing():
    still = [1.0] * 100 + [2.0] * 100 + [3.0] * 100 + [4.0] * 100
    assert signal(["0", "112/1000", "195/1000", "303/1000"]) == still
    assert signal(["0", "1", "2/10", "3/10"]) == still
    assert signal([None] * 4) == still


def test_a_clock_that_drifts_is_followed():
    """Blocks of 100 ms that come every 101 ms: after 10 s the sound is still in place."""
    drifting = signal([Fraction(i * 101, 1000) for i in range(100)])
    assert abs(drifting.index(100.0) - 99 * 101) <= 20


def milliseconds(times):
    return [Fraction(round(time * 1000), 1000) for time in times]


@pytest.mark.parametrize(
    ("stated", "times", "rate"),
    [
        (Fraction(25), [Fraction(i, 25) for i in range(50)], 25),
        (Fraction(30000, 1001), [Fraction(i * 1001, 30000) for i in range(50)], Fraction(30000, 1001)),
        (Fraction(960), [Fraction(i, 960) for i in range(50)], 960),
        # a screen recording: bursts at 60 Hz
        (Fraction(228, 100), milliseconds(i * 5 + j / 60 for i in range(5) for j in range(10)), 60),
        (Fraction(90000), milliseconds(i / 30 for i in range(50)), 30),
        (None, milliseconds(i * 1001 / 30000 for i in range(300)), Fraction(30000, 1001)),
        (None, milliseconds(i / 240 for i in range(300)), 240),
        (Fraction(1, 1000), [Fraction(i * 1000) for i in range(3)], Fraction(1, 1000)),
        # the average of a clip whose last frame is long
        (Fraction(270, 11), [Fraction(i, 25) for i in range(27)], 25),
        # a cut: the first frame is 48 ms long
        (Fraction(1523200, 61031), [Fraction(0), *(Fraction(i, 25) + Fraction(8, 1000) for i in range(1, 119))], 25),
        (Fraction(1000), [Fraction(0)], None),
        (Fraction(25), [], 25),
    ],
)
def test_the_rate_is_that_of_most_frames(stated, times, rate):
    assert constant_rate(stated, times) == rate


def test_a_screen_recording_keeps_its_timing_at_a_sane_rate(tmp_path):
    times = [Fraction(burst * 2) + Fraction(i, 30) for burst in range(3) for i in range(8)]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "gray"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(torch.full((32, 32), 20 + index * 9, dtype=torch.uint8).numpy(), "gray")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader(tmp_path / "a.mkv") as reader:
        assert reader.fps == 30
        shown = [frame[0, 0, 1].item() for frame in reader]
        assert reader.frames == len(shown) == 128
    assert len(set(shown)) == len(times), "every frame is shown"
