"""One or two frames at a time are replayed: the same frames, whatever happens to source, weights and memory."""

import copy

import pytest
import torch
from test_recording import Recorder, moved
from tiny import tiny_renderer

from imtalker import Motion
from imtalker.models import backend
from imtalker.models.folding import fold


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(backend, "recorder", recorder)
    # a CPU's own way looks at numbers, which no graph can
    monkeypatch.setattr(backend, "keeps_in_cache", lambda x: False)
    monkeypatch.setattr("imtalker.models.windows.keeps_in_cache", lambda x: False)
    return recorder


@pytest.fixture(scope="module")
def fresh():
    return tiny_renderer()


@pytest.fixture
def renderer(fresh):
    return copy.deepcopy(fresh)


def source(renderer, seed=0):
    return renderer.encode_source(torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(seed)))


def motion(renderer, frames=6):
    return Motion(torch.randn(frames, 8, generator=torch.Generator().manual_seed(1)), generation=renderer.generation)


def plain(renderer, *given, **settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "recorder", lambda device: None)
        return renderer.render(*given, **settings)


@pytest.mark.parametrize(
    ("batch", "frames", "recorded", "replayed"), [(1, 6, 1, 5), (2, 6, 1, 2), (2, 7, 1, 2), (3, 8, 0, 0)]
)
def test_replayed_frames_are_the_same(renderer, recorder, batch, frames, recorded, replayed):
    given = source(renderer), motion(renderer, frames)
    assert torch.equal(renderer.render(*given, batch_size=batch), plain(renderer, *given, batch_size=batch))
    assert (recorder.recorded, recorder.replayed) == (recorded, replayed)


def test_the_last_frames_of_a_longer_clip_are_not_recorded(renderer, recorder):
    given = source(renderer), motion(renderer, 5)
    for _ in range(3):
        renderer.render(*given, batch_size=3)
        renderer.render(*given)
    assert recorder.recorded == 0


def test_blocks_are_not_overwritten_by_later_ones(renderer, recorder):
    given = source(renderer), motion(renderer)
    blocks = list(renderer.stream(*given, 1))
    assert torch.equal(torch.cat(blocks), plain(renderer, *given, batch_size=1))


def test_another_source_is_not_replayed_as_the_last(renderer, recorder):
    first, second = source(renderer), source(renderer, seed=1)
    for given in (first, second, first):
        found = renderer.render(given, motion(renderer), batch_size=1)
        assert torch.equal(found, plain(renderer, given, motion(renderer), batch_size=1))
    assert recorder.recorded == 3


def other(renderer):
    for parameter in renderer.parameters():
        parameter.mul_(1.1)
    fold(renderer)


@pytest.mark.parametrize("change", [lambda renderer: moved_all(renderer), other])
def test_weights_that_changed_are_not_replayed(renderer, recorder, change):
    given = source(renderer), motion(renderer)
    before = renderer.render(*given, batch_size=1)
    with torch.no_grad():
        change(renderer)
    found = renderer.render(*given, batch_size=1)
    assert torch.equal(found, plain(renderer, *given, batch_size=1))
    assert recorder.recorded == 2
    assert torch.equal(found, before) == (change is not other)


def moved_all(renderer):
    class Holder:
        flow = renderer

    moved(Holder)


def test_memory_is_freed_when_the_model_leaves_or_memory_runs_out(renderer, recorder, monkeypatch):
    given = source(renderer), motion(renderer)
    renderer.render(*given, batch_size=1)
    assert renderer.recordings[1]._replay
    taken = []

    def full(*arguments):
        taken.append(renderer.recordings[1]._replay)
        if len(taken) == 1:
            raise MemoryError
        return type(renderer).forward(renderer, *arguments)

    monkeypatch.setattr(renderer, "replayed", full)
    renderer.render(*given, batch_size=2)
    assert [bool(replay) for replay in taken[:2]] == [True, False]
    monkeypatch.delattr(renderer, "replayed")
    renderer.render(*given, batch_size=1)
    assert renderer.recordings[1]._replay
    renderer.to("meta")
    assert renderer.recordings[1]._replay is None


def test_copies_record_for_themselves(renderer, recorder):
    given = source(renderer), motion(renderer)
    renderer.render(*given, batch_size=1)
    twin = copy.deepcopy(renderer)
    with torch.no_grad():
        for parameter in renderer.parameters():
            parameter.zero_()
        fold(renderer)
    assert torch.equal(twin.render(*given, batch_size=1), plain(twin, *given, batch_size=1))
    assert recorder.recorded == 2


def test_all_that_a_frame_reads_is_watched(renderer):
    watched = {id(tensor) for tensor in renderer.weights.tensors()}
    parts = renderer.adapter, renderer.motion_decoder, renderer.transfer, renderer.synthesis
    for part in parts:
        for tensor in (*part.parameters(), *part.buffers()):
            assert id(tensor) in watched
