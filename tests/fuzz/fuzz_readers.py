"""make fuzz: spoiled files for every reader, made by hypothesis. Not part of the suite: it may take minutes."""

import faulthandler
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import answers, good_files, spoil

NAMES = [
    *("control.safetensors", "motion.safetensors", "weights.safetensors", "weights.ckpt", "old.ckpt", "pose.pt"),
    *("gaze.npy", "keys.json", "jobs.csv", "speech.wav", "driving.mp4"),
    *(f"picture.{suffix}" for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff")),
]
CASES = 300  # of each reader
SECONDS = 20  # that one case may take, generously for a busy machine
GIGABYTE = 1 << 20  # in the kilobytes of ru_maxrss


@pytest.fixture(scope="module")
def good(inputs, tmp_path_factory):
    return good_files(tmp_path_factory.mktemp("good"), inputs)


def peak():
    if sys.platform != "linux":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("name", NAMES)
def test_spoiled_files(good, tmp_path, name):
    path, read = good[name]
    assert answers(read, path) or name == "jobs.csv", "the file is good until it is spoiled"
    content = path.read_bytes()
    before, outcomes = peak(), []

    @settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def check(random):
        spoiled = tmp_path / name
        spoiled.write_bytes(spoil(content, random))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        outcomes.append(answers(read, spoiled))
        faulthandler.cancel_dump_traceback_later()

    check()
    print(f"{name}: {len(outcomes)} cases, {outcomes.count(False)} refused")
    assert len(outcomes) >= CASES // 2
    assert peak() - before < GIGABYTE


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_any_json_is_keyframes_or_refused(document):
    from imtalker import InputError
    from imtalker.motion import keyframes

    for content in (document, {"version": 1, "channels": document}, {"version": 1, "channels": {"yaw": document}}):
        try:
            keyframes.to_control(content)
        except InputError:
            continue
