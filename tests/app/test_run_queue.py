"""One visitor at a time has the network, in the order in which they came, and not too many wait."""

import threading
from contextlib import ExitStack

import pytest

from streamvggt.app.run_queue import RunQueue


def test_users_run_in_the_order_of_arrival():
    line = RunQueue(max_size=2)
    with line.join() as first:
        with line.join() as second, line.join() as third:
            assert [place.position for place in (first, second, third)] == [0, 1, 2]
        with line.join() as fourth:
            assert fourth.position == 1
    with line.join() as fifth:
        assert fifth.position == 0


def test_a_full_queue_rejects_users_until_one_leaves():
    line = RunQueue(max_size=1)
    with line.join():
        with line.join(), pytest.raises(ValueError, match=r"full: 2 users .* Try again in a few minutes"), line.join():
            pass
        with line.join() as next:
            assert next.position == 1


def test_an_error_releases_the_place_in_the_queue():
    line = RunQueue(max_size=0)
    with pytest.raises(KeyError), line.join():
        raise KeyError
    with line.join() as next:
        assert next.position == 0


def test_a_waiting_user_is_woken_when_the_queue_changes():
    line = RunQueue(max_size=1)
    seen = []

    def wait():
        with line.join() as place:
            joined.set()
            while place.position:
                place.wait(60)
            seen.append(place.position)

    joined = threading.Event()
    waiting = threading.Thread(target=wait)
    with line.join():
        waiting.start()
        assert joined.wait(60)
    waiting.join(30)
    assert seen == [0]


def test_users_of_the_same_weights_run_at_once():
    line = RunQueue(max_size=4, at_once=2)
    wanted = ["a", "a", "b", "a"]
    with ExitStack() as stack:
        places = [stack.enter_context(line.join(weights)) for weights in wanted]
        assert [place.position for place in places] == [0, 0, 2, 3]
    with line.join("a", "me"), line.join("b", "you") as second, line.join("a", "they") as third:
        assert [second.position, third.position] == [1, 2]  # nobody overtakes


def test_places_per_user_are_limited():
    line = RunQueue(max_size=8, at_once=4, per_visitor=2)
    with ExitStack() as stack:
        for visitor in ("me", "me", "you"):
            stack.enter_context(line.join("a", visitor))
        with pytest.raises(ValueError, match="You already have 2 runs"):
            stack.enter_context(line.join("a", "me"))
