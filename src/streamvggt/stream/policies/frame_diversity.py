"""Memory of whole frames that complement each other.

session = StreamSession(model, policy=FrameDiversity(max_frames=8))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.model.memory import EvictionPolicy, PolicyContext


@dataclass(frozen=True)
class FrameDiversity(EvictionPolicy):
    """The frames that stay are those whose mean keys differ most (after FrameVGGT, which keeps or drops frames whole).

    When there are more than `max_frames`, one goes: that which another one, the first or a later one, stands for best.
        How
    well is the cosine of their mean keys, on average over layers, heads and the streams that advance together. Which
    frame a slot holds is known to the host, so it reads one number per frame as soon as the memory is full.

    max_frames: frames that stay at most, the first, whose camera is the world, always among them.
    recent: latest frames that stay in any case.

    Notes: "mean_keys": of each frame held, at unit length in each head. (frames, L·B·N·D)
    """

    max_frames: int = 8
    recent: int = 1

    is_index_based = False

    def __post_init__(self):
        if self.recent < 1 or self.max_frames < self.recent + 1:
            raise ValueError(
                f"the first frame and 1 or more recent ones must fit in: max_frames={self.max_frames}, "
                f"recent={self.recent}"
            )

    @property
    def capacity(self) -> int:
        return self.max_frames + 1

    def select(self, frames: Sequence[int], context: PolicyContext) -> Sequence[int]:
        policy_state = context.policy_state
        new = mean_keys(context, frames[-1])[None]
        policy_state["mean_keys"] = torch.cat([policy_state["mean_keys"], new]) if "mean_keys" in policy_state else new
        if len(frames) <= self.max_frames:
            return frames
        gone = most_redundant(policy_state["mean_keys"], self.recent)
        policy_state["mean_keys"] = torch.cat([policy_state["mean_keys"][:gone], policy_state["mean_keys"][gone + 1 :]])
        return [*frames[:gone], *frames[gone + 1 :]]


def mean_keys(context: PolicyContext, frame: int) -> Tensor:
    """A frame's mean key of every layer, stream and head, each at unit length. (L·B·N·D)"""
    means = torch.stack([cache.frame_keys(frame).mean(2) for cache in context.layers])  # (L, B, N, D)
    exact = torch.promote_types(means.dtype, torch.float32)
    return F.normalize(means.to(exact), dim=-1).flatten()


def most_redundant(directions: Tensor, recent: int) -> int:
    """Which frame is most like the first or a later one; neither the first nor one of the latest `recent`.

    Args:
        directions: of the frames in the order of time. (frames, channels)
    """
    likeness = directions @ directions.T
    later = torch.ones_like(likeness).triu(1)
    later[:, 0] = 1
    likeness = torch.where(later > 0, likeness, -torch.inf)
    return 1 + int(likeness[1 : len(likeness) - recent].amax(1).argmax())
