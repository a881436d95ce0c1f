"""Tracking while frames arrive one by one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from streamvggt.model.tracking.tracker import Tracker


@dataclass
class TrackMemory:
    """The query frame's feature map, a bounded window of later ones, and the queries.

    Each new frame is tracked from the query frame over the window to itself: the tracker's own procedure on the frames
    [query, last `window` frames], of which only the newest answer is new. While no frame has left the window this is
    exactly the tracker's answer for the last frame of the sequence so far. Later on it follows whatever can be found
    again from its looks in the query frame with the help of the last frames; a point that looks different by then, or
    has moved further than the coarsest correlation window in between, is lost. Earlier answers are never revised.

    queries: (x, y) in cells of the maps. (B, K, 2), or None: nothing is tracked
    maps: normalised feature maps, the query frame's first. (B, C, h, w) each
    """

    window: int = 8
    queries: Tensor | None = None
    maps: list[Tensor] = field(default_factory=list)

    def start(self, queries: Tensor) -> None:
        """Track these points of the next frame from now on, and no others."""
        self.queries, self.maps = queries, []

    def step(self, tracker: Tracker, new_map: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Track into the next frame.

        Args:
            new_map: (B, C, h, w)

        Returns:
            What the tracker answers, of the new frame alone.
        """
        assert self.queries is not None, "start tracking first"
        if len(self.maps) > self.window:  # the query frame and a full window: the oldest of the window goes
            del self.maps[1]
        self.maps.append(new_map)
        stages, visibility, confidence = tracker(torch.stack(self.maps, 1), self.queries)
        return [stage[:, -1:] for stage in stages], visibility[:, -1:], confidence[:, -1:]

    @property
    def num_bytes(self) -> int:
        return sum(maps.nbytes for maps in self.maps)

    def state_dict(self) -> dict[str, object]:
        return {"queries": self.queries, "maps": [maps.to("cpu", copy=True) for maps in self.maps]}

    def load_state_dict(self, state: dict[str, object], device: torch.device) -> None:
        self.queries = None if state["queries"] is None else state["queries"].to(device)
        self.maps = [maps.to(device) for maps in state["maps"]]
