"""What holds of the training of the avatar's generator, at tiny sizes and on noise in the place of speech."""

import numpy as np
import pytest
import torch

from imtalker import load_generator
from imtalker.avatar import generator as avatar_generator
from imtalker.avatar import measure as measure_generator
from imtalker.avatar.batches import HEAD
from imtalker.avatar.generator import (
    STEERED,
    Clip,
    Flow,
    Hearing,
    encode,
    flow_batches,
    hearing_batches,
    standardise_controls,
)
from imtalker.avatar.speech import Phoneme
from imtalker.avatar.visemes import CHANNEL, control, motion, sounds
from imtalker.drawn.portraits import MOTION_SIZE
from imtalker.errors import InputError
from imtalker.models.config import AudioConfig, GeneratorConfig
from imtalker.train.initialise import new_generator

AUDIO = AudioConfig(8, 1, 2, 16, (8,) * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
CONFIG = GeneratorConfig("v2", motion_size=MOTION_SIZE, width=16, depth=1, heads=2, audio=AUDIO)


def noise_clip(seed, held_out=False, seconds=8):
    """Noise that is loud where "a" is said and faint in pauses."""
    random = np.random.default_rng(seed)
    edges = np.sort(random.uniform(0, seconds, 12)).tolist()
    phonemes = [
        Phoneme("a" if number % 2 else "", start, end)
        for number, (start, end) in enumerate(zip([0, *edges], [*edges, seconds]))
    ]
    times = np.arange(seconds * 16000) / 16000
    loud = np.searchsorted(edges, times) % 2
    waveform = torch.from_numpy((0.01 + loud) * 0.1 * random.standard_normal(len(times))).float()
    rows = motion(phonemes, seconds * 25, seed)
    heard = torch.from_numpy(sounds(phonemes, seconds * 25))
    return Clip(waveform, torch.from_numpy(rows), heard, control(rows).parts())


@pytest.fixture
def noises(monkeypatch):
    monkeypatch.setattr(avatar_generator, "make_clip", noise_clip)
    monkeypatch.setattr(avatar_generator, "MEMORY", 6)


@pytest.fixture
def generator():
    return new_generator(CONFIG).eval()


def test_training_hears_what_sampling_hears(generator):
    sound = torch.randn(2, 640 * 70) * 0.1 + 0.05
    features = encode(generator, sound)
    for one, each in zip(sound, features):
        assert torch.allclose(generator.encode_audio(one[None], 16000).features, each, atol=1e-4)


def test_batches_follow_from_the_step(noises, generator):
    """So that training goes on where it stopped, with what it would have had."""
    for batches in (hearing_batches, flow_batches(generator, size=3)):
        going = batches(0, 0, 1)
        later = [next(going) for _ in range(3)][2]
        again = next(batches(2, 0, 1))
        assert all(torch.equal(later[name], again[name]) for name in later)


def test_sound_and_mouth_are_cut_alike(noises):
    """Where a frame's "a" begins and ends, the waveform does too."""
    batch = next(hearing_batches(0, 0, 1))
    loud = batch["waveform"].unflatten(1, (-1, 640)).square().mean(dim=2).sqrt() > 0.05
    silent = batch["sounds"] == 0
    assert ((loud == ~silent).float().mean() > 0.93).item()
    assert batch["mouth"][silent].mean() < batch["mouth"][~silent].mean()


def test_a_clip_begins_without_context(noises, generator):
    batch = next(flow_batches(generator, size=40)(0, 0, 1))
    first = ~batch["context"]
    assert 0.05 < first.float().mean() < 0.5
    # before a clip there is nothing: its first frame is repeated, to be taken away
    assert (batch["motion"][first][:, :11] == batch["motion"][first][:, :1]).all()
    assert batch["motion"].shape == (40, 60, MOTION_SIZE)
    assert batch["reference"].shape == (40, MOTION_SIZE)


def test_context_is_taken_away_with_its_conditions(noises, generator, monkeypatch):
    """As in the first window: zeros for motion and conditions, whatever the clip had there."""
    batch = next(flow_batches(generator, size=8)(0, 0, 1))
    batch["context"][:] = False
    seen = {}

    def spy(x, time, reference, condition):
        seen.update(x=x, condition=condition)
        return torch.zeros(len(x), 50, MOTION_SIZE)

    flow = Flow(generator)
    monkeypatch.setattr(generator.flow, "forward", spy)
    next(flow.losses(batch))
    assert (seen["x"][:, :10] == 0).all()
    assert (seen["condition"][:, :10] == 0).all()
    assert (seen["condition"][:, 10:] != 0).any()


def test_a_head_is_learned_to_sway_about_its_source(noises, generator):
    """The reference has the pose of the middle of its clip, and a face that some frame has."""
    clip = noise_clip(10**6 + 1)
    batch = next(flow_batches(generator, size=60)(0, 0, 1))
    own = (batch["reference"][:, HEAD] - clip.motion[:, HEAD].mean(0)).abs().amax(1) < 1e-5
    assert own.any()
    faces = clip.motion[:, HEAD.stop :]
    assert all((faces == row).all(1).any() for row in batch["reference"][own, HEAD.stop :])


def test_what_is_asked_for_is_asked_of_other_sources_too(noises, generator, monkeypatch):
    """Else controls would say nothing that the source does not say."""
    batch = next(flow_batches(generator, size=40)(0, 0, 1))
    before = batch["reference"].clone()
    seen = {}

    def spy(x, time, reference, condition):
        seen.update(reference=reference)
        return torch.zeros(len(x), 50, MOTION_SIZE)

    monkeypatch.setattr(generator.flow, "forward", spy)
    next(Flow(generator).losses(batch))
    assert torch.equal(batch["reference"], before)
    other = seen["reference"] != before
    for name, channels in STEERED.items():
        swapped = other[:, channels].any(1)
        assert 0.05 < swapped.float().mean() < 0.6, name
        assert torch.equal(seen["reference"][swapped, channels], before.roll(1, 0)[swapped, channels])
    assert not other[:, max(each.stop for each in STEERED.values()) :].any()


def test_controls_are_told_apart(noises, generator):
    """After standardising, each number of a control, moved by its own deviation, changes the projection as much."""
    clips = [noise_clip(seed) for seed in range(12)]
    standardise_controls(generator, clips)
    for name in ("pose", "cam", "gaze"):
        rows = torch.cat([clip.controls[name] for clip in clips])
        layer = getattr(generator, f"{name}_projection")[0]
        values = layer(rows)
        assert values.mean(dim=0).abs().mean() < 1
        moved = torch.diag(rows.std(dim=0)) @ layer.weight.T
        assert moved.norm(dim=1).max() < 3 * moved.norm(dim=1).min()


@pytest.mark.parametrize("stage", ["hearing", "flow"])
def test_losses_fall(noises, generator, stage):
    torch.manual_seed(0)
    task = Hearing(generator, rate=5e-3) if stage == "hearing" else Flow(generator, rate=5e-3)
    batch = next(hearing_batches(0, 0, 1) if stage == "hearing" else flow_batches(generator, size=8)(0, 0, 1))
    (optimizer,) = task.optimizers().values()
    losses = []
    for _ in range(60):
        _, parts = next(task.losses(batch))
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
        losses.append(sum(parts.values()).item())
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


def test_the_result_loads_and_a_finished_training_stays(noises, tmp_path):
    path = avatar_generator.train(tmp_path, minutes=0.02, config=CONFIG, gate=-1)
    generator = load_generator(path)
    assert generator.config == CONFIG
    assert measure_generator.sampled(generator, noise_clip(99), 1.0).shape == (200, MOTION_SIZE)
    before = generator.state_dict()
    again = load_generator(avatar_generator.train(tmp_path, minutes=0.02, config=CONFIG, gate=-1)).state_dict()
    assert all(torch.equal(before[name], again[name]) for name in before)


def test_a_finished_one_goes_on_with_the_ears_it_has(noises, tmp_path):
    first = avatar_generator.train(tmp_path, minutes=0.02, config=CONFIG, gate=-1)
    (tmp_path / "more").mkdir()
    more = avatar_generator.train(tmp_path / "more", minutes=0.02, config=CONFIG, start=first)
    before, after = load_generator(first).state_dict(), load_generator(more).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "flow" in changed
    assert "audio_encoder" not in changed
    with pytest.raises(InputError, match="another size"):
        avatar_generator.train(tmp_path / "more", minutes=0.02, start=first)


def test_a_deaf_encoder_is_not_trained_further(noises, tmp_path):
    with pytest.raises(InputError, match="more minutes"):
        avatar_generator.train(tmp_path, minutes=0.001, config=CONFIG, gate=0.99)
    assert not (tmp_path / "generator.safetensors").exists()


class Puppet:
    """In the place of a generator: moves as the truth does, late and louder, or as the pose asks."""

    def __init__(self, clips, late=0):
        self.clips, self.late, self.asked = clips, late, None

    def encode_audio(self, waveform, rate):
        return next(clip for clip in self.clips if torch.equal(clip.waveform, waveform[0]))

    def sample(self, clip, source, control, cfg, seed):
        from imtalker.motion.motion import Motion

        rows = 0.2 + 2 * clip.motion.roll(self.late, dims=0)
        return Motion(rows)


def test_measures_know_the_truth():
    clips = [noise_clip(seed) for seed in range(6)]
    exact = measure_generator.measure_mouth(Puppet(clips), clips, 1.0)
    assert exact["mouth_open"] == pytest.approx(1, abs=1e-4)
    assert exact["lag"] == 0
    assert abs(exact["other_speech"]) < 0.35
    assert exact["open_in_silence"] == pytest.approx(0.2, abs=0.02)
    assert exact["open_in_vowels"] == pytest.approx(0.2 + 2 * exact["true_open_in_vowels"], abs=0.01)
    late = measure_generator.measure_mouth(Puppet(clips, late=2), clips, 1.0)
    assert late["lag"] == 2
    assert late["mouth_open"] < exact["mouth_open"] - 0.02
    # what moves by the speech alone does not follow what the control asks
    steered = measure_generator.measure_control(Puppet(clips), clips, 1.0)
    assert abs(steered["yaw_within"]) < 0.5


def test_what_is_rare_is_learned_as_often_as_it_is():
    """What is best told where nothing is known: of blinks, shut a tenth of the time, their mean and not the median."""
    shut = torch.zeros(100, MOTION_SIZE)
    shut[:10] = 1
    guesses = torch.linspace(0, 1, 101)
    for channel, best in ((CHANNEL["blink"], 0.1), (CHANNEL["brows"], 0.0)):
        errors = []
        for guess in guesses:
            told = shut.clone()
            told[:, channel] = guess
            errors.append(avatar_generator.size_of(told - shut).item())
        assert guesses[int(np.argmin(errors))].item() == pytest.approx(best, abs=0.011), channel
