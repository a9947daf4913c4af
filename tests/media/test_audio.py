"""Audio: exact lengths, soxr's numbers, every file format, and a sentence for unusable input."""

import logging
import math
import time
import wave
from fractions import Fraction

import pytest
import torch

from imtalker.errors import InputError
from imtalker.media.audio import SAMPLE_RATE, Audio, check_waveform, frame_count, normalise, read_audio, to_mono_16k
from imtalker.media.resampling import resample

av = pytest.importorskip("av")


def speech_like(rate: int, seconds: float = 3.0) -> torch.Tensor:
    """Noise that falls 12 dB per octave above 500 Hz, in syllables, plus a chirp up to 7 kHz: (samples,)."""
    generator = torch.Generator().manual_seed(rate)
    samples = round(rate * seconds)
    time = torch.arange(samples) / rate
    frequency = torch.fft.rfftfreq(samples, 1 / rate)
    spectrum = torch.randn(len(frequency), dtype=torch.complex64, generator=generator)
    noise = torch.fft.irfft(spectrum * (frequency > 60) / (1 + (frequency / 500) ** 2), samples)
    noise = noise * (0.5 + 0.5 * torch.sin(2 * math.pi * 4 * time))
    chirp = torch.sin(2 * math.pi * (50 * time + 6950 * time.double() ** 2 / 2 / seconds)).float()
    return 0.5 * noise / noise.abs().max() + 0.1 * chirp


