"""Windows by hand."""

import pytest

from streamvggt import KeepAll, Window
from streamvggt.layers.attention import Remnant


def test_windows_by_hand():
    assert KeepAll().visible(4) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert Window(1, 2).visible(6) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 2, 3, 4], [0, 3, 4, 5]]
    assert Window(0, 0).visible(3) == [[0], [1], [2]]
    assert Window(2, 0).visible(4) == [[0], [0, 1], [0, 1, 2], [0, 1, 3]]


def test_remnants_by_hand():
    special = [Remnant(frame, 5) for frame in range(4)]
    expected = [[0], [0, 1], [special[0], 1, 2], [special[0], special[1], 2, 3], [special[1], special[2], 3, 4]]
    assert Window(0, 1, 2).visible(5) == expected
    assert Window(0, 1, 10).visible(5)[4] == [*special[:3], 3, 4]


@pytest.mark.parametrize("policy", [Window(1, 2), Window(0, 0), Window(3, 1)])
def test_the_capacity_is_what_is_needed_at_most(policy):
    assert max(map(len, policy.visible(20))) == policy.capacity


def test_negative_sizes_are_refused():
    with pytest.raises(ValueError, match="recent=-1"):
        Window(1, -1)
