"""The submaps of a stream, the accepted loops, and the corrections that the loops imply for earlier frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from streamvggt.geometry.similarity import Sim3
from streamvggt.prediction import Prediction, cat
from streamvggt.stream.submaps.pose_graph import HUBER_DELTA, Edge, close_loops, edge_residual
from streamvggt.stream.submaps.submap_alignment import SubmapAlignment

EdgeLike = TypeVar("EdgeLike", Edge, SubmapAlignment)


@dataclass(frozen=True)
class Correction:
    """Motion of frames that were predicted before a loop was closed.

    Attributes:
        first_frame: First frame that the correction applies to. It ends at the next correction.
        world: Corrected world from the world of the prediction.
    """

    first_frame: int
    world: Sim3


def apply_corrections(prediction: Prediction, corrections: Sequence[Correction]) -> Prediction:
    """Transform the prediction of a whole stream, starting at its first frame, to the corrected world."""
    if not corrections:
        return prediction
    ends = [*(correction.first_frame for correction in corrections[1:]), prediction.num_frames]
    parts = [
        prediction.select_frames(slice(correction.first_frame, end)).transform(correction.world)
        for correction, end in zip(corrections, ends, strict=True)
    ]
    return cat(parts)


class SubmapGraph:
    """Pose graph of submaps. It grows by one similarity per submap.

    Attributes:
        worlds: Current world_from_submap of every submap.
        loops: Accepted loops.
    """

    def __init__(self):
        self.worlds = [Sim3.identity()]
        self.loops: list[Edge] = []
        self._odometry: list[Edge] = []
        # First frame, its submap, and the world of the submap when the frame was predicted.
        self._frame_submaps: list[tuple[int, int, Sim3]] = []

    def add_submap(self, old_from_new: Sim3, scene_scale: float, weight: float) -> None:
        """Append a submap that is aligned to the last one."""
        index = len(self.worlds)
        self._odometry.append(Edge(index - 1, index, old_from_new, scene_scale, weight))
        self.worlds.append(self.worlds[-1] @ old_from_new)

    def assign_frame(self, frame: int, submap: int) -> None:
        """Record that a submap predicted a frame in its current world."""
        world = self.worlds[submap]
        _, last_submap, last_world = self._frame_submaps[-1] if self._frame_submaps else (0, None, None)
        if last_submap != submap or last_world is not world:
            self._frame_submaps.append((frame, submap, world))

    def add_loop(self, loop: Edge) -> bool:
        """Optimize all submaps with one more loop.

        A loop that already holds, for example on a third lap, is only recorded.

        Returns:
            Whether the loop was accepted. It is rejected if it contradicts the other loops.
        """
        if self.loops and edge_residual(loop, self.worlds) < HUBER_DELTA:
            self.loops.append(loop)
            return True
        self.worlds, self.loops = close_loops(self.worlds, self._odometry, [*self.loops, loop])
        return any(accepted is loop for accepted in self.loops)

    def corrections(self) -> list[Correction]:
        """Return the corrections of all frames in temporal order, or an empty list if no frame moves."""
        if all(self.worlds[submap] is world for _, submap, world in self._frame_submaps):
            return []
        return [
            Correction(frame, self.worlds[submap] @ world.inverse()) for frame, submap, world in self._frame_submaps
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the state. Worlds that are one object stay one object, because identity marks unmoved frames."""
        unique: list[Sim3] = []
        indices: dict[int, int] = {}
        for world in [*self.worlds, *(world for _, _, world in self._frame_submaps)]:
            if id(world) not in indices:
                indices[id(world)] = len(unique)
                unique.append(world)
        return {
            "unique_worlds": torch.stack([world.to_vector() for world in unique]),
            "worlds": [indices[id(world)] for world in self.worlds],
            "frame_submaps": [[frame, submap, indices[id(world)]] for frame, submap, world in self._frame_submaps],
            "odometry": [edge_state_dict(edge) for edge in self._odometry],
            "loops": [edge_state_dict(edge) for edge in self.loops],
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> SubmapGraph:
        graph = cls()
        unique = [Sim3.from_vector(vector) for vector in state["unique_worlds"]]
        graph.worlds = [unique[index] for index in state["worlds"]]
        graph._frame_submaps = [(frame, submap, unique[index]) for frame, submap, index in state["frame_submaps"]]
        graph._odometry = [edge_from_state_dict(Edge, edge) for edge in state["odometry"]]
        graph.loops = [edge_from_state_dict(Edge, edge) for edge in state["loops"]]
        return graph


def edge_state_dict(edge: Edge | SubmapAlignment) -> dict[str, Any]:
    """Return the fields of an edge or alignment, with the similarity as a vector."""
    return {**vars(edge), "old_from_new": edge.old_from_new.to_vector()}


def edge_from_state_dict(kind: type[EdgeLike], state: dict[str, Any]) -> EdgeLike:
    """Rebuild an edge or alignment from `edge_state_dict`."""
    return kind(**{**state, "old_from_new": Sim3.from_vector(state["old_from_new"])})
