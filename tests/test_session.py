"""Live sessions: offline frames if the same is heard, audio in any pieces, silence, interruption, bounded memory."""

import math
from types import SimpleNamespace

import pytest
import torch
from meaning import follows, sentence, value
from tiny import tiny_generator, tiny_renderer

from imtalker import AudioFeatures, Control, InputError, Motion, Session, sampling
from imtalker.avatar.readback import correlation
from imtalker.media.audio import Audio
from imtalker.media.resampling import StreamResampler, resample
from imtalker.motion.inertia import FRAMES, fading

RATE = 16000
EXACT = 1e-5  # frames in 0..1, streamed against offline, float32


def speech(seconds: float, rate: int = RATE, seed: int = 1) -> torch.Tensor:
    """Noise in syllables with an offset, (1,samples)."""
    count = round(seconds * rate)
    noise = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    return (0.05 + 0.1 * noise * torch.sin(torch.arange(count) * (9 / rate)))[None]


def pieces(samples: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """The samples cut at random positions; some pieces are single samples, some are empty."""
    random = torch.Generator().manual_seed(seed)
    cuts = torch.randint(0, samples.shape[-1], (12,), generator=random)
    cuts = torch.cat([cuts, cuts[:2] + 1, cuts[2:4]]).sort().values
    return list(samples.tensor_split(cuts, dim=-1))


class Latents:
    """Replaces a renderer: a frame is its own latent, (n,size,1,1)."""

    def __init__(self, generation: str):
        self.generation = generation

    def stream(self, source, motion: Motion, batch_size: int | None = None):
        for rows in motion.latents.split(batch_size or 8):
            yield rows[:, :, None, None]


def near(waveform: torch.Tensor, sample_rate: int) -> AudioFeatures:
    """Replaces wav2vec2: it hears only 0.12 s, so a bounded look-ahead and history are enough."""
    frames = -(-waveform.shape[1] // 640)
    loudness = (
        torch.nn.functional.pad(waveform[0], (0, frames * 640 - waveform.shape[1])).unfold(0, 640, 640).std(dim=1)
    )
    around = torch.nn.functional.pad(loudness, (1, 1)).unfold(0, 3, 1)
    return AudioFeatures((100 * around @ torch.linspace(-1, 1, 3 * 16).reshape(3, 16)).sin())


@pytest.fixture(scope="module", params=["v1", "v2"])
def models(request):
    """Tiny renderer, generator, source."""
    renderer = tiny_renderer(request.param)
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    return renderer, tiny_generator(request.param), renderer.encode_source(image)


@pytest.fixture(scope="module")
def mute():
    """Like `models`, with latents for frames."""
    source = SimpleNamespace(motion=torch.randn(1, 8, generator=torch.Generator().manual_seed(4)), generation="v2")
    return Latents("v2"), tiny_generator("v2"), source


def run(session: Session, sound: list[torch.Tensor]) -> torch.Tensor:
    blocks = [block for samples in sound for block in session.feed(samples)]
    return torch.cat(blocks + list(session.finish()))


def latents(session: Session, sound: list[torch.Tensor]) -> torch.Tensor:
    return run(session, sound).flatten(1)


def offline(generator, source, sound: torch.Tensor, rate: int = RATE, **settings) -> torch.Tensor:
    return generator.sample(generator.encode_audio(sound, rate), source, nfe=3, **settings).latents


@pytest.mark.parametrize(("models", "rate", "chunk"), [("v1", 44100, 2), ("v2", 16000, 0.4)], indirect=["models"])
def test_frames_equal_the_whole_clips_if_all_is_heard_first(models, rate, chunk):
    """Rendered for half a second, as latents over three windows."""
    rendering, generator, source = models
    settings = {"sample_rate": rate, "chunk": chunk, "lookahead": math.inf, "nfe": 3, "seed": 5}
    # latents are larger than 1
    for renderer, seconds, count, rtol in ((rendering, 0.61, 16, 0), (Latents(source.generation), 4.21, 106, EXACT)):
        sound = speech(seconds, rate)
        wanted = generator.sample(generator.encode_audio(sound, rate), source, nfe=3, seed=5)
        assert len(wanted) == count
        frames = run(Session(renderer, generator, source, **settings), pieces(sound, 1))
        torch.testing.assert_close(frames, torch.cat(list(renderer.stream(source, wanted))), rtol=rtol, atol=EXACT)


@pytest.mark.parametrize("chunk", [0.2, 2])
def test_a_bounded_session_equals_the_whole_clip_for_a_short_sighted_encoder(chunk):
    # an encoder that hears three frames: a look-ahead over the window and a history of a frame cover all
    generator = tiny_generator("v1")
    generator.encode_audio = near
    source = SimpleNamespace(motion=torch.randn(1, 8), generation="v1")
    sound = speech(6.5)
    wanted = offline(generator, source, sound)
    settings = {"sample_rate": RATE, "nfe": 3, "chunk": chunk, "history": 0.04}
    session = Session(Latents("v1"), generator, source, lookahead=2.04 - chunk if chunk < 2 else 0.04, **settings)
    first = torch.cat(list(session.feed(sound))).flatten(1)
    assert len(first) > 80
    got = torch.cat([first, *(block.flatten(1) for block in session.finish())])
    torch.testing.assert_close(got, wanted, rtol=0, atol=EXACT)
    # and less history is too little
    settings["history"] = 0
    deaf = latents(Session(Latents("v1"), generator, source, lookahead=2, **settings), [sound])
    assert (deaf - wanted).abs().max() > 1e-3


def test_how_the_sound_is_cut_does_not_matter(mute):
    rate = 22050
    sound = speech(3.3, rate)
    settings = {"sample_rate": rate, "nfe": 3, "chunk": 0.28, "lookahead": 0.12, "history": 1}
    whole = latents(Session(*mute, **settings), [sound])
    assert len(whole) == 83
    for seed in range(3):
        assert torch.equal(latents(Session(*mute, **settings), pieces(sound, seed)), whole)
    few = sound[:, :9000]
    assert torch.equal(
        latents(Session(*mute, **settings), list(few[0].split(1))), latents(Session(*mute, **settings), [few])
    )


def test_each_frame_comes_within_the_latency(mute):
    rate = 48000
    session = Session(*mute, sample_rate=rate, nfe=2, chunk=0.28, lookahead=0.12, history=1)
    assert session.latency == pytest.approx(0.4 + 96 / 16000)
    assert Session(*mute, sample_rate=16000, chunk=0.2, lookahead=0.2).latency == pytest.approx(0.4)
    assert Session(*mute, sample_rate=16000, lookahead=math.inf).latency == math.inf
    ready, late = 0, []
    for number, samples in enumerate(speech(3, rate).split(480, dim=-1)):
        ready += sum(map(len, session.feed(samples)))
        late.append((number + 1) / 100 - ready / 25)  # what was fed, and the time of the first frame not there yet
    assert session.latency - 0.02 < max(late) < session.latency + 1e-9


def test_joins_move_no_more_than_the_window_itself(mute, monkeypatch):
    renderer, generator, source = mute
    sound = torch.cat([speech(1.2), 10 * speech(1.2, seed=3)], dim=1)
    kept, sampled = [], []
    integrate = sampling.integrate

    def record(*arguments):
        sampled.append(integrate(*arguments))
        return sampled[-1]

    monkeypatch.setattr(sampling, "integrate", record)
    session = Session(
        renderer, generator, source, sample_rate=RATE, nfe=4, chunk=0.2, lookahead=0, history=4, joins="published"
    )
    for samples in sound.split(3200, dim=1):
        kept += [block.flatten(1) for block in session.feed(samples)]
    kept = torch.cat(kept)
    for start in range(5, 50, 5):
        now, before = sampled[start // 5], kept[start - 1]
        moved = before - now[start - 1]
        assert moved.abs().max() > 1e-4  # what was heard since would have moved the frame before
        step, faded = kept[start] - before, 1 - fading(1, FRAMES, 1)
        torch.testing.assert_close(step, now[start] - now[start - 1] - faded * moved, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [0.2, 0.4])
def test_lips_follow_the_speech_with_little_look_ahead(avatar, chunk):
    sound = sentence()
    settings = {"sample_rate": sound.sample_rate, "cfg": 1.0, "chunk": chunk, "lookahead": 0.2}
    session = Session(Latents("v2"), avatar.generator, avatar.source, **settings)
    live, whole = latents(session, pieces(sound.waveform, 1)), avatar.say(sound)
    opened = value(live, "mouth_open")
    assert correlation(opened, value(whole, "mouth_open")) > 0.95
    with_own, lag = follows(opened, sound)
    assert with_own > 0.6
    assert abs(lag) <= 1
    assert opened[-15:].abs().max() < 0.1
    # and the head does not jump more than in the whole clip
    live, whole = (motion[:, :6].diff(dim=0).abs().max() for motion in (live, whole))
    assert live < 1.5 * whole


def test_after_an_interruption_the_mouth_closes_and_then_follows_the_new_speech(avatar):
    sound = sentence()
    session = Session(Latents("v2"), avatar.generator, avatar.source, sample_rate=RATE, cfg=1.0)
    said = torch.cat(list(session.feed(sound.waveform[:, : RATE * 3 // 2]))).flatten(1)
    assert value(said, "mouth_open").max() > 0.3
    session.interrupt()
    answer = torch.cat([torch.zeros(1, RATE), sound.waveform], dim=1)
    opened = value(latents(session, [answer]), "mouth_open")
    assert opened[12:25].abs().max() < 0.1
    with_own, lag = follows(opened[12:], Audio(answer[:, 12 * RATE // 25 :], RATE))
    assert with_own > 0.6
    assert abs(lag) <= 1


def test_silence(mute):
    settings = {"sample_rate": RATE, "nfe": 3}
    still = latents(Session(*mute, **settings), [torch.zeros(1, 3 * RATE)])
    assert still.isfinite().all()
    assert len(still) == 75
    pause = torch.cat([speech(1), torch.zeros(1, 4 * RATE), speech(1)], dim=1)
    assert latents(Session(*mute, **settings), [pause]).isfinite().all()
    # without audio there are no frames
    session = Session(*mute, **settings)
    assert not list(session.feed(torch.zeros(0)))
    assert not list(session.finish())


def test_interruption(mute):
    def session():
        return Session(*mute, sample_rate=RATE, nfe=3, chunk=0.4, lookahead=0.2, history=2, batch_size=4)

    one = session()
    frames = one.feed(speech(4))
    said = torch.cat([next(frames) for _ in range(4)]).flatten(1)  # 4 + 4 + 2 of a chunk, 4 of the next
    assert len(said) == 14
    one.interrupt()
    assert not list(frames)
    assert not list(one.feed(torch.zeros(0)))
    rest = latents(one, pieces(speech(2, seed=9), 3))
    assert len(rest) == 50
    # the next frames follow what is fed next
    other = session()
    frames = other.feed(speech(4))
    again = torch.cat([next(frames) for _ in range(4)]).flatten(1)
    assert torch.equal(again, said)
    other.interrupt()
    different = latents(other, [speech(2, seed=10)])
    assert (different - rest).abs().max() > 1e-3
    # and the motion continues: the step at the join is no larger than elsewhere
    steps = (rest[1:] - rest[:-1]).norm(dim=1)
    assert (rest[0] - said[-1]).norm() < steps.max()
    # after the end it only drops the rest
    last = session()
    list(last.feed(speech(1)))
    frames = last.finish()
    assert next(frames).shape[0] == 4
    last.interrupt()
    assert not list(frames)


def test_a_result_that_is_not_consumed_is_not_lost(mute):
    sound = speech(2)
    settings = {"sample_rate": RATE, "nfe": 3}
    session = Session(*mute, **settings)
    next(session.feed(sound[:, :20000]))
    session.feed(sound[:, 20000:])
    assert sum(map(len, session.finish())) == 50 - 8
    assert len(latents(Session(*mute, **settings), [sound])) == 50


@pytest.mark.parametrize("samples", [1, 639, 640, 641, 6400, 32001])
def test_the_last_frame_may_be_partial(mute, samples):
    for rate in (16000, 24000):
        session = Session(*mute, sample_rate=rate, nfe=2)
        assert len(run(session, [speech(3, rate)[:, :samples]])) == -(-samples * 25 // rate)


def test_memory_does_not_grow(mute):
    session = Session(*mute, sample_rate=24000, nfe=2, chunk=2, lookahead=0.2, history=1)

    def tensors(value) -> list[torch.Tensor]:
        """All tensors the session holds, except its models and source."""
        if isinstance(value, torch.Tensor):
            return [value]
        parts = value if isinstance(value, tuple | list) else []
        if type(value).__module__ in ("imtalker.motion_stream", "imtalker.sampling", "imtalker.media.resampling"):
            parts = vars(value).values()
        return [tensor for part in parts for tensor in tensors(part)]

    def kept() -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors(session._stream))

    sizes = []
    for _ in range(30):
        list(session.feed(torch.zeros(48000)))
        sizes.append(kept())
    assert 0 < max(sizes[5:]) <= max(sizes[:5])


def test_models_stay_as_they_are(models):
    renderer, generator, source = models
    before = [x.clone() for m in (renderer, generator) for x in m.state_dict().values()]
    list(Session(renderer, generator, source, sample_rate=RATE, nfe=2).feed(speech(1)))
    after = [x for m in (renderer, generator) for x in m.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert not torch.is_inference_mode_enabled()


def test_control_is_followed_by_frame(mute):
    _, generator, source = mute
    sound = speech(4.4)
    control = Control(pose=torch.randn(75, 3), gaze=torch.randn(60, 2), gaze_strength=0.5)
    wanted = offline(generator, source, sound, control=control)
    settings = {"sample_rate": RATE, "nfe": 3, "control": control}
    session = Session(*mute, lookahead=math.inf, **settings)
    torch.testing.assert_close(latents(session, [sound]), wanted, rtol=0, atol=EXACT)
    # frames keep counting after an interruption: frame 10 is steered by row 10
    late = Control(pose=torch.cat([control.pose[:60], -control.pose[60:]]))
    results = []
    for steering in (Control(pose=control.pose), late):
        session = Session(*mute, chunk=2, lookahead=0, **settings | {"control": steering})
        next(session.feed(sound))
        session.interrupt()
        results.append(latents(session, [sound]))
    difference = (results[0] - results[1]).abs().amax(dim=1)
    assert difference[:40].max() == 0  # 8 frames were said before: rows 8 to 47
    assert difference[52:].max() > 1e-3


def test_streamed_resampling():
    for rate, to in ((44100, 16000), (8000, 16000), (16000, 16000), (44099, 16000), (192000, 16000)):
        sound = speech(0.3, rate)[0]
        wanted = resample(sound, rate, to)
        stream = StreamResampler(rate, to)
        got = []
        for samples in pieces(sound, rate):
            stream.feed(samples)
            got.append(stream.take(stream.ready))
            waiting = (sum(map(len, got))) / to
            assert waiting > stream._fed / rate - stream.delay - 2 / to
        stream.finish()
        got.append(stream.take(stream.ready))
        torch.testing.assert_close(torch.cat(got), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chunk": 0}, "chunk must be from 0.04 to 2 seconds, not 0"),
        ({"chunk": 2.04}, "chunk"),
        ({"chunk": math.inf}, "chunk"),
        ({"lookahead": -0.2}, "lookahead must be at least 0 seconds"),
        ({"history": math.nan}, "history"),
        ({"sample_rate": 0}, "whole number of Hz"),
        ({"sample_rate": 44100.5}, "whole number of Hz"),
        ({"nfe": 1}, "2 points"),
        ({"cfg": math.nan}, "cfg"),
    ],
)
def test_unusable_settings(mute, settings, words):
    with pytest.raises(InputError, match=words):
        Session(*mute, **{"sample_rate": RATE} | settings)


def test_models_of_two_generations(mute):
    _, generator, source = mute
    other = SimpleNamespace(motion=source.motion, generation="v1")
    with pytest.raises(InputError, match="The renderer is v1 but the source is v2"):
        Session(Latents("v1"), generator, source, sample_rate=RATE)
    with pytest.raises(InputError, match="The generator is v2 but the source is v1"):
        Session(Latents("v1"), generator, other, sample_rate=RATE)


def test_unusable_sound_does_no_harm(mute):
    sound = speech(1)
    session = Session(*mute, sample_rate=RATE, nfe=2)
    for bad, words in ((torch.full((10,), math.nan), "NaN"), (torch.zeros(1, 1, 1, 5), "shape")):
        with pytest.raises(InputError, match=words):
            session.feed(bad)
    assert torch.equal(latents(session, [sound]), latents(Session(*mute, sample_rate=RATE, nfe=2), [sound]))
    with pytest.raises(InputError, match="finished"):
        session.feed(sound)
    assert not list(session.finish())
