"""Sampling motion: lengths, windows, guidance, controls."""

import logging
from types import SimpleNamespace

import pytest
import torch
from meaning import follows, sentence, value
from tiny import tiny_generator

from imtalker import AudioFeatures, Control, InputError
from imtalker.drawn.head import MOTION
from imtalker.media.audio import Audio
from imtalker.sampling import Frames, draw_noise, pad_rows, sample_window


@pytest.fixture(scope="module", params=["v1", "v2"])
def generator(request):
    return tiny_generator(request.param)


@pytest.fixture(scope="module")
def source(generator):
    motion = torch.randn(1, 8, generator=torch.Generator().manual_seed(4))
    return SimpleNamespace(motion=motion, generation=generator.generation)


def features(generator, frames):
    size = generator.config.audio.hidden_size
    return AudioFeatures(torch.randn(frames, size, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("frames", [1, 9, 49, 50, 51, 100, 130])
def test_one_latent_per_audio_frame(generator, source, frames):
    motion = generator.sample(features(generator, frames), source, nfe=3)
    assert motion.latents.shape == (frames, 8)
    assert (motion.fps, motion.generation) == (25, generator.generation)


def test_stream_is_sample_window_by_window(generator, source):
    audio = features(generator, 130)
    blocks = list(generator.stream(audio, source, nfe=3))
    assert [len(block) for block in blocks] == [50, 50, 30]
    assert torch.equal(torch.cat([b.latents for b in blocks]), generator.sample(audio, source, nfe=3).latents)


def test_a_window_depends_on_its_past_alone(generator, source):
    long = features(generator, 150)
    short = AudioFeatures(long.features[:100])
    whole, start = (generator.sample(audio, source, nfe=3).latents for audio in (long, short))
    torch.testing.assert_close(whole[:100], start, rtol=0, atol=1e-5)
    changed = AudioFeatures(torch.cat([long.features[:99], -long.features[99:]]))
    assert (generator.sample(changed, source, nfe=3).latents - whole)[100:].abs().max() > 1e-3


def test_seeds(generator, source):
    audio = features(generator, 60)
    one, again, other = (generator.sample(audio, source, nfe=3, seed=seed).latents for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert (one - other).abs().max() > 0.1


def test_noise_is_fresh_for_each_window_and_the_same_for_longer_clips():
    noise = draw_noise(3, 50, 32, seed=7)
    assert torch.equal(noise[:2], draw_noise(2, 50, 32, seed=7))
    assert not torch.equal(noise[0], noise[1])
    assert abs(noise.std() - 1) < 0.05


def test_windows_join_smoothly_and_do_not_repeat(generator, source):
    """With fresh noise, over 12 s of silence; the same noise for all windows would repeat."""
    audio = AudioFeatures(torch.zeros(300, generator.config.audio.hidden_size))
    found = {}
    for noise in (None, draw_noise(1, 50, 8, seed=0)[0]):
        motion = generator.sample(audio, source, nfe=5, noise=noise).latents
        speed = motion.diff(dim=0).abs().mean(dim=1)
        joins = speed[49::50].mean() / speed[[row for row in range(299) if row % 50 != 49]].mean()
        moving = motion - motion.mean(dim=0)
        repeats = (moving[50:] * moving[:-50]).mean() / moving.square().mean()
        found[noise is None] = joins.item(), repeats.item()
    fresh, same = found[True], found[False]
    assert fresh[0] < min(1.2, same[0])
    assert fresh[1] < 0.5 < 0.95 < same[1]


@pytest.fixture(scope="module")
def long_speech():
    """45 s: one sentence nine times."""
    once = sentence()
    return Audio(once.waveform.repeat(1, 9), once.sample_rate)


@pytest.fixture(scope="module")
def long_motions(avatar, long_speech):
    return [avatar.say(long_speech, seed=seed) for seed in range(2)]


def test_lips_stay_in_sync_to_the_end_of_a_long_clip(long_motions, long_speech):
    for motion in long_motions:
        for start in (0, len(motion) - 250):
            samples = long_speech.waveform[:, start * 640 : (start + 250) * 640]
            opened = value(motion[start : start + 250], "mouth_open")
            with_own, lag = follows(opened, Audio(samples, long_speech.sample_rate))
            assert with_own > 0.6
            assert abs(lag) <= 1


def test_a_long_clip_does_not_drift(long_motions):
    for motion in long_motions:
        named = motion[:, : len(MOTION)]
        assert (named[-250:].mean(0) - named[:250].mean(0)).abs().max() < 0.25
        assert named.abs().max() < 2


def test_a_window_starts_with_the_head_where_the_last_one_left_it(long_motions):
    """Closer to there than to where another seed left it."""
    head = [motion[:, : MOTION.index("gaze_x")] for motion in long_motions]
    starts = torch.arange(50, len(head[0]), 50)

    def jump(before, after):
        return (after[starts] - before[starts - 1]).abs().mean()

    a, b = head
    assert jump(a, a) + jump(b, b) < 0.75 * (jump(a, b) + jump(b, a))


def test_given_noise_replaces_the_seed(generator, source):
    audio = features(generator, 80)
    noise = draw_noise(2, 50, 8, seed=3)
    by_seed = generator.sample(audio, source, nfe=3, seed=3, joins="published").latents
    assert torch.equal(generator.sample(audio, source, nfe=3, noise=noise).latents, by_seed)
    one = noise[0]
    repeated = generator.sample(audio, source, nfe=3, noise=torch.stack([one, one])).latents
    assert torch.equal(generator.sample(audio, source, nfe=3, noise=one).latents, repeated)
    with pytest.raises(InputError, match=r"\(50, 8\) or \(2, 50, 8\)"):
        generator.sample(audio, source, noise=noise[:, :20])


def test_guidance_one_is_the_audio_alone(generator, source):
    # cfg is linear in the velocity, so with a single step the results lie on a line
    audio = features(generator, 50)
    at = {cfg: generator.sample(audio, source, cfg=cfg, nfe=2).latents for cfg in (0.0, 1.0, 3.0)}
    torch.testing.assert_close(at[3.0], at[0.0] + 3 * (at[1.0] - at[0.0]), rtol=0, atol=1e-4)
    assert (at[3.0] - at[1.0]).abs().max() > 1e-3


def test_default_guidance_is_the_generations_own(generator, source):
    audio = features(generator, 20)
    own = {"v1": 3.0, "v2": 2.0}[generator.generation]
    assert torch.equal(
        generator.sample(audio, source, nfe=3).latents, generator.sample(audio, source, nfe=3, cfg=own).latents
    )


def test_controls_steer_and_their_absence_is_no_zero(generator, source):
    audio = features(generator, 60)
    free = generator.sample(audio, source, nfe=3).latents
    still = generator.sample(audio, source, Control(pose=torch.zeros(60, 3)), nfe=3).latents
    assert (free - still).abs().max() > 1e-3
    assert torch.equal(generator.sample(audio, source, Control(), nfe=3).latents, free)


def test_short_control_holds_its_last_row_unless_asked_for_zeros(generator, source, caplog):
    audio = features(generator, 60)
    gaze = torch.randn(40, 2)
    held = Control(gaze=pad_rows(gaze, 60))
    zeros = Control(gaze=torch.cat([gaze, torch.zeros(20, 2)]))
    for padding, full in (("hold", held), ("zero", zeros)):
        with caplog.at_level(logging.WARNING, "imtalker"):
            short = generator.sample(audio, source, Control(gaze=gaze), nfe=3, padding=padding).latents
        assert torch.equal(short, generator.sample(audio, source, full, nfe=3).latents)
        assert "gaze control has 40 frames and the audio 60" in caplog.text


def test_long_control_is_cut_with_a_warning(generator, source, caplog):
    audio = features(generator, 30)
    pose = torch.randn(50, 3)
    with caplog.at_level(logging.WARNING, "imtalker"):
        long = generator.sample(audio, source, Control(pose=pose), nfe=3).latents
    assert torch.equal(long, generator.sample(audio, source, Control(pose=pose[:30]), nfe=3).latents)
    assert "50 frames and the audio 30; it is cut" in caplog.text


def test_control_at_another_frame_rate(generator, source):
    audio = features(generator, 50)
    fast = Control(pose=torch.randn(100, 3), fps=50)
    slow = Control(pose=fast.pose[::2])
    torch.testing.assert_close(
        generator.sample(audio, source, fast, nfe=3).latents, generator.sample(audio, source, slow, nfe=3).latents,
        rtol=0, atol=1e-4,
    )  # fmt: skip


def test_settings_that_cannot_be_sampled(generator, source):
    audio = features(generator, 10)
    with pytest.raises(InputError, match="at least 2 points"):
        generator.sample(audio, source, nfe=1)
    with pytest.raises(InputError, match="cfg"):
        generator.sample(audio, source, cfg=float("nan"))
    other = SimpleNamespace(motion=source.motion, generation="v3")
    with pytest.raises(InputError, match="the encoded audio has 17: encode the audio"):
        generator.sample(AudioFeatures(torch.zeros(10, 17)), source)
    with pytest.raises(InputError, match="but the source is v3"):
        generator.sample(audio, other)


@pytest.mark.parametrize(
    ("samples", "rate"), [(1, 16000), (100, 8000), (639, 16000), (641, 16000), (48000, 48000), (22051, 44100)]
)
def test_any_sound_becomes_features(generator, samples, rate):
    wave = torch.randn(2, samples, generator=torch.Generator().manual_seed(6))
    audio = generator.encode_audio(wave, rate)
    assert len(audio) == -(-samples * 25 // rate)
    assert torch.isfinite(audio.features).all()


def test_silence_works_and_empty_does_not(generator):
    assert torch.isfinite(generator.encode_audio(torch.zeros(1, 16000), 16000).features).all()
    with pytest.raises(InputError):
        generator.encode_audio(torch.zeros(1, 0), 16000)
    with pytest.raises(InputError):
        generator.encode_audio(torch.full((1, 16000), float("nan")), 16000)


def test_both_halves_of_the_guidance_keep_the_speech_of_the_context(monkeypatch):
    halves = []
    monkeypatch.setattr("imtalker.sampling.integrate", lambda flow, noise, *given: halves.extend(given[2:4]) or noise)
    before, speech, control = Frames(torch.rand(3, 2), torch.rand(3, 4), torch.rand(3, 4)), *torch.rand(2, 5, 4)
    sample_window(None, torch.rand(5, 2), before, speech, control, torch.rand(1, 2), 2.0, 3)
    context = before.speech + before.control
    assert torch.equal(halves[0], torch.cat([context, speech + control]))
    assert torch.equal(halves[1], torch.cat([context, control]))
