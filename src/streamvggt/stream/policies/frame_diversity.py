"""Eviction policy that keeps a diverse set of whole frames.

session = StreamSession(model, policy=FrameDiversity(max_frames=8))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.model.eviction import EvictionPolicy, PolicyContext


@dataclass(frozen=True)
class FrameDiversity(EvictionPolicy):
    """Keep the frames whose mean keys differ most. Frames are kept or evicted whole.

    If there are more than `max_frames` frames, the most redundant frame is evicted. Redundancy is the largest cosine
    similarity of its mean key to that of the first or a later frame, averaged over layers, heads and batched streams.
    The host needs the frame of each slot, so a full memory costs one host-device synchronization per frame.

    Policy state: "mean_keys", normalized per head, of each cached frame. (frames, L·B·N·D)

    Attributes:
        max_frames: Maximum number of kept frames, including the first frame, which defines the world.
        recent: Number of latest frames that are always kept.

    Reference: FrameVGGT (the decision per whole frame).
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
    """Return the mean key of a frame for each layer, stream and head, normalized to unit length. (L·B·N·D)"""
    means = torch.stack([cache.frame_keys(frame).mean(2) for cache in context.layers])  # (L, B, N, D)
    exact = torch.promote_types(means.dtype, torch.float32)
    return F.normalize(means.to(exact), dim=-1).flatten()


def most_redundant(directions: Tensor, recent: int) -> int:
    """Return the index of the frame most similar to the first or a later frame.

    The first frame and the latest `recent` frames are excluded.

    Args:
        directions: Mean keys of the frames in temporal order. (frames, channels)
        recent: Number of latest frames to exclude.
    """
    likeness = directions @ directions.T
    later = torch.ones_like(likeness).triu(1)
    later[:, 0] = 1
    likeness = torch.where(later > 0, likeness, -torch.inf)
    return 1 + int(likeness[1 : len(likeness) - recent].amax(1).argmax())
