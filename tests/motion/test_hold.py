"""Motion stands still where the driving clip does not show the face."""

import pytest
import torch

from imtalker import Motion
from imtalker.motion.hold import first_needed, hold

ROWS = torch.arange(20.0)[:, None].expand(-1, 3)
HIDDEN = (range(4), range(6, 13), range(18, 20))
# the last row shown before, at the start the first one after
HELD = [4, 4, 4, 4, 4, 5, *[5] * 7, 13, 14, 15, 16, 17, 17, 17]


@pytest.mark.parametrize("size", [1, 3, 5, 20])
def test_hidden_frames_repeat_the_last_shown_one_in_blocks_of_any_size(size, caplog):
    blocks = (Motion(rows, 30.0, "v1") for rows in ROWS.split(size))
    held = list(hold(blocks, HIDDEN))
    assert torch.cat([motion.latents for motion in held])[:, 0].tolist() == HELD
    assert {(motion.fps, motion.generation) for motion in held} == {(30.0, "v1")}
    assert [record.getMessage() for record in caplog.records] == [
        "No face was found in frames 1 to 4 (0.0 to 0.1 s), 7 to 13 (0.2 to 0.4 s), 19 to 20 (0.6 to 0.7 s): the "
        "motion stands still there."
    ]


def test_without_hidden_frames_nothing_changes(caplog):
    blocks = [Motion(rows) for rows in ROWS.split(6)]
    assert list(hold(blocks, ())) == blocks
    assert not caplog.records


@pytest.mark.parametrize("frame", range(20))
def test_a_motion_that_starts_later_is_held_the_same(frame):
    needed = first_needed(frame, HIDDEN)
    skipped = ROWS.clone()
    skipped[:needed] = 0
    (held,) = hold([Motion(skipped)], HIDDEN)
    assert held.latents[frame:, 0].tolist() == HELD[frame:]
