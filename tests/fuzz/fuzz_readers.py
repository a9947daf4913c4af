"""make fuzz: corrupts files for every reader with hypothesis. Not part of the suite, since it may take minutes."""

import contextlib
import faulthandler
import sys

import pytest
from clips import write_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import corrupt, good_files, random_pickle, read_speech, read_video, reads, write_zipped

NAMES = [
    *("control.safetensors", "motion.safetensors", "weights.safetensors", "weights.ckpt", "old.ckpt", "pose.pt"),
    *("gaze.npy", "keys.json", "jobs.csv", "speech.wav", "driving.mp4"),
    *(f"image.{suffix}" for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff")),
    *("wide.png", "ink.jpg", "float.tiff", "deep.png"),
]
# suffix, video codec, audio codec, options of the container
CLIPS = {
    "fragmented.mp4": ("libx264", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "film.mov": ("prores_ks", "pcm_s16le", {}),
    "clip.mkv": ("libx264", "flac", {}),
    "clip.webm": ("libvpx-vp9", "libopus", {}),
    "clip.ts": ("mpeg2video", "mp2", {}),
    "clip.flv": ("libx264", "libmp3lame", {}),
    "clip.avi": ("mjpeg", "pcm_s16le", {}),
    "clip.mpg": ("mpeg2video", "mp2", {}),
    "sound.ogg": (None, "libopus", {}),
    "sound.mp3": (None, "libmp3lame", {}),
    "sound.m4a": (None, "aac", {}),
    "picture.apng": ("apng", None, {}),
    "picture.gif": ("gif", None, {}),
}
CASES = 300  # per reader
SECONDS = 20  # limit for one case, generous for a busy machine
GIGABYTE = 1 << 20  # kilobytes, the unit of ru_maxrss


@pytest.fixture(scope="module")
def good(inputs, tmp_path_factory):
    return good_files(tmp_path_factory.mktemp("good"), inputs)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: write_clip(folder / name, video, audio, seconds=0.6, options=options)
        for name, (video, audio, options) in CLIPS.items()
    }


def peak():
    if sys.platform != "linux":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("name", NAMES)
def test_corrupted_files_are_read_or_refused(good, tmp_path, name):
    path, read = good[name]
    assert reads(read, path) or name == "jobs.csv", "the file is good before it is corrupted"
    fuzz(path, (read,), tmp_path)


@pytest.mark.parametrize("name", CLIPS)
def test_corrupted_clips_are_read_or_refused(clips, tmp_path, name):
    video, audio, _ = CLIPS[name]
    readers = [read for codec, read in ((video, read_video), (audio, read_speech)) if codec]
    assert all(reads(read, clips[name]) for read in readers), "the clip is good before it is corrupted"
    fuzz(clips[name], readers, tmp_path)


def fuzz(path, readers, folder):
    """Corrupts a file CASES times; each reader must read or refuse it in time and without much memory."""
    content = path.read_bytes()
    before, outcomes = peak(), []

    @settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def check(random):
        corrupted = folder / path.name
        corrupted.write_bytes(corrupt(content, random))
        for read in readers:
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            outcomes.append(reads(read, corrupted))
            faulthandler.cancel_dump_traceback_later()

    check()
    print(f"{path.name}: {len(outcomes)} cases, {outcomes.count(False)} refused")
    assert len(outcomes) >= CASES // 2
    assert peak() - before < GIGABYTE


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_random_pickles_are_read_or_refused(tmp_path_factory, random):
    from imtalker.motion.control import load_pose
    from imtalker.weights.checkpoints import inspect

    path = tmp_path_factory.getbasetemp() / "random.ckpt"
    write_zipped(path, random_pickle(random))
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    reads(inspect, path)
    reads(load_pose, path)
    faulthandler.cancel_dump_traceback_later()


@settings(max_examples=2000, deadline=None)
@given(st.text(alphabet='{}[]",:0123456789.eE+-NaInfityversochal \ufeff\ud800\n', max_size=80))
def test_any_text_is_read_as_keyframes_or_refused(text):
    from imtalker import InputError
    from imtalker.motion import keyframes

    for content in (text, f'{{"version": 1, "channels": {{"yaw": {text}}}}}'):
        with contextlib.suppress(InputError):
            keyframes.to_control(content)


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_any_json_is_read_as_keyframes_or_refused(document):
    from imtalker import InputError
    from imtalker.motion import keyframes

    for content in (document, {"version": 1, "channels": document}, {"version": 1, "channels": {"yaw": document}}):
        try:
            keyframes.to_control(content)
        except InputError:
            continue
