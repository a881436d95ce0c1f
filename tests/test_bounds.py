"""Numbers of configurations are checked with their names."""

import re

import pytest

from streamvggt.bounds import check_frames


@pytest.mark.parametrize("wrong", ["abc", "ab", 3, None, [2], [2, 3, 4], [5, 2], [2, 9], [0, 2], [2.0, 3], ["2", "3"]])
def test_sequence_lengths_are_two_numbers_in_order(wrong):
    check_frames([2, 8], 8)
    check_frames((4, 4), 8)
    with pytest.raises(ValueError, match=re.escape("num_frames")):
        check_frames(wrong, 8)
