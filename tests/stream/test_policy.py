"""Policies by hand, and their names on a command line."""

import pytest

from streamvggt import KeepAll, Window
from streamvggt.stream.policy import parse_policy


def test_windows_by_hand():
    assert KeepAll().visible(4) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert Window(1, 2).visible(6) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 2, 3, 4], [0, 3, 4, 5]]
    assert Window(0, 0).visible(3) == [[0], [1], [2]]
    assert Window(2, 0).visible(4) == [[0], [0, 1], [0, 1, 2], [0, 1, 3]]


@pytest.mark.parametrize("policy", [Window(1, 2), Window(0, 0), Window(3, 1)])
def test_the_capacity_is_what_is_needed_at_most(policy):
    assert max(map(len, policy.visible(20))) == policy.capacity


def test_names():
    assert parse_policy("all") == KeepAll()
    assert parse_policy("window") == Window(1, 8)
    assert parse_policy("window:2,5") == Window(2, 5)


@pytest.mark.parametrize(
    "text", ["", "none", "all:3", "window:", "window:3", "window:1,x", "window:1,2,3", "window:-1,2"]
)
def test_unknown_names_are_refused_with_the_known_ones(text):
    if text == "window:":
        assert parse_policy(text) == Window()
        return
    with pytest.raises(ValueError, match="choose 'all', 'window' or 'window:ANCHOR,RECENT'"):
        parse_policy(text)


def test_negative_sizes_are_refused():
    with pytest.raises(ValueError, match="recent=-1"):
        Window(1, -1)
