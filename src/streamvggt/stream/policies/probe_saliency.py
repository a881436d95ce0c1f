"""Eviction policy that keeps the tokens with the largest effect on the attention of probe queries.

session = StreamSession(model, policy=ProbeSaliency(budget_frames=5))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.eviction import PolicyContext, PolicyState
from streamvggt.stream.policies.token_budget import TokenBudget, replace_layer, to_float32, with_first_frame


@dataclass(frozen=True)
class ProbeSaliency(TokenBudget):
    """Keep, per layer and head, the tokens whose removal changes the probe outputs most.

    Probes are a few queries of each frame: those of its special tokens and of some patches. Only the attention of the
    probes is materialized, so that the frame's attention uses the fast kernel. Saliency accumulates from frame to
    frame. Recent tokens are not exempt.

    Policy state: "saliency" of the tokens of each layer, in cache order. (B, N, T)

    Attributes:
        num_patches: Number of patches among the probes, spread evenly over the image.

    Reference: OBVGGT.
    """

    budget_frames: int = 5
    num_patches: int = 8

    hooks = ("queries",)

    def __post_init__(self):
        super().__post_init__()
        if self.num_patches < 0:
            raise ValueError(f"there cannot be num_patches={self.num_patches} patches among the probes")

    def on_queries(self, layer: int, q: Tensor, cache: KVCache, policy_state: dict[str, PolicyState]) -> None:
        new = saliency(probe_queries(q, self.num_patches, cache.num_special_tokens), *cache.keys_values())
        known = policy_state.get("saliency", [])
        if layer < len(known):
            new = new + F.pad(known[layer], (0, new.shape[-1] - known[layer].shape[-1]))
        policy_state["saliency"] = replace_layer(known, layer, new)

    def prune(self, context: PolicyContext) -> None:
        policy_state = context.policy_state
        for layer, cache in enumerate(context.layers):
            tokens = cache.tokens_per_frame
            if self.is_over_budget(cache, self.budget_frames * tokens):
                score = policy_state["saliency"][layer]
                best = score[..., tokens:].topk((self.budget_frames - 1) * tokens).indices.sort(-1).values
                kept = with_first_frame(best, tokens)
                cache.select_tokens(kept)
                policy_state["saliency"] = replace_layer(policy_state["saliency"], layer, score.gather(-1, kept))


def probe_queries(q: Tensor, num_patches: int, num_special_tokens: int = Aggregator.num_special_tokens) -> Tensor:
    """Select the queries of a frame's special tokens and of evenly spread patches. (B, N, P, D) → (B, N, Q, D)"""
    special, patches = q[:, :, :num_special_tokens], q[:, :, num_special_tokens:]
    step = max(1, patches.shape[2] // max(1, num_patches))
    return torch.cat([special, patches[:, :, step // 2 :: step][:, :, :num_patches]], 2)


def saliency(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute the saliency of each token's key and value for the outputs of some queries.

    With logits l = q·k/√D, attention A = softmax(l) and output o = Σ A·v, the saliency of a value is A·|v|₁, and that
    of a key is (A·l)²·|v - o|² + 2·A²·l·(|v|² - v·o).

    Args:
        q: Queries. (B, N, Q, D)
        k: Keys. (B, N, T, D)
        v: Values. (B, N, T, D)

    Returns:
        Sum over the queries, of keys and values together. (B, N, T)
    """
    exact = to_float32(q)
    logits = (q * q.shape[-1] ** -0.5 @ k.mT).to(exact)  # (B, N, Q, T)
    attention = torch.softmax(logits, -1)
    outputs = attention.to(v.dtype) @ v  # (B, N, Q, D)
    along = (outputs @ v.mT).to(exact)  # v·o (B, N, Q, T)
    # Norms are reductions without a temporary tensor of the cache size.
    absolute = torch.linalg.vector_norm(v, 1, dim=-1)[:, :, None].to(exact)  # (B, N, 1, T)
    square = torch.linalg.vector_norm(v, 2, dim=-1)[:, :, None].to(exact).square()
    distance = (square - 2 * along + outputs.to(exact).square().sum(-1, keepdim=True)).clamp(min=0)  # |v - o|²
    of_values = attention * absolute
    of_keys = (attention * logits).square() * distance + 2 * attention.square() * logits * (square - along)
    return (of_values + of_keys).sum(2)
