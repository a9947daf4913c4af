"""The avatar that comes with the package: heads follow the driver, the mouth follows speech, silence is still.

Tests elsewhere that use the avatar rely on these.
"""

import torch
from meaning import backwards, follows, mouth_in, sentence, value, yaw_in

from benchmarks.avatar_pictures import ACROSS, SHOWN, people
from imtalker import Motion
from imtalker.avatar.batches import random_motion
from imtalker.avatar.readback import correlation, read
from imtalker.drawn.head import MOTION_SIZE
from imtalker.drawn.people import random_appearances
from imtalker.drawn.portraits import draw
from imtalker.media.audio import SAMPLE_RATE, Audio
from imtalker.weights.checkpoints import AVATAR

FRAMES = 12


def test_its_files_are_small():
    assert sum(file.stat().st_size for file in AVATAR.glob("*.safetensors")) <= 12e6


def test_heads_eyes_and_mouths_follow_the_driver(avatar):
    motion = random_motion(FRAMES, torch.Generator().manual_seed(21))
    opened = value(motion, "blink") < 0.5
    found = {"mouth_open": [], "yaw": [], "gaze_x": [], "gaze_y": [], "lead": []}
    for person in (20, 21):
        appearance = random_appearances(1, person)
        portrait = draw(appearance, torch.zeros(1, MOTION_SIZE), avatar.renderer.config.input_size).permute(0, 2, 3, 1)
        source = avatar.renderer.encode_source(portrait)
        frames = avatar.renderer.render(source, Motion(motion, 25.0, source.generation)).permute(0, 3, 1, 2)
        truth = draw(appearance.repeat_interleave(FRAMES), motion, frames.shape[-1])
        found["mouth_open"].append(correlation(mouth_in(frames, motion, appearance), value(motion, "mouth_open")))
        found["yaw"].append(correlation(yaw_in(frames, motion, appearance), value(motion, "yaw")))
        eyes = read(frames, appearance.repeat_interleave(FRAMES), motion)
        for name in ("gaze_x", "gaze_y"):
            found[name].append(correlation(eyes[name][opened], value(motion, name)[opened]))
        error, other = ((x - truth).square().mean().log10() for x in (frames, frames.roll(1, 0)))
        found["lead"].append(float(10 * (other - error)))
    means = {name: sum(values) / len(values) for name, values in found.items()}
    assert means["mouth_open"] > 0.5, means
    assert means["yaw"] > 0.7, means
    assert min(means["gaze_x"], means["gaze_y"]) > 0.7, means
    assert means["lead"] > 1, means


def test_the_mouth_follows_the_speech_and_no_other_and_rests_in_silence(avatar):
    speech = sentence()
    opened = value(avatar.say(speech), "mouth_open")
    with_own, lag = follows(opened, speech)
    assert with_own > 0.6
    assert abs(lag) <= 1
    assert follows(opened, backwards(speech))[0] < with_own - 0.4
    assert opened[:100].std() > 0.1
    assert opened[-15:].abs().max() < 0.1


def test_a_breath_of_noise_opens_no_mouth(avatar):
    quiet = torch.zeros(1, 2 * SAMPLE_RATE)
    quiet[0, :4000] = 0.01 * torch.randn(4000, generator=torch.Generator().manual_seed(1))
    assert value(avatar.say(Audio(quiet, SAMPLE_RATE)), "mouth_open")[10:].abs().mean() < 0.1


def test_its_pictures_show_people_as_drawn_and_speaking(avatar):
    sheet = people(avatar.renderer, avatar.generator, ACROSS)
    side, pictures = avatar.renderer.config.output_size, ACROSS * (1 + len(SHOWN))
    assert sheet.shape == (side, pictures * side, 3)
    apart = sheet.unflatten(1, (pictures, side)).permute(1, 0, 2, 3)
    first, *speaking = apart[: 1 + len(SHOWN)]
    another = apart[1 + len(SHOWN)]
    for frame in speaking:
        assert 0 < (frame - first).abs().mean() < 0.7 * (frame - another).abs().mean()
