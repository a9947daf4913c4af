"""The training of the avatar's generator, at tiny sizes and on noise instead of speech."""

import numpy as np
import pytest
import torch

from imtalker import Motion, load_generator
from imtalker.avatar import generator as recipe
from imtalker.avatar import generator_tasks, measure, speech_clips
from imtalker.avatar.batches import HEAD_CHANNELS
from imtalker.avatar.generator_tasks import CONTROLLED, FlowTask, HearingTask, standardise_controls, weighted_error
from imtalker.avatar.readout import FITTED, fit_readout
from imtalker.avatar.speech import Phoneme
from imtalker.avatar.speech_clips import SpeechClip, encode_speech, flow_batches, hearing_batches
from imtalker.avatar.visemes import CHANNEL, head_motion, motion_control, sound_labels
from imtalker.drawn.head import MOTION_SIZE
from imtalker.errors import InputError
from imtalker.models.config import AudioConfig, GeneratorConfig
from imtalker.train.initialise import new_generator

pytestmark = pytest.mark.recipe

AUDIO = AudioConfig(8, 1, 2, 16, (8,) * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
CONFIG = GeneratorConfig("v2", motion_size=MOTION_SIZE, width=16, depth=1, heads=2, audio=AUDIO)


def noise_clip(seed, held_out=False, seconds=8):
    """Noise that is loud during "a" and faint in pauses."""
    random = np.random.default_rng(seed)
    edges = np.sort(random.uniform(0, seconds, 12)).tolist()
    phonemes = [
        Phoneme("a" if number % 2 else "", start, end)
        for number, (start, end) in enumerate(zip([0, *edges], [*edges, seconds]))
    ]
    times = np.arange(seconds * 16000) / 16000
    loud = np.searchsorted(edges, times) % 2
    waveform = torch.from_numpy((0.01 + loud) * 0.1 * random.standard_normal(len(times))).float()
    rows = head_motion(phonemes, seconds * 25, seed)
    labels = torch.from_numpy(sound_labels(phonemes, seconds * 25))
    return SpeechClip(waveform, torch.from_numpy(rows), labels, motion_control(rows).parts())


@pytest.fixture(autouse=True, scope="module")
def noises():
    """Noise clips instead of speech, and few of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "make_speech_clip", noise_clip)
        patch.setattr(speech_clips, "make_speech_clip", noise_clip)
        patch.setattr(speech_clips, "MEMORY", 6)
        patch.setattr(recipe, "READOUT", 2)
        yield


@pytest.fixture
def generator():
    return new_generator(CONFIG).eval()


@pytest.fixture(scope="module")
def windows():
    """One batch for flow matching, of 60 windows: not to be written to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech_clips, "WINDOWS", 60)
        return next(flow_batches(new_generator(CONFIG).eval())(0, 0, 1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished training: not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    assert recipe.train(folder, minutes=0.02, config=CONFIG, gate=-1) == folder / "generator.safetensors"
    return folder


def test_training_encodes_speech_as_sampling_does(generator):
    waveforms = torch.randn(2, 640 * 70) * 0.1 + 0.05
    features = encode_speech(generator, waveforms)
    for waveform, each in zip(waveforms, features):
        assert torch.allclose(generator.encode_audio(waveform[None], 16000).features, each, atol=1e-4)


def test_batches_follow_from_the_step(generator, monkeypatch):
    """So a resumed training sees the batches it would have seen."""
    monkeypatch.setattr(speech_clips, "WINDOWS", 3)
    for batches in (hearing_batches, flow_batches(generator)):
        uninterrupted = batches(0, 0, 1)
        third = [next(uninterrupted) for _ in range(3)][2]
        resumed = next(batches(2, 0, 1))
        assert all(torch.equal(third[name], resumed[name]) for name in third)


def test_audio_and_mouth_are_cut_alike():
    """The waveform is loud in exactly the frames labelled "a"."""
    batch = next(hearing_batches(0, 0, 1))
    loud = batch["waveform"].unflatten(1, (-1, 640)).square().mean(dim=2).sqrt() > 0.05
    silent = batch["labels"] == 0
    assert ((loud == ~silent).float().mean() > 0.93).item()
    assert batch["mouth"][silent].mean() < batch["mouth"][~silent].mean()


def test_the_first_window_of_a_clip_has_no_context(windows):
    first = ~windows["context"]
    assert 0.05 < first.float().mean() < 0.5
    # there is nothing before a clip: its first frame is repeated, and the loss drops it
    assert (windows["motion"][first][:, :11] == windows["motion"][first][:, :1]).all()
    assert windows["motion"].shape == (60, 60, MOTION_SIZE)
    assert windows["reference"].shape == (60, MOTION_SIZE)


def test_the_reference_has_the_mean_pose_of_its_clip_and_the_face_of_a_frame(windows):
    clip = noise_clip(10**6 + 1)
    own = (windows["reference"][:, HEAD_CHANNELS] - clip.motion[:, HEAD_CHANNELS].mean(0)).abs().amax(1) < 1e-5
    assert own.any()
    faces = clip.motion[:, HEAD_CHANNELS.stop :]
    assert all((faces == row).all(1).any() for row in windows["reference"][own, HEAD_CHANNELS.stop :])


def flow_inputs(generator, batch, monkeypatch):
    """What the transformer is given for a batch."""
    inputs = {}

    def spy(x, time, reference, condition):
        inputs.update(x=x, reference=reference, condition=condition)
        return torch.zeros(len(x), 50, MOTION_SIZE)

    task = FlowTask(generator)
    monkeypatch.setattr(generator.flow, "forward", spy)
    next(task.losses(batch))
    return inputs


def test_without_context_motion_and_conditions_before_the_window_are_zero(generator, windows, monkeypatch):
    """As sampling has it in the first window."""
    inputs = flow_inputs(generator, windows | {"context": torch.zeros(60, dtype=torch.bool)}, monkeypatch)
    assert (inputs["x"][:, :10] == 0).all()
    assert (inputs["condition"][:, :10] == 0).all()
    assert (inputs["condition"][:, 10:] != 0).any()


def test_some_controls_are_paired_with_another_reference(generator, windows, monkeypatch):
    """Otherwise a control would say nothing that the reference does not say."""
    before = windows["reference"].clone()
    reference = flow_inputs(generator, windows, monkeypatch)["reference"]
    assert torch.equal(windows["reference"], before)
    other = reference != before
    for name, channels in CONTROLLED.items():
        swapped = other[:, channels].any(1)
        assert 0.05 < swapped.float().mean() < 0.6, name
        assert torch.equal(reference[swapped, channels], before.roll(1, 0)[swapped, channels])
    assert not other[:, max(each.stop for each in CONTROLLED.values()) :].any()


def test_standardised_controls_weigh_alike(generator):
    """Each number of a control, moved by its own deviation, changes the projection about as much."""
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
def test_losses_fall(generator, monkeypatch, stage):
    torch.manual_seed(0)
    monkeypatch.setattr(speech_clips, "WINDOWS", 8)
    monkeypatch.setattr(generator_tasks, "HEARING_RATE", 5e-3)
    monkeypatch.setattr(generator_tasks, "FLOW_RATE", 5e-3)
    task = HearingTask(generator) if stage == "hearing" else FlowTask(generator)
    batch = next(hearing_batches(0, 0, 1) if stage == "hearing" else flow_batches(generator)(0, 0, 1))
    (optimizer,) = task.optimizers().values()
    losses = []
    for _ in range(40):
        _, parts = next(task.losses(batch))
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
        losses.append(sum(parts.values()).item())
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


def test_the_readout_is_the_best_there_is(generator, windows):
    """Fitted once, it leaves less error and nothing to fit; mouth and blinks keep theirs."""
    task = FlowTask(generator)
    torch.nn.init.normal_(generator.flow.head.linear.weight)

    def errors():
        torch.manual_seed(3)
        with torch.no_grad():
            velocity, target, _ = task.velocities(windows)
        return (velocity - target).square().mean((0, 1))

    before = errors()
    removed = fit_readout(task, iter([windows]), 1, seed=3)
    after = errors()
    kept = [value for value in range(MOTION_SIZE) if value not in FITTED]
    torch.testing.assert_close(after, before * (1 - removed), rtol=1e-3, atol=1e-4)
    assert removed[FITTED].min() > 0.05
    torch.testing.assert_close(after[kept], before[kept])
    assert fit_readout(task, iter([windows]), 1, seed=3)[FITTED].max() < 0.02


def test_a_finished_training_loads_samples_and_stays(finished):
    generator = load_generator(finished / "generator.safetensors")
    assert generator.config == CONFIG
    assert measure.sampled(generator, noise_clip(99), 1.0).shape == (200, MOTION_SIZE)
    before = generator.state_dict()
    again = load_generator(recipe.train(finished, minutes=0.02, config=CONFIG, gate=-1)).state_dict()
    assert all(torch.equal(before[name], again[name]) for name in before)


def test_a_generator_continues_with_the_audio_encoder_it_has(finished, tmp_path):
    first = finished / "generator.safetensors"
    more = recipe.train(tmp_path, minutes=0.01, config=CONFIG, start=first)
    before, after = load_generator(first).state_dict(), load_generator(more).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "flow" in changed
    assert "audio_encoder" not in changed
    # what a loaded model computes with may be folded, and would then stay as it is
    parts = [name for name in before if name.startswith("flow.") and name.endswith(".weight")]
    assert not [name for name in parts if torch.equal(before[name], after[name])]
    with pytest.raises(InputError, match="not of the avatar's size"):
        recipe.train(tmp_path, minutes=0.01, start=first)


def test_an_encoder_below_its_gate_is_not_trained_further(tmp_path):
    with pytest.raises(InputError, match="more minutes"):
        recipe.train(tmp_path, minutes=0.001, config=CONFIG, gate=0.99)
    assert not (tmp_path / "generator.safetensors").exists()


class Puppet:
    """Stands for a generator: moves as the truth does, but larger, and `late` frames later."""

    def __init__(self, clips, late=0):
        self.clips, self.late = clips, late

    def encode_audio(self, waveform, rate):
        return next(clip for clip in self.clips if torch.equal(clip.waveform, waveform[0]))

    def sample(self, clip, source, control, cfg, seed):
        return Motion(0.2 + 2 * clip.motion.roll(self.late, dims=0))


def test_measures_know_the_truth():
    clips = [noise_clip(seed) for seed in range(6)]
    exact = measure.measure_mouth(Puppet(clips), clips, 1.0)
    assert exact["mouth_open"] == pytest.approx(1, abs=1e-4)
    assert exact["lag"] == 0
    assert abs(exact["other_speech"]) < 0.35
    assert exact["open_in_silence"] == pytest.approx(0.2, abs=0.02)
    assert exact["open_in_vowels"] == pytest.approx(0.2 + 2 * exact["true_open_in_vowels"], abs=0.01)
    late = measure.measure_mouth(Puppet(clips, late=2), clips, 1.0)
    assert late["lag"] == 2
    assert late["mouth_open"] < exact["mouth_open"] - 0.02
    # motion that follows the speech alone does not follow the control
    steered = measure.measure_control(Puppet(clips), clips, 1.0)
    assert abs(steered["yaw_within"]) < 0.5


def test_blinks_are_learned_as_often_as_they_are():
    """The best constant guess for eyes shut a tenth of the time is their mean for blinks, not their median."""
    shut = torch.zeros(100, MOTION_SIZE)
    shut[:10] = 1
    guesses = torch.linspace(0, 1, 101)
    for channel, best in ((CHANNEL["blink"], 0.1), (CHANNEL["brows"], 0.0)):
        errors = []
        for guess in guesses:
            guessed = shut.clone()
            guessed[:, channel] = guess
            errors.append(weighted_error(guessed - shut).item())
        assert guesses[int(np.argmin(errors))].item() == pytest.approx(best, abs=0.011), channel
