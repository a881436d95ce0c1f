"""Eviction policy that keeps tokens with high importance in the network, with anchor frames along the trajectory.

session = StreamSession(model, policy=SelfSelective(budget_frames=8))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.layers.kv_cache import KVCache
from streamvggt.layers.tables import cached_table
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.eviction import PolicyContext, PolicyState
from streamvggt.stream.policies.overlap import coverage, subsampled_points
from streamvggt.stream.policies.token_budget import TokenBudget, replace_layer, to_float32, with_first_frame


@dataclass(frozen=True)
class SelfSelective(TokenBudget):
    """Keep new tokens with large residuals and old tokens with unusual keys.

    A token is new until the next eviction in its layer. The score of a new token is the norm of the MLP residual of the
    frame block before the global layer, smoothed over the image. The score of an old token is one minus the cosine
    similarity between its key and the mean key of its head, averaged over heads. Both scores are normalized to [0, 1]
    and weighted. All heads of a layer share one ranking.

    If the points of the last anchor cover little of a frame, the frame becomes an anchor. The best tokens of an anchor
    are protected until `anchors` newer frames have become anchors. The decision is made on the device for each stream.

    Policy state, as lists with one entry per layer:
        "new": Scores of the tokens since the last eviction. (B, T_new)
        "anchor": Number of the anchor that protects each token after the first frame, or 0. (B, T - P)
    and "num_anchors", the number of anchors so far (B), and "anchor_points", the points of the last anchor
    (B, h, w, 3). During a step, "arriving" has the scores of the frame's tokens in the layers so far. (B, P)

    Attributes:
        importance_weight: Weight of the scores of new tokens. The weight of old tokens is 1 - `importance_weight`.
        anchors: Number of simultaneous anchors besides the first frame, which is kept whole.
        anchor_max_coverage: Maximum ratio of the image covered by the last anchor's points for a new anchor.
        anchor_token_ratio: Ratio of an anchor's tokens that are protected.

    Reference: OVGGT, arXiv 2603.05959.
    """

    importance_weight: float = 0.5
    anchors: int = 3
    anchor_max_coverage: float = 0.2
    anchor_token_ratio: float = 0.05

    required_heads = ("camera", "depth")
    hooks = ("mlp_output",)

    def __post_init__(self):
        super().__post_init__()
        for name in ("importance_weight", "anchor_max_coverage", "anchor_token_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if self.anchors < 0 or self.anchors * self.anchor_token_ratio > self.budget_frames - 1:
            raise ValueError(
                f"anchors={self.anchors} with anchor_token_ratio={self.anchor_token_ratio} of a frame each do not fit "
                f"into budget_frames={self.budget_frames} besides the first frame"
            )

    def on_mlp_output(self, layer: int, residual: Tensor, policy_state: dict[str, PolicyState]) -> None:
        arriving = policy_state.get("arriving", [])
        length = torch.linalg.vector_norm(residual, dim=-1, dtype=to_float32(residual))
        policy_state["arriving"] = [*arriving, length]

    def prune(self, context: PolicyContext) -> None:
        policy_state, layers = context.policy_state, context.layers
        scores = [
            smooth_scores(length, context.result.image_size, layers[0].num_special_tokens)
            for length in policy_state.pop("arriving")
        ]
        if "new" not in policy_state:
            self._begin(context, scores)
            return
        number = self._anchor_index(context)
        anchor = [self._protect_tokens(score, number) for score in scores]
        policy_state["new"] = [torch.cat(pair, 1) for pair in zip(policy_state["new"], scores, strict=True)]
        policy_state["anchor"] = [torch.cat(pair, 1) for pair in zip(policy_state["anchor"], anchor, strict=True)]
        for layer, cache in enumerate(layers):
            if self.is_over_budget(cache, self.budget_frames * cache.tokens_per_frame):
                self._evict_tokens(layer, cache, policy_state)

    def _begin(self, context: PolicyContext, scores: list[Tensor]) -> None:
        """Keep the first frame whole as the first anchor. It needs no scores."""
        policy_state = context.policy_state
        policy_state["new"] = [score[:, :0] for score in scores]
        policy_state["anchor"] = [score[:, :0].long() for score in scores]
        policy_state["num_anchors"] = scores[0].new_zeros(len(scores[0]), dtype=torch.long)
        policy_state["anchor_points"] = subsampled_points(context.result)

    def _anchor_index(self, context: PolicyContext) -> Tensor:
        """Return the anchor number of the newest frame, 0 if it is not an anchor. (B)"""
        policy_state, result = context.policy_state, context.result
        is_anchor = (
            coverage(policy_state["anchor_points"], result.cam_from_world_enc[:, 0], result.image_size)
            < self.anchor_max_coverage
        )
        policy_state["num_anchors"] = policy_state["num_anchors"] + is_anchor
        policy_state["anchor_points"] = torch.where(
            is_anchor[:, None, None, None], subsampled_points(result), policy_state["anchor_points"]
        )
        return torch.where(is_anchor, policy_state["num_anchors"], 0)

    def _protect_tokens(self, score: Tensor, number: Tensor) -> Tensor:
        """Set the anchor number at the best tokens of a frame, 0 at the others. (B, P), (B) → (B, P)"""
        best = score.topk(math.ceil(self.anchor_token_ratio * score.shape[1]), 1).indices
        return torch.zeros_like(score, dtype=torch.long).scatter(1, best, number[:, None].expand_as(best))

    def _evict_tokens(self, layer: int, cache: KVCache, policy_state: dict[str, PolicyState]) -> None:
        tokens, new, anchor = cache.tokens_per_frame, policy_state["new"][layer], policy_state["anchor"][layer]
        old = dissimilarity_to_mean(cache)[:, tokens : len(cache) - new.shape[1]]
        score = torch.cat(
            [(1 - self.importance_weight) * min_max_normalize(old), self.importance_weight * min_max_normalize(new)], 1
        )
        is_protected = (anchor > 0) & (anchor > policy_state["num_anchors"][:, None] - self.anchors)
        score = torch.where(is_protected, 2, score)  # larger than all other scores
        best = score.topk((self.budget_frames - 1) * tokens, 1).indices.sort(1).values  # (B, T_best)
        num_heads = cache.keys_values()[0].shape[1]
        cache.select_tokens(with_first_frame(best[:, None].expand(-1, num_heads, -1), tokens))
        policy_state["new"] = replace_layer(policy_state["new"], layer, new[:, :0])
        policy_state["anchor"] = replace_layer(policy_state["anchor"], layer, anchor.gather(1, best))


def smooth_scores(
    score: Tensor, image_size: tuple[int, int], num_special_tokens: int = Aggregator.num_special_tokens
) -> Tensor:
    """Average each patch's score with its neighborhood. Scores of special tokens are unchanged. (B, P) → (B, P)"""
    special, patches = score[:, :num_special_tokens], score[:, num_special_tokens:]
    height, width = image_size
    patch_size = math.isqrt(height * width // patches.shape[1])
    grid = patches.unflatten(1, (1, height // patch_size, width // patch_size))  # (B, 1, h, w)
    around = F.pad(grid, (1, 1, 1, 1), mode="replicate")
    around = F.conv2d(around, binomial(grid.device, grid.dtype))
    return torch.cat([special, ((grid + around) / 2).flatten(1)], 1)


@cached_table(8)
def binomial(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Create the weights of a 3×3 neighborhood. (1, 1, 3, 3)"""
    weights = torch.tensor([1, 2, 1], device=device, dtype=dtype) / 4
    return (weights[:, None] * weights)[None, None]


def dissimilarity_to_mean(cache: KVCache) -> Tensor:
    """Return 1 - cosine similarity of each key and the mean key of its head, averaged over heads. (B, T)"""
    keys = cache.keys_values()[0]
    keys = keys.to(to_float32(keys))
    return 1 - F.cosine_similarity(keys, keys.mean(2, keepdim=True), dim=-1).mean(1)


def min_max_normalize(score: Tensor) -> Tensor:
    """Scale the scores of each stream to [0, 1]. (B, T)"""
    if not score.shape[1]:
        return score
    lowest, highest = score.aminmax(dim=1, keepdim=True)
    return (score - lowest) / (highest - lowest).clamp(min=torch.finfo(score.dtype).tiny)
