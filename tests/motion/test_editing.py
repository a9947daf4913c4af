"""Edits of motion: what they keep, what they change, and how long the result is."""

import logging
from dataclasses import replace

import pytest
import torch
from meaning import follows, mouth_in, sentence, value
from tiny import tiny_generator

from imtalker import Control, InputError, Motion, Source
from imtalker.avatar.readback import correlation
from imtalker.drawn.head import DEGREES, MOTION
from imtalker.idle import head_sway, idle, idle_frames
from imtalker.motion.editing import join, loop, mix, reverse, smooth, strengthen, stretch, trim
from imtalker.motion.inertia import FRAMES


def sway(frames=100, fps=25.0, noise=0.05, seed=0, generation="v2"):
    """A slow sway in four latents, with jitter as from a detector."""
    random = torch.Generator().manual_seed(seed)
    time = torch.arange(frames)[:, None] / fps
    rates = torch.tensor([0.2, 0.4, 0.7, 1.1])
    latents = (6.28 * rates * time + seed).sin() + noise * torch.randn(frames, 4, generator=random)
    return Motion(latents, fps, generation)


def jerk(motion):
    return motion.latents.diff(n=2, dim=0).square().mean()


IDENTITIES = {
    "strengthen": lambda motion: strengthen(motion, 1.0),
    "strengthen around a source": lambda motion: strengthen(motion, 1.0, torch.ones(1, 4)),
    "smooth": lambda motion: smooth(motion, 0.0),
    "trim": lambda motion: trim(motion, 0.0, None),
    "trim past the end": lambda motion: trim(motion, 0.0, 99.0),
    "stretch": lambda motion: stretch(motion, 1.0),
}


@pytest.mark.parametrize("edit", IDENTITIES.values(), ids=IDENTITIES)
def test_settings_that_change_nothing_return_the_same_object(edit):
    motion = sway()
    assert edit(motion) is motion


@pytest.mark.parametrize(
    "edit", [lambda m: strengthen(m, 2), lambda m: smooth(m, 0.5), lambda m: stretch(m, 2), reverse, loop]
)
def test_edits_copy_the_motion_and_keep_its_rate_and_generation(edit):
    motion = sway(fps=30.0, generation="v1")
    before = motion.latents.clone()
    edited = edit(motion)
    assert torch.equal(motion.latents, before)
    assert (edited.fps, edited.generation) == (30.0, "v1")
    assert edited.latents.dtype == motion.latents.dtype


@pytest.mark.parametrize("centre", [None, torch.tensor([[1.0, 2, 3, 4]])])
def test_strength_scales_the_distance_to_its_centre(centre):
    motion = sway()
    middle = motion.latents.mean(0) if centre is None else centre[0]
    assert torch.allclose(strengthen(motion, 0.0, centre).latents, middle.expand(100, -1))
    twice = strengthen(motion, 2.0, centre).latents
    assert torch.allclose(twice - middle, 2 * (motion.latents - middle), atol=1e-5)
    with pytest.raises(InputError, match="source has 7 values per frame but the motion has 4"):
        strengthen(motion, 2.0, torch.zeros(1, 7))


@pytest.mark.parametrize(("frames", "amount"), [(1, 0.1), (2, 1.0), (9, 0.5), (100, 0.1), (100, 1.0)])
def test_smoothing_keeps_length_and_mean(frames, amount):
    motion = sway(frames)
    calm = smooth(motion, amount)
    assert len(calm) == frames
    assert torch.allclose(calm.latents.mean(0), motion.latents.mean(0), atol=1e-6)


def test_a_larger_amount_smooths_more_and_keeps_slow_movement():
    amounts = [sway(), *(smooth(sway(), amount) for amount in (0.2, 0.6, 1.0))]
    assert all(jerk(more) < 0.8 * jerk(less) for less, more in zip(amounts, amounts[1:], strict=False))
    slow = sway(noise=0.0).latents[20:-20, 0]
    assert (smooth(sway(noise=0.0), 0.2).latents[20:-20, 0] - slow).abs().max() < 0.01


def wave(hertz, fps=25.0):
    return Motion((6.2832 * hertz * torch.arange(10 * fps) / fps).sin()[:, None], fps)


@pytest.mark.parametrize("fps", [25.0, 60.0])
def test_smoothing_halves_the_documented_frequency_at_every_rate(fps):
    calm = smooth(wave(12 - 11 * 0.6, fps), 0.6).latents[50:-50]
    assert calm.abs().max() == pytest.approx(0.5, abs=0.03)


