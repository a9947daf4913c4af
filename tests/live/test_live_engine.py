"""Live for programs, on the real clock for a moment: moments in order, sound as it was said, nothing left behind."""

import asyncio
import threading

import own_loop
import pytest
import torch
from tiny import tiny_generator, tiny_renderer

from benchmarks.theatre import RATE, syllables
from imtalker import InputError, Live

# tiny models; sampled as little as can be, since this machine may be busy
SETTINGS = {"sample_rate": RATE, "nfe": 2, "history": 0.4, "delay": 0.4}


@pytest.fixture(scope="module")
def models():
    renderer = tiny_renderer()
    return renderer, tiny_generator(), renderer.encode_source(torch.rand(1, 64, 64, 3))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "imtalker live"]


def test_moments_come_one_by_one_with_the_sound_that_was_said(models):
    speech, found = 0.3 * syllables(0.4) + 0.1, {}

    async def talk():
        async with Live(*models, **SETTINGS) as live:
            assert live.latency == pytest.approx(0.4)
            moments = []
            async for moment in live:
                moments.append(moment)
                if len(moments) == 3:
                    live.say(speech)
                    assert live.speaking
                    await live.steer(aim={"yaw": 10}, strength=0.5)
                    await live.show(torch.rand(1, 80, 60, 3), crop="none")
                    for wrong in (live.steer(strength=3), live.steer(aim={"yaw": 99}), live.show("no such file.png")):
                        with pytest.raises(InputError):
                            await wrong
                if len(moments) == 26:
                    break
            found["pictures"] = live.pictures_per_second
        found["after"] = [moment async for moment in live]
        return moments

    moments = own_loop.run(talk())
    numbers = [moment.number for moment in moments]
    assert numbers == list(range(numbers[0], numbers[0] + 26))
    assert all(moment.time == moment.number / 25 for moment in moments)
    assert {(moment.frame.shape, moment.frame.dtype) for moment in moments} == {((64, 64, 3), torch.uint8)}
    sound = torch.cat([moment.sound for moment in moments])
    assert len(sound) == 26 * 640
    begin = int(sound.nonzero()[0])
    assert torch.equal(sound[begin : begin + len(speech)], speech)
    assert found["pictures"] > 0
    assert len(found["after"]) <= 25  # it ends
    assert not threads()


def test_an_interruption_silences_what_was_not_shown_and_a_slow_consumer_is_not_waited_for(models):
    async def talk():
        async with Live(*models, **SETTINGS) as live:
            live.say(0.5 * torch.ones(5 * RATE))
            heard = 0
            async for moment in live:
                heard += bool(moment.sound.abs().max() > 0.4)
                if heard == 3:
                    break
            live.interrupt()
            number = live._number
            rest = [await anext(live) for _ in range(6)]
            after = torch.cat([moment.sound for moment in rest if moment.number > number])
            await asyncio.sleep(1.4)  # longer than moments are kept
            assert live._moments.qsize() == 25
            late = await anext(live)
            return after, late.number - rest[-1].number, live.speaking

    after, skipped, speaking = own_loop.run(talk())
    assert not after[RATE // 100 :].any()
    assert skipped > 1
    assert not speaking
    assert not threads()


def test_the_other_side_interrupts_and_its_voice_is_not_said(models):
    async def talk():
        async with Live(*models, **SETTINGS) as live:
            live.say(0.5 * torch.ones(5 * RATE))
            assert not live.hear(torch.zeros(RATE // 10))
            assert live.speaking
            pieces = [live.hear(piece) for piece in syllables(0.2).split(RATE // 100)]
            assert 4 < pieces.index(True) < 10  # noticed within 0.1 s, but no click
            assert live.listening
            assert not live._mixer.queue.samples
            live.say(0.5 * torch.ones(RATE))
            live.mirror(torch.zeros(RATE // 10))
            assert live._mixer.queue.samples
            live.mirror(syllables(0.2))
            assert not live._mixer.queue.samples
            live.drive(torch.rand(20, 20, 3), "none")
            live.drive(None)

    own_loop.run(talk())
    assert not threads()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"chunk": 9}, "chunk"), ({"lookahead": float("inf")}, "look ahead"), ({"cfg": float("nan")}, "cfg")],
)
def test_unusable_settings_are_told(models, wrong, words):
    async def enter():
        async with Live(*models, **SETTINGS | wrong):
            pass

    with pytest.raises(InputError, match=words):
        own_loop.run(enter())
    assert not threads()


def test_an_error_in_its_thread_reaches_the_consumer(models):
    async def talk():
        async with Live(*models, **SETTINGS) as live:
            live._stage._renderer = None
            async for _ in live:
                pass

    with pytest.raises(AttributeError):
        own_loop.run(talk())
    assert not threads()
