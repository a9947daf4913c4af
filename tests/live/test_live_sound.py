"""Sound on its way to a live face: the gate, late and surplus packets, interruptions, limits."""

import pytest
import torch

from benchmarks.theatre import syllables
from imtalker import InputError
from imtalker.live.mixer import KEPT, Mixer
from imtalker.live.sound import BLOCKS, JITTER, Microphone, Queue, Record

RATE = 16000
BLOCK = RATE // BLOCKS


def noise(seconds: float, decibels: float, seed: int = 0) -> torch.Tensor:
    samples = torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))
    return samples * 10 ** (decibels / 20)


def passed(sound: torch.Tensor) -> torch.Tensor:
    """What a microphone lets through of a sound that arrives in time, without the wait at the beginning."""
    microphone = Microphone(RATE)
    taken = []
    for block in torch.cat([sound, torch.zeros((JITTER + 1) * BLOCK)]).split(BLOCK):
        microphone.put(block)
        taken.append(microphone.take(1))
    return torch.cat(taken)[JITTER * BLOCK :][: len(sound)]


def test_speech_passes_whole_and_a_quiet_room_does_not():
    for room in (-75, -62, -55):
        heard = noise(3, room) + torch.cat([torch.zeros(RATE), syllables(1), torch.zeros(RATE)])
        given = passed(heard)
        assert not given[: RATE - 6 * BLOCK].any()
        assert torch.equal(given[RATE : 2 * RATE], heard[RATE : 2 * RATE])  # its beginning too
        assert not given[-RATE // 2 :].any()


def test_a_fan_is_no_speech_once_it_is_known_but_a_voice_above_it_is():
    fan = noise(14, -40)
    assert not passed(fan)[-2 * RATE :].any()
    voice = fan.clone()
    voice[-RATE:] += syllables(1)
    assert torch.equal(passed(voice)[-RATE // 2 :], voice[-RATE // 2 :])


def test_a_click_opens_nothing_and_nobody_speaks():
    click = torch.zeros(RATE)
    click[8000:8080] = 0.8
    microphone = Microphone(RATE)
    microphone.put(click)
    assert not microphone.gate.speaking
    assert not passed(click).any()
    microphone.put(syllables(0.2))
    assert microphone.gate.speaking


def test_late_packets_leave_no_gap_and_surplus_ones_are_dropped_in_silence():
    random = torch.Generator().manual_seed(3)
    voice, microphone = syllables(4) + 0.2, Microphone(RATE)
    packets, taken, sent = voice.split(2 * BLOCK), [], 0  # 20 ms each, up to 30 ms late
    arrival = [2 * number + 2 + int(torch.randint(0, 4, (1,), generator=random)) for number in range(len(packets))]
    for now in range(400):
        while sent < len(packets) and arrival[sent] <= now:
            microphone.put(packets[sent])
            sent += 1
        if now % 4 == 3:
            taken.append(microphone.take(4))
    given = torch.cat(taken)
    begin = int(given.nonzero()[0])
    assert (given[begin + BLOCK : begin + 3 * RATE] != 0).all()  # beyond the gate's ramp
    # a sender whose clock is too fast: what waits stays bounded
    microphone = Microphone(RATE)
    for _ in range(500):
        microphone.put(noise(0.05, -70))
        microphone.take(4)
    assert len(microphone._blocks) < 20


def test_what_is_said_comes_out_as_it_is_and_the_other_side_never_does():
    mixer, speech = Mixer(RATE), syllables(1)
    mixer.mix(3)
    mixer.say(speech[None], RATE)
    for frame in range(4, 40):
        mixer.hear(syllables(0.04, seed=frame), RATE)
        mixer.mix(frame)
    assert mixer.other.speaking
    assert torch.equal(mixer.read(3 * 640, 3 * 640 + RATE), speech)
    assert not mixer.read(3 * 640 + RATE, mixer.end).any()
    assert mixer.queue.samples == 0


def test_frames_are_known_as_soon_as_the_models_can_hear_them():
    for rate in (8000, 16000, 24000, 44100, 48000):
        mixer = Mixer(rate)
        mixer.mix(7)
        assert mixer.frames == 7
        assert mixer.end >= 7 * mixer.size + (0 if rate == 16000 else 0.006 * min(rate, 16000))


def test_interrupting_drops_what_waits_and_keeps_the_microphone():
    mixer, live = Mixer(RATE), 0.4 * syllables(2, seed=4) + 0.1
    mixer.say(0.4 * torch.ones(10 * RATE), RATE)
    for frame in range(1, 26):
        mixer.mirror(live[(frame - 1) * 640 : frame * 640], RATE)
        mixer.mix(frame)
    said = mixer.read(0, mixer.end)
    mixer.interrupt(20)
    assert torch.equal(mixer.read(0, 20 * 640), said[: 20 * 640])
    after = mixer.read(20 * 640, 25 * 640)
    torch.testing.assert_close(after[BLOCK:], (said[20 * 640 : 25 * 640] - 0.4)[BLOCK:])
    assert abs(after[0] - said[20 * 640]) < 0.05  # without a click
    assert mixer.queue.samples == 0


def test_the_record_forgets_and_answers_for_any_stretch():
    record = Record(100)
    for start in range(0, 1000, 7):
        record.append(torch.arange(start, start + 7.0))
    assert (record.end, len(record._held)) == (1001, 100)
    for start, stop in ((0, 50), (850, 950), (950, 1001), (990, 1020), (2000, 2010), (10, 10), (880, 1100)):
        positions = torch.arange(float(start), stop)
        held = (positions >= 901) & (positions < 1001)
        assert torch.equal(record.read(start, stop), positions * held)
    record.rewrite(890, -torch.ones(30))
    assert torch.equal(record.read(900, 921), torch.cat([torch.zeros(1), -torch.ones(19), torch.tensor([920.0])]))
    record.rewrite(990, -torch.ones(11))
    assert torch.equal(record.read(989, 1001), torch.cat([torch.tensor([989.0]), -torch.ones(11)]))
    queue = Queue()
    queue.put(torch.ones(5))
    assert queue.take(3).sum() == 3
    assert (queue.take(4).tolist(), queue.samples) == ([1, 1, 0, 0], 0)


def test_memory_is_bounded_and_too_much_is_refused():
    mixer = Mixer(RATE)
    mixer.mix(25 * (KEPT + 20))
    assert len(mixer._said._held) == len(mixer._live._held) == KEPT * RATE
    mixer.say(torch.zeros(600 * RATE), RATE)
    with pytest.raises(InputError, match="10 minutes"):
        mixer.say(torch.zeros(1), RATE)
    for rate in (0, 7900, 22050, 48000.5, 400000):
        with pytest.raises(InputError, match="Hz"):
            Mixer(rate)
    for method in (mixer.say, mixer.mirror, mixer.hear):
        with pytest.raises(InputError, match="NaN"):
            method(torch.full((10,), float("nan")), RATE)
    assert not mixer.mirror(torch.zeros(0), RATE)
    assert not mixer.hear(torch.zeros(0), RATE)