def test_smoothing_by_half_keeps_lip_movement_and_removes_jitter():
    lips = wave(4.5)
    assert (smooth(lips, 0.5).latents - lips.latents)[20:-20].abs().max() < 0.06
    assert smooth(wave(11), 0.5).latents[20:-20].abs().max() < 0.05
    assert smooth(lips, 1.0).latents[20:-20].abs().max() < 0.02


def test_smoothing_by_half_keeps_speech_on_the_lips(avatar):
    spoken = Motion(avatar.say(sentence()))
    lips = value(spoken.latents, "mouth_open")
    calm = value(smooth(spoken, 0.5).latents, "mouth_open")
    assert correlation(calm, lips) > 0.97
    assert calm.std() > 0.95 * lips.std()
    assert follows(calm, sentence())[0] > follows(lips, sentence())[0] - 0.05
    assert value(smooth(spoken, 1.0).latents, "mouth_open").std() < 0.8 * lips.std()


def test_strength_opens_the_mouth_wider(avatar):
    """In the frames where it is most open, around the portrait's own latent."""
    spoken = avatar.say(sentence())
    widest = Motion(spoken[value(spoken, "mouth_open").topk(4).indices])
    opened = []
    for strength in (0, 0.5, 1):
        motion = strengthen(widest, strength, avatar.source.motion)
        frames = avatar.renderer.render(avatar.source, motion).permute(0, 3, 1, 2)
        opened.append(mouth_in(frames, motion.latents).mean())
    assert opened[0] < opened[1] - 0.05
    assert opened[1] < opened[2] - 0.05


