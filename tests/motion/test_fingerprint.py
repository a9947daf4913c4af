"""Fingerprints of weights: the same in every precision, others for other weights, checked where two sides meet."""

from dataclasses import replace

import pytest
import torch
from scrambled import mixed, mixing
from tiny import tiny_generator, tiny_renderer

from imtalker import InputError, Motion, load_generator, load_renderer
from imtalker.avatar.rig import named_rig
from imtalker.motion import fingerprint as fingerprints
from imtalker.motion.fingerprint import differ, fingerprint
from imtalker.motion.rig import Rig
from imtalker.weights.checkpoints import AVATAR, find_weights


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("kind", "load"), [("generator", load_generator), ("renderer", load_renderer)])
def test_precision_and_folding_change_nothing(kind, load, dtype):
    file = find_weights(AVATAR, kind)
    whole = load(file).fingerprint
    assert whole.startswith(f"{kind} ")
    assert not differ(whole, load(file, dtype=dtype, final=True).fingerprint)


def test_other_weights_differ_and_slightly_tuned_ones_do_not(avatar):
    own = avatar.generator.fingerprint
    assert differ(own, mixed(avatar.generator, mixing()).fingerprint)
    assert differ(own, tiny_generator().fingerprint)
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(32, 512, generator=random)
    tuned = weights + 0.05 * torch.randn(32, 512, generator=random)
    assert not differ(fingerprint("generator", weights), fingerprint("generator", tuned))
    others = [fingerprint("generator", torch.randn(32, 512, generator=random)) for _ in range(100)]
    assert all(differ(others[0], other) for other in others[1:])


def test_only_weights_of_one_kind_are_compared():
    one, other = "generator 0123456789abcdef", "generator fedcba9876543210"
    assert differ(one, other)
    assert not differ(one, one)
    for unknown in ("", "abc", "renderer fedcba9876543210", "generator 0123", "generator"):
        assert not differ(one, unknown)
        assert not differ(unknown, one)
    assert differ(f"renderer 0000000000000000 {one}", other)


def test_it_is_taken_once_and_again_when_the_weights_change(monkeypatch):
    taken = []
    monkeypatch.setattr(fingerprints, "fingerprint", lambda *of: taken.append(1) or fingerprint(*of))
    generator = tiny_generator()
    first, second = generator.fingerprint, generator.fingerprint
    assert (first, len(taken)) == (second, 1)
    with torch.no_grad():
        generator.flow.head.linear.weight.neg_()
    assert differ(first, generator.fingerprint)
    assert len(taken) == 2


def test_models_sign_their_motion_and_its_file_keeps_it(avatar, tmp_path):
    renderer = tiny_renderer()
    motion = renderer.encode_motion(torch.rand(2, 64, 64, 3))
    assert motion.weights == renderer.fingerprint
    motion.at_fps(50).save(tmp_path / "m.safetensors")
    assert Motion.load(tmp_path / "m.safetensors").weights == renderer.fingerprint


def test_a_rig_meets_only_motion_of_its_weights(avatar):
    rig = Rig.load(AVATAR / "rig.safetensors")
    motion = Motion(torch.zeros(3, 16), weights=avatar.generator.fingerprint)
    rig.read(motion)
    rig.read(replace(motion, weights=avatar.renderer.fingerprint))
    for weights in ("generator 0123456789abcdef", "renderer 0123456789abcdef"):
        with pytest.raises(InputError, match="rig and the motion were made with different weights: use a rig"):
            rig.combine(motion, replace(motion, weights=weights), ["head"])


def test_the_avatars_rig_is_that_of_its_weights(avatar):
    shipped = Rig.load(AVATAR / "rig.safetensors")
    made = named_rig(f"{avatar.generator.fingerprint} {avatar.renderer.fingerprint}")
    assert (shipped.channels, shipped.weights) == (made.channels, made.weights)
    assert torch.equal(shipped.read_out, made.read_out)
    assert torch.equal(shipped.write_in, made.write_in)
