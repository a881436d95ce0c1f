"""Base class of the policies that keep the best tokens of each layer instead of whole frames.

Notation as in `streamvggt.layers.kv_cache`: B streams · N heads · T cached tokens · P tokens per frame · D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.eviction import EvictionPolicy, PolicyContext
from streamvggt.stream.policies.keyframes import first_and_recent


@dataclass(frozen=True)
class TokenBudget(EvictionPolicy):
    """Keep the first frame whole and the best tokens of all other frames. Subclasses define the ranking.

    Eviction moves tokens, so it runs once in `slack_frames` frames: a layer takes new frames until it has no space for
    another one, and is then reduced to the budget. The size of a layer is bounded by budget plus slack. The number of
    kept tokens is known on the host in advance, so no host-device synchronization is needed.

    The camera trunk has one token per frame. It keeps the first frame and the latest ones, as many as fit into a layer.

    Attributes:
        budget_frames: Kept tokens per layer in units of frames, including the first frame.
        slack_frames: Number of additional frames that a layer can take.
    """

    budget_frames: int = 8
    slack_frames: int = 4

    is_index_based = False
    is_token_level = True

    def __post_init__(self):
        if self.budget_frames < 2 or self.slack_frames < 1:
            raise ValueError(
                f"tokens of 2 frames or more are kept, and 1 or more frames taken in beyond that: "
                f"budget_frames={self.budget_frames}, slack_frames={self.slack_frames}"
            )

    @property
    def capacity(self) -> int:
        return self.budget_frames + self.slack_frames

    def select(self, frames: Sequence[int], context: PolicyContext) -> Sequence[int]:
        return first_and_recent(frames, self.capacity - 1)

    def is_over_budget(self, cache: KVCache, kept: int) -> bool:
        """Whether a layer that is reduced to `kept` tokens has no space for another frame."""
        return len(cache) + cache.tokens_per_frame > kept + self.slack_frames * cache.tokens_per_frame


def with_first_frame(best: Tensor, tokens_per_frame: int) -> Tensor:
    """Return the indices of the kept tokens: those of the first frame, then the best of the others.

    Args:
        best: Indices among the tokens after the first frame, ascending. (B, N, T_best)
        tokens_per_frame: P

    Returns:
        Indices among all cached tokens. (B, N, P + T_best)
    """
    first = torch.arange(tokens_per_frame, device=best.device).expand(*best.shape[:2], -1)
    return torch.cat([first, best + tokens_per_frame], -1)


def to_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def replace_layer(entries: list[Tensor], layer: int, entry: Tensor) -> list[Tensor]:
    """Return the entries of all layers with the entry of one layer replaced, or appended if it is the next layer."""
    return [*entries[:layer], entry, *entries[layer + 1 :]]
