"""Point tracking in streams, one frame at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from streamvggt.model.tracking.tracker import Tracker


@dataclass
class TrackMemory:
    """Tracking memory: query points, the feature map of the query frame and a bounded window of later maps.

    Each step runs the tracker on the query frame and the last `window` frames, and returns the result for the newest
    frame. As long as no frame has left the window, the result equals the tracker's output on the full sequence. After
    that, points are lost if their appearance differs from the query frame, or if they move beyond the coarsest
    correlation window. Earlier results are not revised.

    Attributes:
        window: Maximum number of maps in addition to the query frame's.
        queries: Query points (x, y) in cells of the maps. None: no tracking. (B, K, 2)
        maps: Normalized feature maps, starting with the query frame's. (B, C, h, w) each
    """

    window: int = 8
    queries: Tensor | None = None
    maps: list[Tensor] = field(default_factory=list)

    def start(self, queries: Tensor) -> None:
        """Replace the query points. The next frame becomes the query frame.

        Args:
            queries: Query points (x, y) in cells. (B, K, 2)
        """
        self.queries, self.maps = queries, []

    def step(self, tracker: Tracker, new_map: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Track the points into the next frame.

        Args:
            tracker: The tracker.
            new_map: Normalized feature map of the next frame. (B, C, h, w)

        Returns:
            coords: Positions in cells after each iteration. (B, 1, K, 2) each
            visibility, confidence: In [0, 1]. (B, 1, K)
        """
        assert self.queries is not None, "start tracking first"
        if len(self.maps) > self.window:  # query frame and full window: evict the oldest frame of the window
            del self.maps[1]
        self.maps.append(new_map)
        stages, visibility, confidence = tracker(torch.stack(self.maps, 1), self.queries)
        return [stage[:, -1:] for stage in stages], visibility[:, -1:], confidence[:, -1:]

    @property
    def num_bytes(self) -> int:
        """Size of the feature maps in bytes."""
        return sum(maps.nbytes for maps in self.maps)

    def state_dict(self) -> dict[str, object]:
        """Return queries and maps. Maps are copied to the host."""
        return {"queries": self.queries, "maps": [maps.to("cpu", copy=True) for maps in self.maps]}

    def load_state_dict(self, state: dict[str, object], device: torch.device) -> None:
        """Restore the content of `state_dict()`."""
        self.queries = None if state["queries"] is None else state["queries"].to(device)
        self.maps = [maps.to(device) for maps in state["maps"]]
