"""Sound of any count of channels, type and rate, also where these change within a file."""

import json
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from test_audio import write_audio

from imtalker.errors import InputError
from imtalker.media.audio import Audio, AudioFile, check_waveform, read_audio
from imtalker.media.samples import scaled
from imtalker.media.video_writer import write_video

av = pytest.importorskip("av")

ROOT = Path(__file__).parents[2]


def write_wav(path, samples, rate=8000, kind=1):
    """Writes samples (frames, channels) of a numpy type as WAV. kind: 1 whole numbers, 3 floats."""
    data = samples.tobytes()
    channels, width = samples.shape[1], samples.dtype.itemsize
    head = struct.pack("<4sI8sIHHIIHH", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, kind, channels, rate,
                       rate * channels * width, channels * width, 8 * width)  # fmt: skip
    path.write_bytes(head + struct.pack("<4sI", b"data", len(data)) + data)
    return path


COUNTS = (1, 2, 3, 6, 7, 8, 9, 16, 64)


def test_any_number_of_channels_is_read(tmp_path):
    for channels in COUNTS:
        levels = (torch.arange(channels) + 1) * 100
        write_wav(tmp_path / f"{channels}.wav", levels.short().expand(900, -1).contiguous().numpy())
    # in a process of its own: reading foreign memory may end it
    code = (
        "import json, sys; from imtalker.media.audio import read_audio\n"
        "print(json.dumps([read_audio(name).waveform[:, 450].tolist() for name in sys.argv[1:]]))"
    )
    names = [str(tmp_path / f"{channels}.wav") for channels in COUNTS]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True, cwd=ROOT)
    for channels, read in zip(COUNTS, json.loads(done.stdout), strict=True):
        assert [value * 32768 for value in read] == pytest.approx([(i + 1) * 100 for i in range(channels)])


def test_channels_in_an_unusual_order_are_read(tmp_path):
    """Front, centre, low, sides, then backs, as in Apple's files; in 7.1 the backs come first."""
    samples = ((torch.arange(8) + 1) * 100).short().expand(20000, -1)
    data = samples.numpy().astype(">i2").tobytes()
    # AIFF: the rate 8000 as an 80-bit float; 128 is the layout MPEG 7.1 C
    common = struct.pack(">4sIhIh", b"COMM", 18, 8, 20000, 16) + b"\x40\x0b\xfa" + bytes(7)
    layout = struct.pack(">4sIIII", b"CHAN", 12, 128 << 16 | 8, 0, 0)
    sound = struct.pack(">4sIII", b"SSND", 8 + len(data), 0, 0) + data
    body = b"AIFF" + layout + common + sound
    (tmp_path / "a.aiff").write_bytes(struct.pack(">4sI", b"FORM", len(body)) + body)
    code = (
        "import sys; from imtalker.media.audio import read_audio\n"
        "for _ in range(3): print(*(read_audio(sys.argv[1]).waveform[:, 450] * 32768).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.aiff")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert [float(word) for word in done.stdout.split()[-8:]] == [(i + 1) * 100 for i in range(8)]


