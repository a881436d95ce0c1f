"""The windows of a stream, the loops among them, and where that puts the frames that have been answered already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from streamvggt.geometry.similarity import Similarity
from streamvggt.prediction import Prediction, concatenate
from streamvggt.stream.windows.joint import Joint
from streamvggt.stream.windows.pose_graph import EXPECTED, Edge, close_loops, stretch

Link = TypeVar("Link", Edge, Joint)


@dataclass(frozen=True)
class Correction:
    """How frames that were answered before a loop was closed have to be moved.

    first_frame: it holds from this frame on, up to the next correction's.
    world: from the world in which they were answered to the corrected one.
    """

    first_frame: int
    world: Similarity


def corrected(prediction: Prediction, corrections: Sequence[Correction]) -> Prediction:
    """All frames of a stream, S of them from the first one on, where they belong now."""
    if not corrections:
        return prediction
    ends = [*(correction.first_frame for correction in corrections[1:]), prediction.num_frames]
    parts = [
        prediction.frames(slice(correction.first_frame, end)).moved(correction.world)
        for correction, end in zip(corrections, ends, strict=True)
    ]
    return concatenate(parts)


class WindowGraph:
    """Grows by one window at a time, each some similarities large.

    worlds: world_from_window of every window, as known by now.
    loops: those that are believed.
    """

    def __init__(self):
        self.worlds = [Similarity.identity()]
        self.loops: list[Edge] = []
        self._steps: list[Edge] = []
        self._answered: list[tuple[int, int, Similarity]] = []  # first frame, window, world in which it was answered

    def add(self, old_from_new: Similarity, size: float, weight: float) -> None:
        """A window after the last one."""
        number = len(self.worlds)
        self._steps.append(Edge(number - 1, number, old_from_new, size, weight))
        self.worlds.append(self.worlds[-1] @ old_from_new)

    def answer(self, frame: int, window: int) -> None:
        """Note that a frame is answered by a window, whose world is where it is now."""
        world = self.worlds[window]
        if not self._answered or self._answered[-1][1] != window or self._answered[-1][2] is not world:
            self._answered.append((frame, window, world))

    def close(self, loop: Edge) -> bool:
        """Bend all windows so that a loop closes; False if the other loops contradict it.

        One that is closed already, as on a third lap, is only noted: that costs nothing.
        """
        if self.loops and stretch(loop, self.worlds) < EXPECTED:
            self.loops.append(loop)
            return True
        self.worlds, self.loops = close_loops(self.worlds, self._steps, [*self.loops, loop])
        return any(believed is loop for believed in self.loops)

    def corrections(self) -> list[Correction]:
        """How to move the frames answered so far, in order; empty if none has to be."""
        moves = [
            Correction(frame, self.worlds[window] @ answered.inverse()) for frame, window, answered in self._answered
        ]
        unmoved = [self.worlds[window] is answered for _, window, answered in self._answered]
        return [] if all(unmoved) else moves

    def state(self) -> dict[str, Any]:
        """Worlds that are one object stay one: answers know by it that they were not moved."""
        distinct: list[Similarity] = []
        places: dict[int, int] = {}
        for world in [*self.worlds, *(answered for _, _, answered in self._answered)]:
            if id(world) not in places:
                places[id(world)] = len(distinct)
                distinct.append(world)
        return {
            "distinct": torch.stack([world.flat() for world in distinct]),
            "worlds": [places[id(world)] for world in self.worlds],
            "answered": [[frame, window, places[id(world)]] for frame, window, world in self._answered],
            "steps": [link_state(edge) for edge in self._steps],
            "loops": [link_state(edge) for edge in self.loops],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> WindowGraph:
        graph = cls()
        distinct = [Similarity.from_flat(numbers) for numbers in state["distinct"]]
        graph.worlds = [distinct[place] for place in state["worlds"]]
        graph._answered = [(frame, window, distinct[place]) for frame, window, place in state["answered"]]
        graph._steps = [link_from_state(Edge, edge) for edge in state["steps"]]
        graph.loops = [link_from_state(Edge, edge) for edge in state["loops"]]
        return graph


def link_state(link: Edge | Joint) -> dict[str, Any]:
    """What is known of two windows, to be saved."""
    return {**vars(link), "old_from_new": link.old_from_new.flat()}


def link_from_state(kind: type[Link], state: dict[str, Any]) -> Link:
    """What `link_state` was taken of."""
    return kind(**{**state, "old_from_new": Similarity.from_flat(state["old_from_new"])})