def test_slower_motion_is_in_sync_with_slower_speech(avatar):
    """Motion at half speed against audio at half its sample rate."""
    sound = sentence()
    slow = value(stretch(Motion(avatar.say(sound)), 0.5).latents, "mouth_open")
    with_own, lag = follows(slow, replace(sound, sample_rate=sound.sample_rate // 2))
    assert with_own > 0.6
    assert abs(lag) <= 2


def test_trimming_rounds_to_frames_and_refuses_an_empty_result():
    motion = sway()
    assert torch.equal(trim(motion, 1.0, 2.0).latents, motion.latents[25:50])
    assert torch.equal(trim(motion, 3.5).latents, motion.latents[88:])
    for start, end in ((4.0, None), (2.0, 1.0), (1.0, 1.01)):
        with pytest.raises(InputError, match=rf"from {start:g} s to .* 4\.00 s long"):
            trim(motion, start, end)


@pytest.mark.parametrize("speed", [0.1, 0.5, 1.3, 2.0, 4.0])
def test_speed_changes_the_timing_and_not_the_values(speed):
    time = Motion(torch.arange(100)[:, None] / 25)
    fast = stretch(time, speed)
    assert fast.seconds == pytest.approx(4 / speed, abs=1 / 25)
    inside = torch.arange(len(fast)) * speed <= 99
    assert torch.allclose(fast.latents[inside, 0], (torch.arange(len(fast)) * speed / 25)[inside], atol=1e-5)
    with pytest.raises(InputError, match="above 0"):
        stretch(time, 0.0)


def test_reversing_twice_gives_the_original():
    motion = sway()
    assert torch.equal(reverse(motion).latents[0], motion.latents[-1])
    assert torch.equal(reverse(reverse(motion)).latents, motion.latents)


LOOPED = {
    "sway": lambda frames: sway(frames).latents,
    "noise": lambda frames: torch.randn(frames, 4, generator=torch.Generator().manual_seed(frames)),
    "line": lambda frames: torch.arange(frames)[:, None] * torch.ones(4),
    "still": lambda frames: torch.zeros(frames, 4),
}


@pytest.mark.parametrize("latents", LOOPED.values(), ids=LOOPED)
def test_the_seam_of_a_loop_is_no_larger_than_steps_inside(latents):
    for frames in (1, 2, 3, 4, 7, 12, 50, 333):
        looped = loop(Motion(latents(frames))).latents
        inside = looped.diff(dim=0).norm(dim=1)
        seam = (looped[0] - looped[-1]).norm()
        assert seam <= (inside.max() if len(inside) else 0) + 1e-5, frames
        assert frames - 15 <= len(looped) <= frames


def test_a_loop_crossfades_only_its_beginning():
    motion = sway()
    looped = loop(motion)
    overlap = 100 - len(looped)
    assert 5 <= overlap <= 15
    assert torch.equal(looped.latents[overlap:], motion.latents[overlap : 100 - overlap])


def test_joining_shortens_by_each_crossfade():
    parts = [sway(50), sway(30, seed=1), sway(40, seed=2)]
    whole = join(parts, 0.4, overlap=True)
    assert len(whole) == 50 + 30 + 40 - 2 * 10
    assert torch.equal(whole.latents[:40], parts[0].latents[:40])
    assert torch.equal(whole.latents[50:60], parts[1].latents[10:20])
    assert torch.equal(whole.latents[70:], parts[2].latents[10:])
    assert torch.equal(join(parts, 0.0).latents, torch.cat([part.latents for part in parts]))
    assert torch.equal(join(parts[:1], 0.4).latents, parts[0].latents)


def test_a_crossfade_is_monotonic_smooth_and_symmetric():
    fade = join([Motion(torch.zeros(50, 1)), Motion(torch.ones(50, 1))], 0.8, overlap=True).latents[:, 0]
    assert fade.diff().min() >= 0
    assert fade.diff().max() < 1.7 / 20
    assert fade.diff(n=2).abs().max() < 0.012  # it starts and ends softly
    assert torch.allclose(fade + fade.flip(0), torch.ones(80), atol=1e-6)


def test_idle_motion_joins_speech_in_sync_and_without_a_jump(avatar):
    """The mouth is shut while idle, then in sync with the speech, and the head moves smoothly into it."""
    waiting = idle(avatar.generator, avatar.source, 2.0, looped=False)
    spoken = Motion(avatar.say(sentence(), seed=1), generation=waiting.generation)
    both = join([waiting, spoken], 0.4).latents
    assert len(both) == len(waiting) + len(spoken)
    assert value(both, "mouth_open")[:50].abs().max() < 0.15
    with_own, lag = follows(value(both, "mouth_open")[50:], sentence())
    assert with_own > 0.6
    assert abs(lag) <= 1
    head = slice(0, MOTION.index("gaze_x"))
    steps = both[:, head].diff(dim=0).abs().amax(dim=1)
    cut = (spoken.latents[0] - waiting.latents[-1])[head].abs().max()
    assert steps[49:61].max() < max(cut / 2, steps[:49].max())


def test_a_crossfade_is_limited_to_half_of_the_shorter_motion(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(join([sway(50), sway(9)], 5.0, overlap=True)) == 50 + 9 - 4
    assert "motion 2 is 0.16 s, not 5.00 s" in caplog.text
    assert len(join([sway(50), sway(1), sway(50)], 0.4, overlap=True)) == 101


def test_join_and_mix_keep_the_timing_of_another_frame_rate():
    clock = Motion(torch.arange(60)[:, None] / 30, 30.0)
    whole = join([Motion(torch.zeros(50, 1), 25.0), clock], 0.0)
    assert (whole.fps, len(whole)) == (25.0, 100)
    assert torch.allclose(whole.latents[50:99, 0], torch.arange(49) / 25, atol=1e-6)
    assert torch.allclose(mix(Motion(torch.zeros(40, 1), 25.0), clock, 1.0).latents[:, 0], torch.arange(40) / 25)


def test_a_mix_has_the_length_of_the_first_motion():
    a, b = sway(50), sway(30, seed=1)
    assert torch.equal(mix(a, b, 0.0).latents, a.latents)
    assert torch.equal(mix(a, b, 1.0).latents, torch.cat([b.latents, b.latents[-1:].expand(20, -1)]))
    assert torch.equal(mix(b, a, 1.0).latents, a.latents[:30])
    assert torch.allclose(mix(a, a, 0.3).latents, a.latents)


def test_the_share_of_a_mix_may_be_a_curve():
    a, b = Motion(torch.zeros(50, 2)), Motion(torch.ones(50, 2))
    mixed = mix(a, b, torch.tensor([0.0, 1.0, 1.0])).latents[:, 0]
    assert torch.allclose(mixed[:25], torch.arange(25) / 24.5, atol=1e-5)
    assert (mixed[25:] == 1).all()
    assert torch.allclose(mix(a, b, torch.full((9,), 0.3)).latents, mix(a, b, 0.3).latents)


def test_motions_that_do_not_match_are_refused():
    for other, names in ((sway(generation="v1"), "v2 .* v1"), (Motion(torch.zeros(5, 8)), "4 values .* has 8")):
        for combine in (lambda a, b: join([a, b]), mix):
            with pytest.raises(InputError, match=names):
                combine(sway(), other)


@pytest.fixture(scope="module")
def generator():
    return tiny_generator().eval()


@pytest.fixture
def source():
    return Source((), torch.zeros(1, 32), torch.zeros(1, 8), None, "v2")


class TestIdle:
    @pytest.mark.parametrize("seconds", [0.4, 1.3, 4.0])
    @pytest.mark.parametrize("looped", [True, False])
    def test_length_is_exact_and_progress_counts_each_window(self, generator, source, seconds, looped):
        steps = []
        motion = idle(generator, source, seconds, looped=looped, progress=lambda: steps.append(1))
        assert (len(motion), motion.fps, motion.generation) == (round(seconds * 25), 25.0, "v2")
        assert len(steps) == -(-idle_frames(seconds, looped) // 50)

    def test_without_sway_it_is_the_motion_of_silence(self, generator, source):
        silence = generator.encode_audio(torch.zeros(1, 48000), 48000)
        expected = generator.sample(silence, source, seed=3)
        motion = idle(generator, source, 1.0, sway=0.0, looped=False, seed=3)
        assert torch.equal(motion.latents, expected.latents)
        assert not torch.equal(idle(generator, source, 1.0, 0.0, False, seed=4).latents, expected.latents)
        swaying = idle(generator, source, 1.0, sway=1.0, looped=False, seed=3)
        assert not torch.allclose(swaying.latents, expected.latents, atol=1e-4)

    @pytest.mark.parametrize("sway", [0.0, 1.0])
    def test_the_head_and_eyes_move_and_the_mouth_stays_shut(self, avatar, sway):
        for seed in range(2):
            motion = idle(avatar.generator, avatar.source, 6.0, sway, seed=seed).latents
            assert value(motion, "mouth_open").abs().max() < 0.15
            assert 0.5 < DEGREES["yaw"] * value(motion, "yaw").std() < 10
            assert value(motion, "gaze_x").std() > 0.01
            head = motion[:, : MOTION.index("gaze_x")]
            assert (head[0] - head[-1]).norm() <= 1.5 * head.diff(dim=0).norm(dim=1).max()

    def test_a_loop_continues_at_its_start_and_keeps_the_rest(self, generator, source):
        for seed in range(3):
            plain = idle(generator, source, 5.08, 0.0, looped=False, seed=seed).latents[FRAMES:]
            calm = idle(generator, source, 4.0, 0.0, looped=True, seed=seed).latents
            assert torch.equal(calm[15:], plain[15:100])
            # the loop's first frame is, but for the start of the crossfade, the frame that followed its last one
            assert (calm[0] - plain[100]).norm() < 0.1 * (plain[0] - plain[100]).norm()

    def test_a_control_overrides_the_sway(self, generator, source):
        def made(sway, **parts):
            control = Control(**{name: torch.full((100, width), 0.2) for name, width in parts.items()})
            return idle(generator, source, 1.0, sway, looped=False, control=control).latents

        assert torch.equal(made(0.0, pose=3), made(1.0, pose=3))
        assert not torch.equal(made(0.0, gaze=2), made(1.0, gaze=2))

    def test_the_sway_is_periodic_and_grows_with_its_amount(self):
        sway = head_sway(175, 190, 1.0).pose
        assert sway.shape == (190, 3)
        assert torch.equal(sway[175:], sway[:15])
        assert 2 < sway.abs().max().rad2deg() < 3.5
        assert (sway[174] - sway[175]).norm() <= sway.diff(dim=0).norm(dim=1).max()
        assert head_sway(175, 175, 0.5).pose.abs().max() < 0.6 * sway.abs().max()
        # a shorter sway is smaller, not faster
        assert head_sway(50, 50, 1.0).pose.diff(dim=0).abs().max() < 1.2 * sway.diff(dim=0).abs().max()

    def test_invalid_seconds_and_sway_are_refused(self, generator, source):
        for seconds in (0.3, 601, float("nan")):
            with pytest.raises(InputError, match=r"0\.4 to 600 seconds"):
                idle(generator, source, seconds)
        for sway in (-0.1, 1.1):
            with pytest.raises(InputError, match="between 0 and 1"):
                idle(generator, source, 1.0, sway)
