"""Memory of the tokens whose keys are least like the others'.

session = StreamSession(model, policy=TokenDiversity(budget_frames=48))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.memory import PolicyContext
from streamvggt.stream.policies.token_budget import TokenBudget, with_first_frame


@dataclass(frozen=True)
class TokenDiversity(TokenBudget):
    """In each layer and head, the keys least like the mean of all stay (InfiniteVGGT, arXiv 2601.02281).

    Layers share what all of them together may hold: one whose keys are more diverse is given more. Departing from the
    paper, the shares are set once, when the memory has become full for the first time: shapes stay the same from then
    on, and the host reads the device once in a stream.

    budget_frames: of a layer, on average.
    temperature: of the softmax over layers; the higher, the more equal are their shares.

    Notes: "shares": tokens that each layer keeps.
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
        """How many tokens each layer keeps; together, the budget."""
        tokens_per_frame = layers[0].tokens_per_frame
        likeness = torch.stack([similarity_to_mean(cache).mean() for cache in layers])
        parts = torch.softmax((1 - likeness) / self.temperature, 0) * len(layers)
        return [tokens_per_frame + int(part * (self.budget_frames - 1) * tokens_per_frame) for part in parts.tolist()]


def similarity_to_mean(cache: KVCache) -> Tensor:
    """How much each key after the first frame's is like all of those: their mean's part along it. (B, N, T - P)"""
    keys = cache.keys_values()[0][:, :, cache.tokens_per_frame :]
    directions = F.normalize(keys.to(torch.promote_types(keys.dtype, torch.float32)), dim=-1)
    return (directions @ directions.mean(2)[..., None])[..., 0]
