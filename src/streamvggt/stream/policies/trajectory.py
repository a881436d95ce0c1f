"""Eviction policy of LingBot-Map: anchors, a window of recent frames, and the special tokens of all other frames.

session = StreamSession(model, policy=Trajectory(anchor=8, recent=63))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamvggt.layers.kv_cache import UNBOUNDED
from streamvggt.model.eviction import EvictionPolicy, PolicyContext
from streamvggt.model.vggt import VGGT
from streamvggt.stream.policies.sliding_window import KeepAll


@dataclass(frozen=True)
class Trajectory(EvictionPolicy):
    """Keep the first frames, the latest frames, and the special tokens of all frames between them.

    Memory grows per frame by the special tokens (6 for LingBot-Map) and one token of the camera trunk. A frame between
    two keyframes attends to the memory and to itself, and is not cached.

    Args:
        anchor: Number of first frames that are never evicted: the number of scale frames of the model.
        recent: Number of latest cached frames that a frame attends to besides the anchors and itself.
        every: Number of frames from one keyframe to the next after the anchors. 1 caches every frame.

    Reference: LingBot-Map (github.com/Robbyant/lingbot-map), geometric context attention.
    """

    anchor: int = 8
    recent: int = 63
    every: int = 1

    retained = UNBOUNDED

    def __post_init__(self):
        if self.anchor < 0 or self.recent < 1 or self.every < 1:
            raise ValueError(
                f"anchor, recent, every: expected 0 or more, 1 or more and 1 or more, got {self.anchor}, {self.recent} "
                f"and {self.every}."
            )

    @property
    def capacity(self) -> int:
        return self.anchor + self.recent + 1

    def stores(self, frame: int) -> bool:
        return frame < self.anchor or (frame - self.anchor) % self.every == 0

    def select(self, frames: Sequence[int], context: PolicyContext | None) -> Sequence[int]:
        stored = [frame for frame in frames if self.stores(frame)]
        num_anchors = sum(frame < self.anchor for frame in stored)
        return [*stored[:num_anchors], *stored[num_anchors:][-self.recent :]]


def published_policy(model: VGGT) -> EvictionPolicy:
    """Return the policy of the reference implementation: `Trajectory` for models with scale frames, else all frames."""
    return Trajectory(anchor=num_joint(model)) if num_joint(model) else KeepAll()


def num_joint(model: VGGT) -> int:
    """Return the number of first frames that a model computes in one joint step. Simulated models have none."""
    return getattr(model, "scale_frames", 0)
