"""Rigs learned from readings: the names come back, noise costs little, parts stay apart, files are safe."""

import json

import pytest
import torch
from meaning import sentence, value
from safetensors.torch import save_file
from scrambled import mixing

from imtalker import InputError, Motion
from imtalker.avatar.readback import correlation
from imtalker.drawn.head import MOTION
from imtalker.media.audio import Audio
from imtalker.motion.rig import Channel, Rig
from imtalker.motion.rig_learning import learn

MATRIX = mixing(1)
BACK = torch.linalg.inv(MATRIX)
PART = dict.fromkeys(MOTION, "head") | {
    **dict.fromkeys(("gaze_x", "gaze_y", "blink"), "eyes"),
    **dict.fromkeys(("mouth_open", "mouth_width", "mouth_round", "smile"), "mouth"),
    "brows": "brows",
}


@pytest.fixture(scope="module")
def clips(avatar):
    """40 s to learn from, and 10 s of other speech and other noise to test on: the avatar's own latents (T,16)."""
    backwards = Audio(sentence(4.0, 0.0).waveform.flip(-1), sentence().sample_rate)
    learned = [avatar.say(sentence(4.0, 1.0), seed=seed) for seed in range(8)]
    tested = [avatar.say(backwards, seed=seed) for seed in (20, 38)]
    return torch.cat(learned), torch.cat(tested)


def readings(latents, noise=0.0):
    random = torch.Generator().manual_seed(3)
    noise = noise * latents.std(0) * torch.randn(latents.shape, generator=random)
    return {name: column for name, column in zip(MOTION, (latents + noise).unbind(1))}


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.999), (0.05, 0.95)])
def test_the_names_come_back(clips, noise, least):
    learned, tested = clips
    rig = learn(Motion(learned @ MATRIX), readings(learned, noise), PART)
    read = rig.read(Motion(tested @ MATRIX))
    assert rig.usable() == list(range(len(MOTION)))
    for name in MOTION:
        assert correlation(read[name], value(tested, name)) >= least, name
    # what is written moves its own value by as much, and the others by little
    base = Motion(tested @ MATRIX)
    for name in MOTION:
        own = value(learned, name).std()
        moved = ((rig.add(base, {name: own[None]}).latents - base.latents) @ BACK).mean(0)
        in_deviations = moved[: len(MOTION)] / learned[:, : len(MOTION)].std(0)
        number = MOTION.index(name)
        assert 0.9 < in_deviations[number] < 1.1, name
        assert torch.cat([in_deviations[:number], in_deviations[number + 1 :]]).abs().max() <= 0.1, name


def test_a_part_leaves_the_others(clips):
    learned, tested = clips
    rig = learn(Motion(learned @ MATRIX), readings(learned), PART)
    base, other = (Motion(part @ MATRIX) for part in tested.chunk(2))
    for part in ("head", "mouth", "eyes", "brows"):
        taken = rig.combine(base, other, [part]).latents @ BACK
        for number, name in enumerate(MOTION):
            wanted = (other if PART[name] == part else base).latents @ BACK
            error = (taken[:, number] - wanted[:, number]).square().mean().sqrt()
            assert error <= 0.05 * learned[:, number].std(), (part, name)


def test_the_rest_is_what_has_no_channel(clips):
    learned, tested = clips
    known = {name: values for name, values in readings(learned).items() if PART[name] in ("head", "mouth")}
    rig = learn(Motion(learned @ MATRIX), known, PART)
    base, other = (Motion(part @ MATRIX) for part in tested.chunk(2))
    whole = rig.combine(base, other, ["head", "mouth", "rest"])
    torch.testing.assert_close(whole.latents, other.latents[: len(base)], rtol=0, atol=1e-4)
    expression = rig.combine(base, other, ["mouth", "rest"]).latents @ BACK
    # what has no channel comes along but for the share of it that goes with the head
    for name, least in (("blink", 0.85), ("brows", 0.7), ("mouth_open", 0.95)):
        assert correlation(value(expression, name), value(other.latents @ BACK, name)) >= least, name
    for name in ("yaw", "pitch", "roll"):
        assert correlation(value(expression, name), value(base.latents @ BACK, name)) >= 0.95, name
    assert torch.equal(rig.combine(base, other, []).latents, base.latents)


