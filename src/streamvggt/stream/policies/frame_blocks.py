"""Memory of whole frames that complement each other.

session = StreamSession(model, policy=FrameBlocks(held=8))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.model.memory import Evidence, Policy


@dataclass(frozen=True)
class FrameBlocks(Policy):
    """The frames that stay are those whose mean keys differ most (after FrameVGGT, which keeps or drops frames whole).

    When there are more than `held`, one goes: that which another one, the first or a later one, stands for best. How
    well is the cosine of their mean keys, on average over layers, heads and the streams that advance together. Which
    frame a slot holds is known to the host, so it reads one number per frame as soon as the memory is full.

    held: frames that stay at most, the first, whose camera is the world, always among them.
    recent: latest frames that stay in any case.

    Notes: "mean_keys": of each frame held, at unit length in each head. (frames, L·B·N·D)
    """

    held: int = 8
    recent: int = 1

    by_number = False

    def __post_init__(self):
        if self.recent < 1 or self.held < self.recent + 1:
            raise ValueError(
                f"the first frame and 1 or more recent ones must fit in: held={self.held}, recent={self.recent}"
            )

    @property
    def capacity(self) -> int:
        return self.held + 1

    def keep(self, frames: Sequence[int], evidence: Evidence) -> Sequence[int]:
        notes = evidence.notes
        new = mean_keys(evidence, frames[-1])[None]
        notes["mean_keys"] = torch.cat([notes["mean_keys"], new]) if "mean_keys" in notes else new
        if len(frames) <= self.held:
            return frames
        gone = most_dispensable(notes["mean_keys"], self.recent)
        notes["mean_keys"] = torch.cat([notes["mean_keys"][:gone], notes["mean_keys"][gone + 1 :]])
        return [*frames[:gone], *frames[gone + 1 :]]


def mean_keys(evidence: Evidence, frame: int) -> Tensor:
    """A frame's mean key of every layer, stream and head, each at unit length. (L·B·N·D)"""
    means = torch.stack([cache.keys_of(frame).mean(2) for cache in evidence.layers])  # (L, B, N, D)
    exact = torch.promote_types(means.dtype, torch.float32)
    return F.normalize(means.to(exact), dim=-1).flatten()


def most_dispensable(directions: Tensor, recent: int) -> int:
    """Which frame is most like the first or a later one; neither the first nor one of the latest `recent`.

    Args:
        directions: of the frames in the order of time. (frames, channels)
    """
    likeness = directions @ directions.T
    later = torch.ones_like(likeness).triu(1)
    later[:, 0] = 1
    likeness = torch.where(later > 0, likeness, -torch.inf)
    return 1 + int(likeness[1 : len(likeness) - recent].amax(1).argmax())
