"""Visitors who want the network stand in a line; those in front share it, if they want the same weights.

A visitor in front has the network only while a frame is computed: a camera that sends none holds up nobody.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile


class RunQueue:
    """
    Args:
        max_size: visitors that may wait.
        at_once: visitors in front who share the network.
        per_visitor: places of one visitor.
    """

    def __init__(self, max_size: int, at_once: int = 1, per_visitor: int = 2):
        self.max_size = max_size
        self.at_once = at_once
        self.per_visitor = per_visitor
        self._places: list[QueueTicket] = []
        self._moved = threading.Condition()

    @contextmanager
    def join(self, weights: str = "", visitor: str | None = None) -> Iterator["QueueTicket"]:
        """A place in the line, given up at the end of the block, however it ends.

        Args:
            weights: which the visitor wants; one network is in memory at a time.

        Raises:
            ValueError: the line is full, or the visitor stands in it too often.
        """
        place = QueueTicket(self, weights, visitor)
        with self._moved:
            if visitor is not None and sum(other.visitor == visitor for other in self._places) >= self.per_visitor:
                raise ValueError(f"You have {self.per_visitor} runs going already: stop one of them first.")
            if len(self._places) >= self.at_once + self.max_size:
                raise ValueError(
                    f"The line is full: {len(self._places)} others run the network or wait for it. "
                    "Try again in some minutes."
                )
            self._places.append(place)
        try:
            yield place
        finally:
            with self._moved:
                self._places.remove(place)
                self._moved.notify_all()

    def position(self, place: "QueueTicket") -> int:
        with self._moved:
            first = self._places[0]
            in_front = list(takewhile(lambda other: other.weights == first.weights, self._places[: self.at_once]))
            return 0 if place in in_front else self._places.index(place)

    def wait(self, seconds: float) -> None:
        """Until somebody leaves, at most so long."""
        with self._moved:
            self._moved.wait(seconds)


class QueueTicket:
    """Of one visitor in a line."""

    def __init__(self, line: RunQueue, weights: str, visitor: str | None):
        self.weights = weights
        self.visitor = visitor
        self._line = line

    @property
    def position(self) -> int:
        """Visitors before this one; 0: it is this one's turn."""
        return self._line.position(self)

    def wait(self, seconds: float) -> None:
        """Until the line moves, at most so long."""
        self._line.wait(seconds)
