"""Index-based eviction policies.

session = StreamSession(model, policy=SlidingWindow(anchor=1, recent=8))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamvggt.model.eviction import EvictionPolicy, PolicyContext


@dataclass(frozen=True)
class KeepAll(EvictionPolicy):
    """Keep every frame, as in the reference implementation. Memory and time per frame grow with every frame.

    Reference: StreamVGGT, arXiv 2507.11539.
    """


@dataclass(frozen=True)
class SlidingWindow(EvictionPolicy):
    """Keep the first and the latest frames.

    Optionally keep the special tokens of evicted frames, as LingBot-Map does: about five tokens per frame instead of a
    thousand. They preserve the camera path.

    Attributes:
        anchor: Number of first frames that are always kept. The first one defines the world.
        recent: Number of latest frames to keep. A frame attends to `anchor` + `recent` earlier frames and itself.
        retained: Maximum number of latest evicted frames whose special tokens are kept.

    Reference: attention sinks, arXiv 2309.17453; STream3R, arXiv 2508.10893.
    """

    anchor: int = 1
    recent: int = 8
    retained: int = 0

    def __post_init__(self):
        if min(self.anchor, self.recent, self.retained) < 0:
            raise ValueError(
                f"a window has no negative sizes: anchor={self.anchor}, recent={self.recent}, retained={self.retained}"
            )

    @property
    def capacity(self) -> int:
        return self.anchor + self.recent + 1

    def select(self, frames: Sequence[int], context: PolicyContext | None) -> Sequence[int]:
        next_frame = frames[-1] + 1
        return [frame for frame in frames if frame < self.anchor or frame >= next_frame - self.recent]
