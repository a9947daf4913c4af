"""Preparation can be stopped and repeated; samples and batches follow from seed and position alone."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from tiny import generator_config, renderer_config

from imtalker import InputError
from imtalker.train import data as training_data
from imtalker.train import prepare as preparing
from imtalker.train.data import FRAMES, TRACKS, FramePairs, MotionWindows, batches, face_mask, find_clips
from imtalker.train.prepare import Preparation, prepare


def whole(clip, name):
    return clip.rows(name, 0, len(clip))


def test_clips_hold_frames_motion_and_sound(data, preparation):
    one, two, ben = find_clips(data)
    assert [clip.folder.name for clip in (one, two, ben)] == ["anna__one.mp4", "anna__two.mp4", "ben.mp4"]
    assert [clip.person for clip in (one, two, ben)] == ["anna", "anna", "ben.mp4"]
    assert [len(clip) for clip in (one, two, ben)] == [75, 60, 20]
    assert whole(one, "audio").shape == (75, 16)
    assert "audio" not in ben.names
    frames = torch.cat([one.frame(number) for number in (0, 40)])
    motion = preparation.renderer.encode_motion(frames).latents
    error = (motion - whole(one, "motion")[[0, 40]]).norm(dim=1)
    assert error.max() < 0.2 * whole(one, "motion").std(dim=0).norm() + 0.02, "the same frames, apart from JPEG"


def test_a_second_run_does_what_is_missing(data, videos, preparation, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    (folder / "ben.mp4" / TRACKS).unlink()  # as if the first run had been killed
    (folder / "ben.mp4" / FRAMES / "000099.jpg").write_bytes(b"left over")
    outcomes = {}
    report = prepare(videos, folder, preparation, outcomes.__setitem__)
    assert (report.made, report.kept) == (["ben.mp4"], ["anna__one.mp4", "anna__two.mp4"])
    assert list(report.left_out) == ["anna__broken.mp4"]
    assert "left out" in outcomes["anna__broken.mp4"]
    assert len(list((folder / "ben.mp4" / FRAMES).iterdir())) == 20
    assert prepare(videos, folder, Preparation(crop="none")).kept == [], "other models, other data"
    with pytest.raises(InputError, match="no videos"):
        prepare(tmp_path / "data" / "ben.mp4", tmp_path / "other", preparation)
    with pytest.raises(InputError, match="no prepared clips"):
        find_clips(videos)


def test_eyes_and_mouth_are_marked_if_their_points_are_known(videos, tmp_path, monkeypatch):
    points = np.array([[160, 200], [352, 200], [256, 280], [190, 370], [322, 370]], dtype=np.float64)
    monkeypatch.setattr(preparing, "point_finder", lambda folders: lambda frame: points)
    only = tmp_path / "videos"
    only.mkdir()
    shutil.copy(videos / "ben.mp4", only)
    prepare(only, tmp_path / "data", Preparation(crop="none"))
    pairs = FramePairs(find_clips(tmp_path / "data"), renderer_config())
    mask = pairs.sample(0, torch.Generator())["mask"]
    assert pairs.with_masks
    assert mask.shape == (1, 64, 64)
    for x, y in (points[[0, 1]] / 8).round().astype(int):
        assert mask[0, y, x] == 1, "an eye"
    assert mask[0, 46, 32] == 1, "the mouth"
    assert not mask[0, 35, 32], "the nose"
    assert 0.05 < mask.mean() < 0.4


def test_without_points_there_is_no_mask():
    assert not face_mask(torch.zeros(0), 32).any()
    assert not face_mask(torch.full((5, 2), float("nan")), 32).any()


def test_pairs_are_of_one_clip_and_the_third_is_another_person(data):
    pairs = FramePairs(find_clips(data), renderer_config(), held_out=0.1)
    assert len(pairs) == 68 + 54 + 18
    assert pairs.several_people
    one, _, ben = pairs.clips
    for seed in range(3):
        sample = pairs.sample(10, torch.Generator().manual_seed(seed))
        assert torch.equal(sample["driving"], one.frame(10)[0].movedim(-1, 0))
        assert any(torch.equal(sample["source"], one.frame(n)[0].movedim(-1, 0)) for n in range(68))
        assert any(torch.equal(sample["other"], ben.frame(n)[0].movedim(-1, 0)) for n in range(20))
        assert torch.equal(sample["driving_motion"], whole(one, "motion")[10])
    unseen = pairs.unseen(4)
    assert len(unseen) == 4
    shown = [pairs.sample(index, torch.Generator())["driving"] for index in range(len(pairs))]
    assert not any(torch.equal(each["driving"], other) for each in unseen for other in shown)


def test_windows_are_pieces_of_motion_with_their_audio(data, monkeypatch):
    monkeypatch.setattr(training_data, "CONDITION_DROPOUT", 0.0)
    monkeypatch.setattr(training_data, "CONTEXT_DROPOUT", 0.0)
    windows = MotionWindows(find_clips(data), generator_config())
    clip = windows.clips[0]
    assert len(windows) == 2, "ben has no audio"
    contexts = set()
    for seed in range(30):
        sample = windows.sample(0, torch.Generator().manual_seed(seed))
        start = next(s for s in range(26) if torch.equal(whole(clip, "motion")[s : s + 50], sample["motion"][10:]))
        assert torch.equal(sample["audio"][10:], whole(clip, "audio")[start : start + 50])
        contexts.add(sample["context"].item())
        assert sample["context"].item() == (start >= 10), "without a context it is the clip's first window"
        assert start == 0 or start >= 10
        if start:
            assert torch.equal(sample["motion"][:10], whole(clip, "motion")[start - 10 : start])
        else:
            assert not sample["motion"][:10].any()
            assert not sample["keep"][:10].any()
        assert sample["keep"][10:].mean(dim=0).tolist() == [1, 0, 0, 0], "there are no poses in the data"
    assert contexts == {0.0, 1.0}


def test_dropout_has_its_rate_and_leaves_the_speech_before_the_window(data, monkeypatch):
    monkeypatch.setattr(training_data, "CONDITION_DROPOUT", 0.3)
    windows = MotionWindows(find_clips(data), generator_config())
    samples = [windows.sample(0, torch.Generator().manual_seed(seed)) for seed in range(300)]
    silent = [sample for sample in samples if not sample["keep"][10:, 0].any()]
    assert 0.2 < len(silent) / 300 < 0.4
    with_context = [sample for sample in samples if sample["context"]]
    assert 0.2 < len(with_context) / 300 < 0.45, "half of the 16 in 26 positions that have one"
    assert all(sample["keep"][:10, 0].all() for sample in silent if sample["context"])


class Numbers:
    def __len__(self):
        return 7

    def sample(self, index, random):
        return {"index": torch.tensor(index), "drawn": torch.rand((), generator=random)}


def first_batches(count, size, step=0, process=0, processes=1, **settings):
    return list(itertools.islice(batches(Numbers(), size, seed=3, **settings)(step, process, processes), count))


def test_every_epoch_shows_everything_once_in_another_order():
    shown = torch.cat([batch["index"] for batch in first_batches(7, 2)]).tolist()
    assert sorted(shown[:7]) == sorted(shown[7:]) == list(range(7))
    assert shown[:7] != shown[7:]


def test_batches_resume_at_any_step():
    whole, rest = first_batches(8, 3), first_batches(3, 3, step=5)
    for a, b in zip(whole[5:], rest):
        assert torch.equal(a["index"], b["index"])
        assert torch.equal(a["drawn"], b["drawn"])


def test_two_processes_share_what_one_would_see():
    whole = first_batches(4, 4)
    halves = [first_batches(4, 2, process=process, processes=2) for process in range(2)]
    for step, batch in enumerate(whole):
        for name, value in batch.items():
            assert torch.equal(value, torch.cat([half[step][name] for half in halves]))


def test_worker_processes_change_nothing():
    for a, b in zip(first_batches(4, 2), first_batches(4, 2, workers=2)):
        assert torch.equal(a["index"], b["index"])
        assert torch.equal(a["drawn"], b["drawn"])


def test_clips_of_different_models_are_not_mixed(data, videos, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(folder / "ben.mp4")
    only = tmp_path / "videos"
    only.mkdir()
    shutil.copy(videos / "ben.mp4", only)
    prepare(only, folder, Preparation(crop="none"))
    with pytest.raises(InputError, match="prepared differently"):
        find_clips(folder)
