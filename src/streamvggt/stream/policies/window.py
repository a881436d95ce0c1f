"""Memories that go by the age of frames alone.

session = StreamSession(model, policy=Window(anchor=1, recent=8))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamvggt.model.memory import Evidence, Policy


@dataclass(frozen=True)
class KeepAll(Policy):
    """Every frame stays: the published behaviour. Memory and time per frame grow with every frame."""


@dataclass(frozen=True)
class Window(Policy):
    """The first frames and the latest ones stay (attention sinks, arXiv 2309.17453; STream3R, arXiv 2508.10893).

    Of older frames the special tokens may stay, as LingBot-Map does: five tokens for a frame instead of a thousand, and
    the path of the camera is remembered.

    anchor: first frames that stay for ever; the first one's camera is the world.
    recent: latest frames that stay, so that a frame sees `anchor` + `recent` earlier ones and itself.
    remnants: frames that have left the window, the latest so many, whose special tokens stay.
    """

    anchor: int = 1
    recent: int = 8
    remnants: int = 0

    def __post_init__(self):
        if min(self.anchor, self.recent, self.remnants) < 0:
            raise ValueError(
                f"a window has no negative sizes: anchor={self.anchor}, recent={self.recent}, remnants={self.remnants}"
            )

    @property
    def capacity(self) -> int:
        return self.anchor + self.recent + 1

    def keep(self, frames: Sequence[int], evidence: Evidence | None) -> Sequence[int]:
        next_frame = frames[-1] + 1
        return [frame for frame in frames if frame < self.anchor or frame >= next_frame - self.recent]
