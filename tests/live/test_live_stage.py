"""What a live face does, by a clock of its own: in time, alive, interrupted, too slow, steered, led by a camera."""

from types import SimpleNamespace

import pytest
import torch
from meaning import follows, sentence, value
from tiny import tiny_generator

from benchmarks.theatre import RATE, Theatre, syllables
from imtalker import Control, InputError, Rig
from imtalker.drawn.head import MOTION
from imtalker.media.audio import FPS, Audio
from imtalker.motion.rig import Channel
from imtalker.motion_stream import MotionStream

HEAD = slice(0, 6)  # of the avatar's latents: its pose


@pytest.fixture(scope="module")
def mute():
    """A tiny generator and a source."""
    source = SimpleNamespace(motion=torch.randn(1, 8, generator=torch.Generator().manual_seed(4)), generation="v2")
    return tiny_generator("v2"), source


def spoken(theatre: Theatre, first: int = 0) -> tuple[float, int]:
    """How well, and how late, the mouth follows what was said from a frame on."""
    opened = value(theatre.motion(), "mouth_open")[first:]
    return follows(opened, Audio(theatre.sound()[:, first * 640 : (first + len(opened)) * 640], RATE))


def test_a_stream_can_be_steered_while_it_runs(mute):
    def rows(start, count):
        return Control(pose=torch.full((count, 3), 0.01 * start))

    sound = syllables(3)
    fixed = Control(pose=torch.cat([torch.zeros(50, 3), torch.full((50, 3), 0.5)]))
    for control in (fixed, rows):
        streams = [MotionStream(*mute, sample_rate=RATE, nfe=3, control=given) for given in (control, None)]
        for stream in streams:
            stream.feed(sound)
        streams[1].steer(control=control, cfg=2.0, seed=0)
        given = [sampled(stream, 60) for stream in streams]
        # the first displacement is the only thing that another beginning leaves
        torch.testing.assert_close(given[0][12:50], given[1][12:50])
    calm, turned = (MotionStream(*mute, sample_rate=RATE, nfe=3) for _ in range(2))
    for stream in (calm, turned):
        stream.feed(sound)
    assert torch.equal(sampled(calm, 20), sampled(turned, 20))
    turned.steer(control=Control(pose=torch.full((1, 3), 3.0)), seed=9)
    after, calm = sampled(turned, 30), sampled(calm, 30)
    assert (after - calm).abs().max() > 0.05
    assert after.diff(dim=0).abs().max() < 1.3 * calm.diff(dim=0).abs().max()
    for wrong in ({"cfg": float("nan")}, {"source": SimpleNamespace(motion=torch.zeros(1, 8), generation="v1")}):
        with pytest.raises(InputError):
            turned.steer(**wrong)


def sampled(stream: MotionStream, frames: int) -> torch.Tensor:
    rows = []
    while sum(map(len, rows)) < frames:
        motion = stream.sample().latents[: frames - sum(map(len, rows))]
        stream.hand_out(len(motion))
        rows.append(motion)
    return torch.cat(rows)


def test_a_chunk_that_is_late_takes_all_that_was_heard(mute):
    stream = MotionStream(*mute, sample_rate=RATE, nfe=2, chunk=0.16, lookahead=0.12)
    stream.feed(syllables(1))
    assert len(stream.sample()) == 4
    assert len(stream.sample(catch_up=True)) == 22
    stream.feed(syllables(3))
    assert len(stream.sample(catch_up=True)) == 50  # never beyond its window


def test_every_frame_is_ready_in_time(mute):
    theatre = Theatre(*mute, nfe=2, cost=0.01)
    theatre.say(syllables(2))
    theatre.run(5)
    numbers = [number for number, _ in theatre.shown]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 5 * FPS - theatre.stage.delay
    assert max(theatre.late()) <= 0
    assert theatre.stage.left_out == 0


