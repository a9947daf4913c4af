"""make fuzz: renders killed, interrupted and asked to end at random moments, with and without --resume."""

import os
import random
import signal

import pytest
from test_faults import check_stopped_and_run_again

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
MOMENTS = [round(random.Random(4).uniform(0, 2), 2) for _ in range(10)]  # seconds after the first byte


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize("seconds", MOMENTS)
def test_kill_9(inputs, models, tmp_path, seconds, resume):
    check_stopped_and_run_again(inputs, models, tmp_path, seconds, signal.SIGKILL, *resume)


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", MOMENTS[:3])
def test_asked_to_end(inputs, models, tmp_path, seconds, how, resume):
    check_stopped_and_run_again(inputs, models, tmp_path, seconds, how, *resume)
