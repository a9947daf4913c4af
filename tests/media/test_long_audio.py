"""Long audio: reading, resampling, features and soundtrack in blocks equal those of the whole."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_audio import speech_like, write_audio
from tiny import generator_config, tiny_generator
from torch.utils._python_dispatch import TorchDispatchMode

from imtalker.errors import InputError
from imtalker.media.audio import (
    SAMPLE_RATE,
    Audio,
    AudioFile,
    frame_count,
    mono_16k,
    normalise,
    read_audio,
    to_mono_16k,
)
from imtalker.media.resampling import BlockReader, resample, resample_blocks
from imtalker.media.video_writer import Soundtrack
from imtalker.models import audio_encoder
from imtalker.models.audio_encoder import encoding_memory, longest_window, window_starts
from imtalker.models.config import AudioConfig


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


def speech(samples: int) -> torch.Tensor:
    """(samples,) at 16 kHz, off centre, with a varying level."""
    torch.manual_seed(samples)
    time = torch.arange(samples) / SAMPLE_RATE
    return (0.1 + (0.2 + 0.15 * torch.sin(2 * time)) * torch.randn(samples)).clamp(-1, 1)


@torch.inference_mode()
def whole(generator, waveform: torch.Tensor) -> torch.Tensor:
    """Features as in the specification: all frames in one pass through transformers' own modules."""
    wav2vec2, frames = generator.audio_encoder.wav2vec2, frame_count(len(waveform))
    x = normalise(waveform)
    x = torch.cat([x, x[-1:].expand(640 * frames - len(x))])
    x = wav2vec2.feature_extractor(x[None])
    x = F.interpolate(x, size=frames, mode="linear", align_corners=True)
    return wav2vec2.encoder(wav2vec2.feature_projection(x.transpose(1, 2))[0]).last_hidden_state[0]


def use_few_frames(monkeypatch, frames: int) -> None:
    monkeypatch.setattr(audio_encoder, "CONVOLVED", frames)
    monkeypatch.setattr(audio_encoder, "ATTENDING", frames)


@pytest.mark.parametrize("samples", [1, 9, 639, 640, 641, 10 * 640 - 1, 10 * 640, 10 * 640 + 1, 20 * 640, 33 * 640 - 7])
def test_features_in_blocks_equal_the_whole(generator, monkeypatch, samples):
    waveform = speech(samples)
    expected = whole(generator, waveform)
    use_few_frames(monkeypatch, 10)
    monkeypatch.setattr("imtalker.media.audio.BLOCK", 777)
    features = generator.encode_audio(waveform[None], SAMPLE_RATE).features
    torch.testing.assert_close(features, expected, rtol=0, atol=2e-5)


def test_features_do_not_depend_on_the_block_length(generator, monkeypatch):
    waveform = speech(57 * 640 + 5)
    expected = whole(generator, waveform)
    for frames in (1, 2, 19, 29, 58, 59):
        use_few_frames(monkeypatch, frames)
        features = generator.encode_audio(waveform[None], SAMPLE_RATE).features
        torch.testing.assert_close(features, expected, rtol=0, atol=2e-5)


def test_features_of_other_strides_are_interpolated(monkeypatch):
    """wav2vec2-base makes exactly two steps per frame; other strides need interpolation."""
    config = generator_config()
    strides = (5, 2, 2, 2, 2, 2, 1)
    audio = AudioConfig(**{**vars(config.audio), "conv_stride": strides, "conv_kernel": (10, 3, 3, 3, 3, 2, 3)})
    odd = audio_encoder.AudioEncoder(audio).eval().requires_grad_(False)
    waveform = speech(31 * 640 - 100)
    holder = type("Holder", (), {"audio_encoder": odd})
    use_few_frames(monkeypatch, 7)
    found = torch.cat(list(odd.features([waveform], odd.measure([waveform]))))
    torch.testing.assert_close(found, whole(holder, waveform), rtol=0, atol=2e-5)


@pytest.mark.parametrize("level", [0.0, 1e-4, 0.3])
def test_features_of_quiet_and_off_centre_audio_equal_the_whole(generator, level):
    waveform = 0.7 + level * speech(5000)
    features = generator.encode_audio(waveform[None], SAMPLE_RATE).features
    # at 1e-4 on top of an offset the reference itself is only accurate to a few digits in float32
    centred = (waveform.double() - waveform.double().mean()).float() if level else torch.zeros(5000)
    torch.testing.assert_close(features, whole(generator, centred), rtol=0, atol=1e-3 if level == 1e-4 else 2e-5)


def test_a_stream_of_features_can_be_read_twice_and_sampled(generator):
    sound = Audio(speech(70 * 640)[None], SAMPLE_RATE)
    heard = generator.listen(sound)
    features = generator.encode_audio(sound.waveform, SAMPLE_RATE)
    assert len(heard) == 70
    for _ in range(2):
        assert torch.equal(torch.cat(list(heard.blocks())), features.features)
    source = type("Source", (), {"motion": torch.ones(1, 8), "generation": "v2"})
    assert torch.equal(
        generator.sample(heard, source, nfe=3).latents, generator.sample(features, source, nfe=3).latents
    )
    next(generator.stream(heard, source, nfe=3))
    assert not torch.is_inference_mode_enabled()


def test_progress_counts_every_frame_and_can_stop_the_work(generator):
    counts = []
    waveform = speech(700 * 640)
    heard = generator.listen(Audio(waveform[None], SAMPLE_RATE), progress=counts.append)
    list(heard.blocks())
    assert len(counts) > 10
    assert sum(counts) == pytest.approx(700)

    def stop(frames):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generator.encode_audio(waveform[None], SAMPLE_RATE, stop)


