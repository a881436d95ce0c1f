"""Windows by hand."""

import pytest

from streamvggt import KeepAll, SlidingWindow
from streamvggt.layers.attention import RetainedTokens


def test_windows_by_hand():
    assert KeepAll().attended_frames(4) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert SlidingWindow(1, 2).attended_frames(6) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 2, 3, 4], [0, 3, 4, 5]]
    assert SlidingWindow(0, 0).attended_frames(3) == [[0], [1], [2]]
    assert SlidingWindow(2, 0).attended_frames(4) == [[0], [0, 1], [0, 1, 2], [0, 1, 3]]


def test_retained_tokens_by_hand():
    special = [RetainedTokens(frame, 5) for frame in range(4)]
    expected = [[0], [0, 1], [special[0], 1, 2], [special[0], special[1], 2, 3], [special[1], special[2], 3, 4]]
    assert SlidingWindow(0, 1, 2).attended_frames(5) == expected
    assert SlidingWindow(0, 1, 10).attended_frames(5)[4] == [*special[:3], 3, 4]


@pytest.mark.parametrize("policy", [SlidingWindow(1, 2), SlidingWindow(0, 0), SlidingWindow(3, 1)])
def test_the_capacity_is_what_is_needed_at_most(policy):
    assert max(map(len, policy.attended_frames(20))) == policy.capacity


def test_negative_sizes_are_rejected():
    with pytest.raises(ValueError, match="recent=-1"):
        SlidingWindow(1, -1)
