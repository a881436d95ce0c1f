"""Memory of the tokens whose keys are least like the others'.

session = StreamSession(model, policy=KeyDiversity(budget=48))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.memory import Evidence
from streamvggt.stream.policies.token_budget import TokenBudget, first_frame_and


@dataclass(frozen=True)
class KeyDiversity(TokenBudget):
    """In each layer and head, the keys least like the mean of all stay (InfiniteVGGT, arXiv 2601.02281).

    Layers share what all of them together may hold: one whose keys are more diverse is given more. Departing from the
    paper, the shares are set once, when the memory has become full for the first time: shapes stay the same from then
    on, and the host reads the device once in a stream.

    budget: of a layer, on average.
    temperature: of the softmax over layers; the higher, the more equal are their shares.

    Notes: "shares": tokens that each layer keeps.
    """

    budget: int = 48
    temperature: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"the temperature of the layers' shares must be above 0, not {self.temperature}")

    def prune(self, evidence: Evidence) -> None:
        layers, notes = evidence.layers, evidence.notes
        frame_tokens = layers[0].frame_tokens
        if "shares" not in notes:
            if not self.is_full(layers[0], self.budget * frame_tokens):
                return
            notes["shares"] = self._shares(layers)
        for cache, share in zip(layers, notes["shares"], strict=True):
            if self.is_full(cache, share):
                likeness = likeness_to_mean(cache)
                best = likeness.topk(share - frame_tokens, dim=-1, largest=False).indices.sort(-1).values
                cache.keep_tokens(first_frame_and(best, frame_tokens))
            cache.make_room(share + self.slack * frame_tokens)

    def _shares(self, layers: list[KVCache]) -> list[int]:
        """How many tokens each layer keeps; together, the budget."""
        frame_tokens = layers[0].frame_tokens
        likeness = torch.stack([likeness_to_mean(cache).mean() for cache in layers])
        parts = torch.softmax((1 - likeness) / self.temperature, 0) * len(layers)
        return [frame_tokens + int(part * (self.budget - 1) * frame_tokens) for part in parts.tolist()]


def likeness_to_mean(cache: KVCache) -> Tensor:
    """How much each key after the first frame's is like all of those: their mean's part along it. (B, N, T - P)"""
    keys = cache.contents()[0][:, :, cache.frame_tokens :]
    directions = F.normalize(keys.to(torch.promote_types(keys.dtype, torch.float32)), dim=-1)
    return (directions @ directions.mean(2)[..., None])[..., 0]
