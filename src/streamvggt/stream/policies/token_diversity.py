"""Eviction policy that keeps the tokens with the most diverse keys.

session = StreamSession(model, policy=TokenDiversity(budget_frames=48))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.eviction import PolicyContext
from streamvggt.stream.policies.token_budget import TokenBudget, with_first_frame


@dataclass(frozen=True)
class TokenDiversity(TokenBudget):
    """Keep, per layer and head, the keys that are least similar to the mean key.

    The layers share one total budget. A layer with more diverse keys gets a larger share. Unlike the paper, the shares
    are computed once, when the memory is full for the first time. Shapes are constant afterwards, and each stream has
    only one host-device synchronization.

    Policy state: "shares", the number of tokens that each layer keeps.

    Attributes:
        budget_frames: Mean budget per layer in units of frames.
        temperature: Temperature of the softmax over layers. Larger values give more equal shares.

    Reference: InfiniteVGGT, arXiv 2601.02281.
    """

    budget_frames: int = 48
    temperature: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"the temperature of the layers' shares must be above 0, not {self.temperature}")

    def prune(self, context: PolicyContext) -> None:
        layers, policy_state = context.layers, context.policy_state
        tokens_per_frame = layers[0].tokens_per_frame
        if "shares" not in policy_state:
            if not self.is_over_budget(layers[0], self.budget_frames * tokens_per_frame):
                return
            policy_state["shares"] = self._layer_budgets(layers)
        for cache, share in zip(layers, policy_state["shares"], strict=True):
            if self.is_over_budget(cache, share):
                likeness = similarity_to_mean(cache)
                best = likeness.topk(share - tokens_per_frame, dim=-1, largest=False).indices.sort(-1).values
                cache.select_tokens(with_first_frame(best, tokens_per_frame))
            cache.reserve(share + self.slack_frames * tokens_per_frame)

    def _layer_budgets(self, layers: list[KVCache]) -> list[int]:
        """Return the number of tokens that each layer keeps. The sum is the total budget."""
        tokens_per_frame = layers[0].tokens_per_frame
        likeness = torch.stack([similarity_to_mean(cache).mean() for cache in layers])
        parts = torch.softmax((1 - likeness) / self.temperature, 0) * len(layers)
        return [tokens_per_frame + int(part * (self.budget_frames - 1) * tokens_per_frame) for part in parts.tolist()]


def similarity_to_mean(cache: KVCache) -> Tensor:
    """Return the component of each key after the first frame along the mean of those keys. (B, N, T - P)"""
    keys = cache.keys_values()[0][:, :, cache.tokens_per_frame :]
    directions = F.normalize(keys.to(torch.promote_types(keys.dtype, torch.float32)), dim=-1)
    return (directions @ directions.mean(2)[..., None])[..., 0]