def test_a_mask_brings_a_part_in_over_time(clips):
    learned, tested = clips
    rig = learn(Motion(learned @ MATRIX), readings(learned), PART)
    base, other = (Motion(part @ MATRIX) for part in tested.chunk(2))
    faded = rig.combine(base, other, ["mouth"], torch.tensor([0.0, 1.0])).latents
    torch.testing.assert_close(faded[0], base.latents[0])
    torch.testing.assert_close(faded[-1], rig.combine(base, other, ["mouth"]).latents[-1])


def test_what_the_clip_did_not_show_is_off_and_named(clips, caplog):
    learned, _ = clips
    noise = torch.randn(len(learned), generator=torch.Generator().manual_seed(1))
    given = readings(learned) | {"tongue": noise, "ears": torch.zeros(len(learned))}
    rig = learn(Motion(learned @ MATRIX), given, PART | {"tongue": "mouth", "ears": "head"})
    assert "tongue, ears" in caplog.text
    assert "tongue" not in [rig.channels[i].name for i in rig.usable()]
    with pytest.raises(InputError, match="reads tongue too poorly"):
        rig.add(Motion(learned @ MATRIX), {"tongue": torch.ones(1)})
    with pytest.raises(InputError, match="no channel 'nose'"):
        rig.add(Motion(learned @ MATRIX), {"nose": torch.ones(1)})
    only_head = learn(Motion(learned @ MATRIX), {"yaw": value(learned, "yaw")}, PART)
    with pytest.raises(InputError, match="cannot tell the brows apart; it knows: head"):
        only_head.combine(Motion(learned), Motion(learned), ["brows"])


def test_a_file_gives_the_rig_back(clips, tmp_path):
    learned, _ = clips
    rig = learn(Motion(learned @ MATRIX), readings(learned), PART, weights="abc")
    rig.save(tmp_path / "r.safetensors")
    again = Rig.load(tmp_path / "r.safetensors")
    assert again.channels == rig.channels
    assert (again.generation, again.weights) == ("v2", "abc")
    for name in ("read_out", "write_in", "rest"):
        assert torch.equal(getattr(again, name), getattr(rig, name))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "motion"},
        {"channels": "[" * 5000},
        {"channels": "{}"},
        {"channels": json.dumps([{"name": "yaw"}])},
        {"generation": "v9"},
        {"size": 5},
        {"nan": True},
    ],
    ids=str,
)
def test_damaged_files_are_refused(tmp_path, change):
    rig = Rig((Channel("yaw", "head", -1, 1, 1.0, "readings"),), torch.ones(4, 1), torch.ones(1, 4), torch.zeros(1, 4))
    rig.save(tmp_path / "r.safetensors")
    header = {"kind": "rig", "generation": "v2", "channels": json.dumps([vars(rig.channels[0])])}
    tensors = {"read_out": torch.ones(4, 1), "write_in": torch.ones(1, 4), "rest": torch.zeros(1, 4)}
    change = dict(change)
    if change.pop("nan", False):
        tensors["rest"] = tensors["rest"] * torch.nan
    if size := change.pop("size", 0):
        tensors["rest"] = torch.zeros(1, size)
    save_file(tensors, tmp_path / "bad.safetensors", header | change)
    with pytest.raises(InputError, match="rig"):
        Rig.load(tmp_path / "bad.safetensors")


def test_a_rig_of_other_weights_is_refused():
    rig = Rig((), torch.zeros(4, 0), torch.zeros(0, 4), torch.zeros(1, 4))
    with pytest.raises(InputError, match="The rig is v2 but the motion is v1"):
        rig.read(Motion(torch.zeros(3, 4), generation="v1"))
    with pytest.raises(InputError, match="The rig has 4 values"):
        rig.read(Motion(torch.zeros(3, 5)))


def test_too_short_a_clip_is_refused():
    with pytest.raises(InputError, match="at least 8 s"):
        learn(Motion(torch.zeros(50, 4)), {"yaw": torch.zeros(50)}, {"yaw": "head"})