@pytest.mark.parametrize(("frames", "window"), [(1, 1), (10, 10), (11, 10), (100, 7), (1000, 256), (18433, 18432)])
def test_windows_cover_every_frame_and_overlap(frames, window):
    starts = window_starts(frames, window)
    assert starts[0] == 0
    assert starts[-1] + window == frames
    assert all(0 < b - a <= window - window // 4 for a, b in zip(starts, starts[1:]))


def test_windows_are_close_to_the_whole_and_do_not_jump(generator):
    """Windows of 256 frames out of 700: no larger step from frame to frame where windows meet than elsewhere."""
    waveform = speech(700 * 640)
    expected = whole(generator, waveform)
    window = generator.audio_encoder.window_frames()
    assert window == longest_window(generator.config.audio) == 256
    found = generator.encode_audio(waveform[None], SAMPLE_RATE).features
    error = (found - expected).abs()
    assert 0 < error.square().mean().sqrt() < 0.06 * expected.std()
    # the error changes no more at the ends of windows than inside them
    step = (found - expected).diff(dim=0).square().mean(dim=1).sqrt()
    starts = window_starts(700, window)
    joins = [start - 1 for start in starts[1:]] + [start + window - 1 for start in starts[:-1]]
    inside = step[[row for row in range(699) if row not in joins]]
    assert step[joins].max() < inside.max()


def test_the_window_is_the_longest_that_fits_the_memory():
    encoder = audio_encoder.AudioEncoder(AudioConfig(num_hidden_layers=1))
    assert encoder.window_frames(1e12) == longest_window(encoder.config) == 18432
    needed = encoding_memory(encoder.config, 18432, 4)
    assert needed < 1e9
    assert encoder.window_frames(needed) == 18432
    assert encoder.window_frames(needed - 1) == 9216
    assert encoder.window_frames(0) == 576
    assert encoder.half().window_frames(needed / 2) == 18432


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.untyped_storage().nbytes() // value.element_size())
        return result


def test_no_tensor_grows_with_the_clip(generator, tmp_path):
    sizes = []
    for seconds in (40, 80):
        write_audio(tmp_path / "a.wav", "pcm_s16le", rate=24000, seconds=seconds)
        with LargestTensor() as largest:
            for _ in generator.listen(AudioFile(tmp_path / "a.wav")).blocks():
                pass
        sizes.append(largest.numbers)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_resampling_in_blocks_equals_the_whole(monkeypatch, rate):
    monkeypatch.setattr("imtalker.media.resampling.BLOCK_SECONDS", 1)
    for seconds, sizes in ((0.001, [97]), (1.0, [4096]), (2.0, [4096]), (3.01, [97, 4096, 10**6])):
        signal = speech_like(rate, seconds)[None].repeat(2, 1)
        expected = resample(signal, rate, SAMPLE_RATE)
        for size in sizes:
            found = torch.cat(list(resample_blocks(signal.split(size, dim=-1), rate, SAMPLE_RATE)), dim=-1)
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("layout", "rate"), [("mono", 44100), ("stereo", 8000), ("5.1", 48000)])
def test_a_file_can_be_streamed_twice_and_equals_the_whole(tmp_path, layout, rate):
    write_audio(tmp_path / "a.wav", "pcm_s16le", layout, rate, seconds=1.3)
    file, audio = AudioFile(tmp_path / "a.wav"), read_audio(tmp_path / "a.wav")
    assert (file.sample_rate, file.samples, file.seconds) == (audio.sample_rate, audio.samples, audio.seconds)
    mono = to_mono_16k(audio.waveform, rate)
    for _ in range(2):
        assert torch.equal(torch.cat(list(file.blocks()), dim=-1), audio.waveform)
        torch.testing.assert_close(torch.cat(list(mono_16k(file))), mono, rtol=0, atol=1e-6)
        torch.testing.assert_close(torch.cat(list(mono_16k(audio))), mono, rtol=0, atol=1e-6)


def test_a_file_with_nan_is_refused_while_it_is_streamed(tmp_path, generator):
    # the wave module writes no floats
    samples = torch.zeros(8000)
    samples[5000] = math.nan
    data = samples.numpy().tobytes()
    head = b"RIFF" + (36 + len(data)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    head += (3).to_bytes(2, "little") + (1).to_bytes(2, "little") + (8000).to_bytes(4, "little")
    head += (32000).to_bytes(4, "little") + (4).to_bytes(2, "little") + (32).to_bytes(2, "little")
    (tmp_path / "nan.wav").write_bytes(head + b"data" + len(data).to_bytes(4, "little") + data)
    with pytest.raises(InputError, match="NaN"):
        generator.listen(AudioFile(tmp_path / "nan.wav"))


def test_the_soundtrack_of_a_file_equals_that_of_its_samples(tmp_path):
    write_audio(tmp_path / "a.wav", "pcm_s16le", "5.1", 20000, seconds=0.7)
    tracks = [Soundtrack(sound) for sound in (AudioFile(tmp_path / "a.wav"), read_audio(tmp_path / "a.wav"))]
    assert [(track.channels, track.sample_rate) for track in tracks] == [(2, 48000)] * 2
    for start in range(0, 48000, 1920):
        one, other = (track.read(start, start + 1920) for track in tracks)
        assert one.shape == (2, 1920)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert not one.any()


def test_any_stretch_of_blocks_can_be_read_forward():
    signal = torch.arange(100).reshape(2, 50)
    reader = BlockReader(signal.split(7, dim=-1))
    for start, stop in ((0, 3), (0, 3), (2, 20), (20, 20), (33, 49), (48, 60), (70, 80)):
        assert torch.equal(reader.read(start, stop), signal[:, start:stop])
    assert BlockReader([]).read(0, 5) is None
