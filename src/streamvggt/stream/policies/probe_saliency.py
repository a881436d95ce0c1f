"""Memory of the tokens that matter to what the frames' probes see.

session = StreamSession(model, policy=ProbeSaliency(budget_frames=5))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.memory import PolicyContext, PolicyState
from streamvggt.stream.policies.token_budget import TokenBudget, replace_layer, to_float32, with_first_frame


@dataclass(frozen=True)
class ProbeSaliency(TokenBudget):
    """In each layer and head, the tokens stay whose loss would change most what a frame's probes see (OBVGGT).

    Probes are a few of each frame's queries: those of its special tokens and of some patches. Only their attention is
    written out, so that the frame's own attention keeps its fast kernel. What a token's key and value mean to them adds
    up from frame to frame; recent tokens are not spared.

    num_patches: patches among the probes, spread over the image.

    Notes: "saliency": of each layer's tokens, in the order of its cache. (B, N, T)
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
    """Queries of a frame's special tokens and of patches spread over it evenly. (B, N, P, D) → (B, N, Q, D)"""
    special, patches = q[:, :, :num_special_tokens], q[:, :, num_special_tokens:]
    step = max(1, patches.shape[2] // max(1, num_patches))
    return torch.cat([special, patches[:, :, step // 2 :: step][:, :, :num_patches]], 2)


def saliency(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """How much each token's value and key mean to the answers of some queries.

    With logits l = q·k/√D, attention A = softmax(l) and a query's answer o = Σ A·v, a token's value means A·|v|₁ to it,
    and its key (A·l)²·|v - o|² + 2·A²·l·(|v|² - v·o).

    Args:
        q: (B, N, Q, D)
        k, v: (B, N, T, D)

    Returns:
        Sums over the queries, of keys and values together. (B, N, T)
    """
    exact = to_float32(q)
    logits = (q * q.shape[-1] ** -0.5 @ k.mT).to(exact)  # (B, N, Q, T)
    attention = torch.softmax(logits, -1)
    answers = attention.to(v.dtype) @ v  # (B, N, Q, D)
    along = (answers @ v.mT).to(exact)  # v·o (B, N, Q, T)
    # Norms are reductions: nothing of the size of the cache is written.
    absolute = torch.linalg.vector_norm(v, 1, dim=-1)[:, :, None].to(exact)  # (B, N, 1, T)
    square = torch.linalg.vector_norm(v, 2, dim=-1)[:, :, None].to(exact).square()
    distance = (square - 2 * along + answers.to(exact).square().sum(-1, keepdim=True)).clamp(min=0)  # |v - o|²
    of_values = attention * absolute
    of_keys = (attention * logits).square() * distance + 2 * attention.square() * logits * (square - along)
    return (of_values + of_keys).sum(2)
