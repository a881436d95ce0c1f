"""Queue of users. The first users share the model if they selected the same weights.

A running user occupies the model only while a frame is computed, so an idle camera does not block others.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile


class RunQueue:
    """Queue of running and waiting users.

    Args:
        max_size: Maximum number of waiting users.
        at_once: Maximum number of concurrent runs.
        per_visitor: Maximum number of places per user.
    """

    def __init__(self, max_size: int, at_once: int = 1, per_visitor: int = 2):
        self.max_size = max_size
        self.at_once = at_once
        self.per_visitor = per_visitor
        self._places: list[QueueTicket] = []
        self._moved = threading.Condition()

    @contextmanager
    def join(self, weights: str = "", visitor: str | None = None) -> Iterator["QueueTicket"]:
        """Take a place in the queue for the duration of the block.

        Args:
            weights: Selected weights. Only one model is in memory at a time.
            visitor: Session id.

        Raises:
            ValueError: If the queue is full, or the user has too many places.
        """
        place = QueueTicket(self, weights, visitor)
        with self._moved:
            if visitor is not None and sum(other.visitor == visitor for other in self._places) >= self.per_visitor:
                raise ValueError(f"You already have {self.per_visitor} runs. Stop one of them first.")
            if len(self._places) >= self.at_once + self.max_size:
                raise ValueError(
                    f"The queue is full: {len(self._places)} users run the model or wait. Try again in a few minutes."
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
        """Wait until a place is released, for at most `seconds`."""
        with self._moved:
            self._moved.wait(seconds)


class QueueTicket:
    """A place in the queue."""

    def __init__(self, line: RunQueue, weights: str, visitor: str | None):
        self.weights = weights
        self.visitor = visitor
        self._line = line

    @property
    def position(self) -> int:
        """Number of users in front. 0 if the run may start."""
        return self._line.position(self)

    def wait(self, seconds: float) -> None:
        """Wait until the queue changes, for at most `seconds`."""
        self._line.wait(seconds)
