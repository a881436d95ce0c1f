"""Memories that go by the age of frames alone.

session = StreamSession(model, policy=SlidingWindow(anchor=1, recent=8))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamvggt.model.memory import EvictionPolicy, PolicyContext


@dataclass(frozen=True)
class KeepAll(EvictionPolicy):
    """Every frame stays: the published behaviour. Memory and time per frame grow with every frame."""


@dataclass(frozen=True)
class SlidingWindow(EvictionPolicy):
    """The first frames and the latest ones stay (attention sinks, arXiv 2309.17453; STream3R, arXiv 2508.10893).

    Of older frames the special tokens may stay, as LingBot-Map does: five tokens for a frame instead of a thousand, and
    the path of the camera is remembered.

    anchor: first frames that stay for ever; the first one's camera is the world.
    recent: latest frames that stay, so that a frame sees `anchor` + `recent` earlier ones and itself.
    retained: frames that have left the window, the latest so many, whose special tokens stay.
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
