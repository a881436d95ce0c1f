"""Visitors who want the one network stand in a line: one at a time has it, in the order in which they came."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Line:
    """
    Args:
        at_most: visitors that may wait.
    """

    def __init__(self, at_most: int):
        self.at_most = at_most
        self._places: list[Place] = []
        self._moved = threading.Condition()

    @contextmanager
    def join(self) -> Iterator["Place"]:
        """A place in the line, given up at the end of the block, however it ends.

        Raises:
            ValueError: the line is full.
        """
        place = Place(self)
        with self._moved:
            if len(self._places) > self.at_most:
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

    def num_before(self, place: "Place") -> int:
        return self._places.index(place)

    def wait(self, seconds: float) -> None:
        """Until somebody leaves, at most so long."""
        with self._moved:
            self._moved.wait(seconds)


class Place:
    """Of one visitor in a line."""

    def __init__(self, line: Line):
        self._line = line

    @property
    def num_before(self) -> int:
        """Visitors before this one; 0: it is this one's turn."""
        return self._line.num_before(self)

    def wait(self, seconds: float) -> None:
        """Until the line moves, at most so long."""
        self._line.wait(seconds)
