"""LingBot-Map's memory by hand."""

import pytest

from streamvggt import Trajectory
from streamvggt.layers.attention import RetainedTokens


def test_by_hand():
    old = [RetainedTokens(frame, 5) for frame in range(6)]
    assert Trajectory(1, 2).attended_frames(6) == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [old[1], 0, 2, 3, 4],
        [old[1], old[2], 0, 3, 4, 5],
    ]


def test_frames_between_keyframes_leave_nothing():
    seen = Trajectory(1, 1, every=2).attended_frames(7)
    assert seen[:4] == [[0], [0, 1], [0, 1, 2], [0, 1, 3]]
    assert seen[6] == [RetainedTokens(1, 5), RetainedTokens(3, 5), 0, 5, 6]
    assert [frame for frame in range(7) if Trajectory(1, 1, every=2).stores(frame)] == [0, 1, 3, 5]


def test_wrong_numbers_are_rejected():
    with pytest.raises(
        ValueError, match="anchor, recent, every: expected 0 or more, 1 or more and 1 or more, got 8, 0"
    ):
        Trajectory(8, 0)
