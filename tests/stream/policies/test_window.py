"""Windows by hand."""

import pytest

from streamvggt import KeepAll, Window


def test_windows_by_hand():
    assert KeepAll().visible(4) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert Window(1, 2).visible(6) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 2, 3, 4], [0, 3, 4, 5]]
    assert Window(0, 0).visible(3) == [[0], [1], [2]]
    assert Window(2, 0).visible(4) == [[0], [0, 1], [0, 1, 2], [0, 1, 3]]


@pytest.mark.parametrize("policy", [Window(1, 2), Window(0, 0), Window(3, 1)])
def test_the_capacity_is_what_is_needed_at_most(policy):
    assert max(map(len, policy.visible(20))) == policy.capacity


def test_negative_sizes_are_refused():
    with pytest.raises(ValueError, match="recent=-1"):
        Window(1, -1)