def test_a_decoder_that_cannot_start_is_refused(tmp_path):
    """Vorbis without the headers that its decoder needs."""
    write_audio(tmp_path / "a.mkv", "pcm_s16le")
    content = (tmp_path / "a.mkv").read_bytes()
    assert b"A_PCM/INT/LIT" in content
    (tmp_path / "a.mkv").write_bytes(content.replace(b"A_PCM/INT/LIT", b"A_VORBIS".ljust(13, b"\0")))
    code = "import sys; from imtalker.media.audio import read_audio; read_audio(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.mkv")], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert "InputError" in done.stderr


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "flac"), ("a.mka", "libopus")])
def test_eight_channels_of_a_codec_are_read(tmp_path, name, codec):
    rate, tone = 48000, 0.5 * torch.sin(torch.arange(24000) * 0.05)
    levels = torch.linspace(0.2, 1, 8)[:, None]
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="7.1")
        frame = av.AudioFrame.from_ndarray((levels * tone).T.reshape(1, -1).contiguous().numpy(), "flt", "7.1")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        size = stream.codec_context.frame_size or 960
        convert = av.AudioResampler(stream.codec_context.format, "7.1", rate, frame_size=size)
        for part in [*convert.resample(frame), *convert.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    waveform = read_audio(tmp_path / name).waveform
    assert waveform.shape[0] == 8
    loudest = waveform[:, 4000:20000].abs().amax(1) / 0.5
    assert loudest[[0, 1, 4, 7]] == pytest.approx(levels[[0, 1, 4, 7], 0], abs=0.1)


def joined(folder, name, first, second, codec):
    for part, (layout, rate, frequency) in (("a", first), ("b", second)):
        write_audio(folder / f"{part}{name}", codec, layout, rate, seconds=1.0, frequency=frequency)
    (folder / f"ab{name}").write_bytes((folder / f"a{name}").read_bytes() + (folder / f"b{name}").read_bytes())
    return folder / f"ab{name}"


def pitch(waveform, rate):
    spectrum = torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs()
    return spectrum.argmax().item() * rate / len(waveform)


@pytest.mark.parametrize(("name", "codec"), [(".mp3", "libmp3lame"), (".aac", "aac"), (".ac3", "ac3")])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("stereo", 48000, 440.0), ("stereo", 22050, 440.0)),
        (("mono", 32000, 440.0), ("stereo", 48000, 700.0)),
        (("stereo", 44100, 440.0), ("mono", 44100, 700.0)),
    ],
)
def test_changes_of_rate_and_channels_are_followed(tmp_path, name, codec, first, second):
    if name == ".ac3" and second[1] == 22050:
        second = ("stereo", 32000, 440.0)
    audio = read_audio(joined(tmp_path, name, first, second, codec))
    assert audio.sample_rate == first[1]
    assert len(audio.waveform) == {"mono": 1, "stereo": 2}[first[0]]
    assert audio.seconds == pytest.approx(2, abs=0.15)
    for start, frequency in ((0.3, first[2]), (1.4, second[2])):
        part = audio.waveform[-1, round(start * audio.sample_rate) :][: audio.sample_rate // 2]
        assert pitch(part, audio.sample_rate) == pytest.approx(frequency, abs=3)
        assert part.abs().max() == pytest.approx(0.5, abs=0.06)


def test_chained_ogg_is_read_to_the_end_or_said_to_be_cut(tmp_path, caplog):
    path = joined(tmp_path, ".ogg", ("stereo", 48000, 440.0), ("mono", 48000, 700.0), "libopus")
    audio = read_audio(path)
    if "its end cannot be read" in caplog.text:  # FFmpeg 8 gives up at the second file
        assert audio.seconds == pytest.approx(1, abs=0.1)
        return
    assert audio.seconds == pytest.approx(2, abs=0.1)
    for start, frequency in ((0.3, 440), (1.4, 700)):
        part = audio.waveform[0, round(start * 48000) :][:24000]
        assert pitch(part, 48000) == pytest.approx(frequency, abs=3)


@pytest.mark.parametrize("peak", [1e3, 1e8, 1e15, 3e38])
def test_samples_beyond_sense_are_clamped(tmp_path, peak):
    samples = torch.sin(torch.arange(9000) * 0.1)[:, None] * 0.5
    samples[4000:4010] = peak
    samples[5000] = -peak
    file = AudioFile(write_wav(tmp_path / "a.wav", samples.numpy(), kind=3))
    waveform = torch.cat(list(file.blocks()), dim=-1)
    assert (waveform.max(), waveform.min()) == (1, -1)
    assert torch.equal(waveform[0, :4000], samples[:4000, 0])
    assert torch.equal(waveform, read_audio(tmp_path / "a.wav").waveform)
    assert torch.equal(waveform, check_waveform(samples.T, 8000))
    write_video(tmp_path / "a.mp4", torch.zeros(25, 16, 16, 3), 25, Audio(samples.T.sign() * peak, 8000))
    assert read_audio(tmp_path / "a.mp4").waveform.abs().max() <= 1


@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
def test_whole_numbers_are_scaled_by_their_type(kind):
    info = torch.iinfo(kind)
    middle = (info.max + info.min + 1) // 2
    values = torch.tensor([info.min, middle, info.max], dtype=kind)
    assert check_waveform(values, 8000)[0].tolist() == pytest.approx([-1, 0, 1], abs=0.01)


def test_other_types_of_samples():
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(scaled(torch.tensor([0.5, -0.25], dtype=kind)), torch.tensor([0.5, -0.25]))
    for kind in (torch.bool, torch.complex64):
        with pytest.raises(InputError, match="convert it"):
            check_waveform(torch.ones(9, dtype=kind), 8000)


def test_the_default_track_is_read(tmp_path):
    from av.stream import Disposition

    rate = 16000
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=rate, layout="mono") for _ in range(3)]
        # older PyAV takes numbers only
        streams[0].disposition, streams[1].disposition = Disposition.comment.value, Disposition.default.value
        for level, stream in enumerate(streams, 1):
            samples = torch.full((1, rate), level * 5000, dtype=torch.int16)
            frame = av.AudioFrame.from_ndarray(samples.numpy(), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.mux(stream.encode(frame))
    assert read_audio(tmp_path / "a.mkv").waveform[0, 100] * 32768 == 10000
