"""What policies have in common that keep the best tokens of each layer, not whole frames.

Notation as in `streamvggt.layers.kv_cache`: B streams · N heads · T tokens held · P tokens of a frame · D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.memory import EvictionPolicy, PolicyContext
from streamvggt.stream.policies.keyframes import first_and_recent


@dataclass(frozen=True)
class TokenBudget(EvictionPolicy):
    """The first frame stays whole, and of all others the best tokens do. Subclasses say which those are.

    Tokens are moved when they are evicted, so that happens once in `slack_frames` frames: a layer takes new frames in
        until
    it has no room for another, and is then cut down to the budget. Room for budget and slack is all it ever takes. The
    host knows beforehand how many tokens stay, and never which: it does not wait for the device.

    The camera trunk has one token per frame: there the first frame and the latest ones stay, as many as a layer has
    room for.

    budget_frames: tokens that stay in a layer, in frames' worth, the first frame's among them.
    slack_frames: frames that a layer takes in beyond that.
    """

    budget_frames: int = 8
    slack_frames: int = 4

    is_index_based = False
    is_token_level = True

    def __post_init__(self):
        if self.budget_frames < 2 or self.slack_frames < 1:
            raise ValueError(
                f"tokens of 2 frames or more are kept, and 1 or more frames taken in beyond that: "
                f"budget={self.budget_frames}, slack={self.slack_frames}"
            )

    @property
    def capacity(self) -> int:
        return self.budget_frames + self.slack_frames

    def select(self, frames: Sequence[int], context: PolicyContext) -> Sequence[int]:
        return first_and_recent(frames, self.capacity - 1)

    def is_over_budget(self, cache: KVCache, kept: int) -> bool:
        """Whether a layer that is cut down to `kept` tokens has no room for another frame."""
        return len(cache) + cache.tokens_per_frame > kept + self.slack_frames * cache.tokens_per_frame


def with_first_frame(best: Tensor, tokens_per_frame: int) -> Tensor:
    """Where the tokens are that stay: the first frame's, then the best of the others.

    Args:
        best: among the tokens after the first frame's, in the order they have. (B, N, T_best)

    Returns:
        Among all tokens held. (B, N, P + T_best)
    """
    first = torch.arange(tokens_per_frame, device=best.device).expand(*best.shape[:2], -1)
    return torch.cat([first, best + tokens_per_frame], -1)


def to_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def replace_layer(entries: list[Tensor], layer: int, entry: Tensor) -> list[Tensor]:
    """The entries of all layers with another one of this layer; the next layer's may be added so."""
    return [*entries[:layer], entry, *entries[layer + 1 :]]