def write_audio(path, codec, layout="mono", rate=44100, seconds=0.5, format=None, frequency=440.0):
    """Writes a sine at half scale, the same in every channel; returns its samples."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if format:
            stream.codec_context.format = format
        channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
        tone = 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(round(rate * seconds)) / rate)
        frame = av.AudioFrame.from_ndarray(tone.expand(channels, -1).contiguous().numpy(), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        convert = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        for part in convert.resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return tone


# At 8 kHz the chirp crosses the Nyquist frequency, where the two filters differ most.
@pytest.mark.parametrize(("rate", "decibels"), [(44100, -75), (48000, -85), (24000, -85), (22050, -70), (8000, -65)])
def test_resampling_matches_soxr_hq(rate, decibels):
    soxr = pytest.importorskip("soxr")
    signal = speech_like(rate) if rate > SAMPLE_RATE else resample(speech_like(48000), 48000, rate)
    expected = torch.from_numpy(soxr.resample(signal.numpy(), rate, SAMPLE_RATE, "HQ"))
    got = resample(signal, rate, SAMPLE_RATE)
    assert got.shape == expected.shape
    assert 20 * math.log10((got - expected).square().mean().sqrt() / expected.square().mean().sqrt()) < decibels


@pytest.mark.parametrize("rate", [7350, 8000, 11025, 16000, 44099, 96000, 191999, 192000])
def test_the_length_is_exact_at_every_rate(rate):
    for samples in (1, 2, 639, 1000 if rate == 191999 else 5001):
        got = resample(torch.ones(2, samples), rate, SAMPLE_RATE)
        assert got.shape == (2, math.ceil(Fraction(samples * SAMPLE_RATE, rate))), samples
        assert got.isfinite().all(), samples


def test_resampling_keeps_a_constant_and_does_not_shift_time():
    assert torch.allclose(resample(torch.ones(40000), 44100, 16000)[300:-300], torch.ones(()), atol=1e-6)
    click = torch.zeros(44100)
    click[22050] = 1
    assert resample(click, 44100, 16000).argmax() == 8000
    assert resample(click, 44100, 48000).argmax() == 24000


def test_smaller_products_give_the_same_numbers(monkeypatch):
    signal = speech_like(44100, 1.0).expand(2, -1)
    whole = resample(signal, 44100, 16000)
    monkeypatch.setattr("imtalker.media.resampling.GATHERED", 5000)
    assert torch.allclose(resample(signal, 44100, 16000), whole, atol=1e-6)
    assert torch.allclose(resample(signal[0], 44100, 16000), whole[0], atol=1e-6)


def test_resampling_ten_minutes_takes_seconds():
    start = time.perf_counter()
    assert resample(torch.zeros(48000 * 600), 48000, 16000).shape == (16000 * 600,)
    assert time.perf_counter() - start < 15


def test_channels_are_averaged_before_resampling():
    signal = speech_like(44100, 0.5)
    assert torch.allclose(to_mono_16k(torch.stack([signal, -signal]), 44100), torch.zeros(()), atol=1e-6)
    assert torch.allclose(to_mono_16k(signal.expand(6, -1), 44100), resample(signal, 44100, 16000), atol=1e-5)
    assert to_mono_16k(signal, 16000).shape == signal.shape


def test_normalised_audio_has_zero_mean_and_unit_variance_and_silence_stays_silent():
    signal = normalise(3 + 5 * speech_like(16000))
    assert abs(signal.mean()) < 1e-5
    assert abs(signal.var(correction=0) - 1) < 1e-4
    assert torch.equal(normalise(torch.zeros(100)), torch.zeros(100))
    assert normalise(torch.ones(1)).isfinite().all()


def test_frame_count_rounds_up_exactly():
    assert [frame_count(samples) for samples in (1, 639, 640, 641, 16000, 16001)] == [1, 1, 1, 2, 25, 26]
    # in floating point the last sample would be lost
    assert frame_count(640 * 10**15 + 1) == 10**15 + 1


def test_waveforms_of_any_shape_become_channels_by_samples(caplog):
    assert check_waveform(torch.zeros(10), 8000).shape == (1, 10)
    assert check_waveform(torch.zeros(9, 1), 192000).shape == (9, 1)
    assert check_waveform(torch.zeros(1, 2, 10, dtype=torch.float64), 8000).dtype == torch.float32
    assert not caplog.records
    with caplog.at_level(logging.WARNING, logger="imtalker"):
        batch = torch.arange(3.0)[:, None, None].expand(3, 2, 10)
        assert torch.equal(check_waveform(batch, 8000), torch.zeros(2, 10))
    assert "batch of 3 clips" in caplog.text


@pytest.mark.parametrize(
    ("waveform", "rate", "words"),
    [
        (torch.zeros(0), 16000, "empty"),
        (torch.zeros(1, 2, 0), 16000, "empty"),
        (torch.zeros(1, 1, 1, 1), 16000, "shape"),
        (torch.tensor([0.0, math.nan]), 16000, "NaN"),
        (torch.tensor([0.0, math.inf]), 16000, "infinite"),
        (torch.zeros(10), 0, "rate"),
        (torch.zeros(10), -8000, "rate"),
    ],
)
def test_unusable_waveforms_are_refused(waveform, rate, words):
    with pytest.raises(InputError, match=words):
        to_mono_16k(waveform, rate)


@pytest.mark.parametrize(
    ("name", "codec", "layout", "rate", "format"),
    [
        ("a.wav", "pcm_s16le", "stereo", 44100, None),
        ("b.wav", "pcm_u8", "mono", 8000, None),
        ("c.wav", "pcm_s32le", "mono", 192000, None),
        ("d.wav", "pcm_f32le", "5.1", 48000, None),
        ("e.wav", "pcm_f64le", "mono", 22050, None),
        ("f.flac", "flac", "stereo", 96000, "s16"),
        ("g.m4a", "aac", "mono", 44100, None),
        ("h.mp3", "libmp3lame", "stereo", 44100, None),
        ("i.ogg", "libopus", "stereo", 48000, None),
        ("j.mkv", "pcm_s24le", "mono", 16000, None),
    ],
)
def test_every_format_gives_the_same_tone(tmp_path, name, codec, layout, rate, format):
    tone = write_audio(tmp_path / name, codec, layout, rate, format=format)
    audio = read_audio(tmp_path / name)
    assert audio.sample_rate == rate
    assert audio.waveform.dtype == torch.float32
    assert len(audio.waveform) == {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    exact = name.endswith(("wav", "flac", "mkv"))
    # lossy formats pad their last block, but must start in time
    assert audio.seconds == pytest.approx(0.5, abs=0 if exact else 0.1)
    middle = slice(len(tone) // 4, len(tone) // 2)
    assert torch.allclose(audio.waveform[0, middle], tone[middle], atol=0.01 if exact else 0.05)


def test_tags_in_another_alphabet_do_not_prevent_reading(tmp_path):
    with wave.open(str(tmp_path / "tagged.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000), file.writeframes(bytes(1600))
    title = b"\xcf\xf0\xe8\xe2\xe5\xf2\xff\x00"  # cp1251
    body = b"LIST" + (12 + len(title)).to_bytes(4, "little") + b"INFOINAM" + len(title).to_bytes(4, "little") + title
    data = (tmp_path / "tagged.wav").read_bytes() + body
    (tmp_path / "tagged.wav").write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    assert read_audio(tmp_path / "tagged.wav").waveform.shape == (1, 800)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no file.*missing.wav"):
        read_audio(tmp_path / "missing.wav")
    with pytest.raises(InputError, match="is a folder"):
        read_audio(tmp_path)
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 100)
    for name in ("empty.mp3", "text.mp4"):
        with pytest.raises(InputError, match=name):
            read_audio(tmp_path / name)
    with av.open(str(tmp_path / "silent.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"silent.mp4 has no sound"):
        read_audio(tmp_path / "silent.mp4")
    with wave.open(str(tmp_path / "nothing.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
    with pytest.raises(InputError, match=r"nothing.wav"):
        read_audio(tmp_path / "nothing.wav")


def test_audio_duration_is_samples_over_rate():
    assert Audio(torch.zeros(2, 24000), 16000).seconds == 1.5


def test_audio_in_memory_has_one_form_whatever_it_is_made_of():
    audio = Audio(torch.rand(2, 1, 50, dtype=torch.float64, requires_grad=True), 16000)
    assert (audio.waveform.shape, audio.waveform.dtype, audio.waveform.requires_grad) == ((1, 50), torch.float32, False)
    assert Audio(torch.zeros(50), 16000).waveform.shape == (1, 50)
    for bad, words in ((torch.zeros(1, 0), "empty"), (torch.tensor([[0.0, math.nan]]), "NaN")):
        with pytest.raises(InputError, match=words):
            Audio(bad, 16000)