@pytest.mark.parametrize(("cost", "least"), [(0.06, 14), (0.19, 5), (1.1, 0.8)])
def test_too_slow_a_machine_shows_what_it_can_in_step_with_the_sound(mute, cost, least):
    theatre = Theatre(*mute, nfe=2, cost=cost)
    theatre.run(1)
    before = len(theatre.shown)
    theatre.say(syllables(9))
    theatre.run(10)
    assert len(theatre.shown) - before > 10 * least
    assert max(theatre.late()[2:]) < cost + 0.12
    assert theatre.stage.left_out > 0
    numbers = [number for number, _ in theatre.shown]
    assert numbers == sorted(set(numbers))
    # and once it is quick again, nothing is late
    theatre.cost = 0
    theatre.run(2)
    left_out = theatre.stage.left_out
    theatre.run(1)
    assert theatre.stage.left_out == left_out
    assert max(theatre.late()[-25:]) <= 0


def test_a_face_that_fell_far_behind_starts_anew_at_the_sound(mute):
    theatre = Theatre(*mute, nfe=2)
    theatre.run(1)
    theatre.time += 5  # the machine did something else
    theatre.run(7)
    numbers = torch.tensor([number for number, _ in theatre.shown])
    assert int(numbers.diff().max()) > 50
    assert max(theatre.late()[-40:]) <= 0


def test_speech_begins_and_ends_without_a_jump_and_lips_follow_it(avatar):
    sound = sentence(2.0, 0.0)
    theatre = Theatre(avatar.generator, avatar.source, cfg=1.0, nfe=5, history=2.0)
    joins = [0]
    for _ in range(3):
        theatre.run(1.6)
        joins.append(theatre.stage.next)
        theatre.say(sound.waveform[:, : 2 * RATE])
        theatre.run(2.4)
        joins.append(theatre.stage.next)
    motion = theatre.motion()
    with_own, lag = spoken(theatre, 25)
    assert with_own > 0.7
    assert abs(lag) <= 1
    opened = value(motion, "mouth_open")
    assert opened[15:38].abs().max() < 0.1
    # where chunks of the other kind begin, the head moves no more than elsewhere
    steps = motion[:, HEAD].diff(dim=0).norm(dim=1)
    near = torch.tensor([step for join in joins[1:] for step in range(join - 2, min(join + 12, len(steps)))])
    assert steps[near].mean() < 1.2 * steps.mean()
    assert steps.max() < 5 * steps.mean()
    # and it is alive: the head sways in silence
    assert motion[15:38, HEAD].std(dim=0).max() > 0.005


def test_interrupted_ten_times_it_is_silent_at_once_and_shuts_its_mouth(avatar):
    theatre = Theatre(avatar.generator, avatar.source, cfg=1.0, nfe=3, history=2.0)
    theatre.run(0.6)
    sound, cuts = sentence(4.0, 0.0), []
    for _ in range(10):
        theatre.say(sound.waveform)
        theatre.run(0.64)
        cuts.append(theatre.number + 1)
        theatre.interrupt()
        theatre.run(0.8)
    opened, said = value(theatre.motion(), "mouth_open"), theatre.sound()[0]
    assert value(theatre.motion(), "mouth_open").max() > 0.3
    for cut in cuts:
        assert not said[cut * 640 + 160 : (cut + 12) * 640].any()
        assert opened[cut + 13 : cut + 19].abs().max() < 0.12
    steps = theatre.motion()[:, HEAD].diff(dim=0).norm(dim=1)
    assert steps.max() < 5 * steps.mean()


def test_a_camera_leads_from_the_portraits_own_pose_and_speech_takes_over_again(mute):
    generator, source = mute
    theatre = Theatre(generator, source, nfe=2)
    theatre.run(1)
    pictures = {}

    def film(theatre):
        pictures[theatre.ticks] = 0.3 + 0.2 * torch.sin(torch.tensor(theatre.ticks / 9)).item()
        theatre.stage.drive(torch.full((1, 12, 12, 3), pictures[theatre.ticks]), "none")

    begin = theatre.stage.next
    theatre.run(4, film)
    assert theatre.stage.sees_face
    motion, first = theatre.motion(), min(pictures)
    for frame in range(begin + 30, theatre.stage.next):  # at the time of its own sound, so with it
        moved = motion[frame] - source.motion[0]
        torch.testing.assert_close(moved, torch.full((8,), pictures[frame] - pictures[first]), atol=0.02, rtol=0)
    theatre.stage.release()
    theatre.say(syllables(2))
    end = theatre.stage.next
    theatre.run(3)
    assert not theatre.stage.sees_face
    assert [number for number, _ in theatre.shown] == list(range(len(theatre.shown)))
    steps = theatre.motion().diff(dim=0).norm(dim=1)
    for join in (begin, end):
        assert steps[join - 2 : join + 3].max() <= 1.2 * steps[end + 15 :].max()


def test_it_is_steered_without_a_jump(avatar):
    theatre = Theatre(avatar.generator, avatar.source, cfg=1.0, nfe=5, sway=0)
    theatre.run(1.2)

    def steer(seconds: float = 1.6, **settings) -> torch.Tensor:
        done = theatre.stage.order(lambda: theatre.stage.change(**settings))
        theatre.run(seconds)
        done.result(timeout=0)
        return theatre.motion()[-10:].mean(dim=0)

    yaw = MOTION.index("yaw")
    turned, back = steer(aim={"yaw": 20})[yaw], steer(aim={"yaw": -20})[yaw]
    assert turned > 0.2
    assert back < -0.2
    still = steer(strength=0.0, aim={})
    torch.testing.assert_close(still, avatar.source.motion[0], atol=0.02, rtol=0)
    steps = theatre.motion().diff(dim=0)[:, yaw].abs()
    assert steps.max() < 0.2 * (turned - back)
    for wrong, words in (
        ({"aim": {"yaw": 99}}, "Yaw must be between -30 and 30, not 99"),
        ({"aim": {"pitch": float("nan")}}, "Pitch"),
        ({"aim": {"nose": 1}}, "nose"),
        ({"cfg": float("inf")}, "cfg"),
        ({"expression": {"smile": 1.0}}, "rig"),
    ):
        with pytest.raises(InputError, match=words):
            steer(0.1, **wrong)


def test_an_expression_of_a_rig_comes_and_goes(mute):
    generator, source = mute
    write_in = torch.eye(8)[2:3]
    rig = Rig((Channel("smile", "mouth", -1, 1, 1.0, "readings"),), write_in.T, write_in, torch.zeros(1, 8))
    faces = [Theatre(generator, source, nfe=2, rig=given) for given in (None, rig)]
    faces[1].stage.order(lambda: faces[1].stage.change(expression={"smile": 0.7}))
    for theatre in faces:
        theatre.run(2)
    added = faces[1].motion() - faces[0].motion()
    torch.testing.assert_close(added[-1], 0.7 * write_in[0], atol=1e-2, rtol=0)
    assert added.diff(dim=0).max() < 0.2
    refused = faces[1].stage.order(lambda: faces[1].stage.change(expression={"frown": 1.0}))
    faces[1].stage.order(lambda: faces[1].stage.change(expression={}))
    for theatre in faces:
        theatre.run(2)
    added = faces[1].motion() - faces[0].motion()
    assert added[-1].abs().max() < 1e-2
    assert added.diff(dim=0).abs().max() < 0.2
    with pytest.raises(InputError, match="frown"):
        refused.result()


def test_another_portrait_goes_on_where_the_first_one_was(mute):
    generator, source = mute
    other = SimpleNamespace(motion=-source.motion, generation="v2")
    theatre = Theatre(generator, source, nfe=2)
    theatre.run(2)
    change = theatre.stage.next
    done = theatre.stage.order(lambda: theatre.stage.change(source=other))
    theatre.run(2)
    done.result(timeout=0)
    steps = theatre.motion().diff(dim=0).norm(dim=1)
    assert steps[change - 2 : change + 3].max() <= 1.2 * steps[12:].max()
    assert [number for number, _ in theatre.shown] == list(range(len(theatre.shown)))
    with pytest.raises(InputError, match="v1"):
        theatre.stage.change(source=SimpleNamespace(motion=source.motion, generation="v1"))
