"""Memory of the tokens that matter to what the frames' probes see.

session = StreamSession(model, policy=ProbeSaliency(budget=5))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.memory import Evidence, Note
from streamvggt.stream.policies.token_budget import TokenBudget, at_least_float32, first_frame_and, replaced


@dataclass(frozen=True)
class ProbeSaliency(TokenBudget):
    """In each layer and head, the tokens stay whose loss would change most what a frame's probes see (OBVGGT).

    Probes are a few of each frame's queries: those of its special tokens and of some patches. Only their attention is
    written out, so that the frame's own attention keeps its fast kernel. What a token's key and value mean to them adds
    up from frame to frame; recent tokens are not spared.

    num_patches: patches among the probes, spread over the image.

    Notes: "saliency": of each layer's tokens, in the order of its cache. (B, N, T)
    """

    budget: int = 5
    num_patches: int = 8

    watches = ("queries",)

    def __post_init__(self):
        super().__post_init__()
        if self.num_patches < 0:
            raise ValueError(f"there cannot be num_patches={self.num_patches} patches among the probes")

    def watch_queries(self, layer: int, q: Tensor, cache: KVCache, notes: dict[str, Note]) -> None:
        new = saliency(probes(q, self.num_patches, cache.num_special), *cache.contents())
        known = notes.get("saliency", [])
        if layer < len(known):
            new = new + F.pad(known[layer], (0, new.shape[-1] - known[layer].shape[-1]))
        notes["saliency"] = replaced(known, layer, new)

    def prune(self, evidence: Evidence) -> None:
        notes = evidence.notes
        for layer, cache in enumerate(evidence.layers):
            tokens = cache.frame_tokens
            if self.is_full(cache, self.budget * tokens):
                score = notes["saliency"][layer]
                best = score[..., tokens:].topk((self.budget - 1) * tokens).indices.sort(-1).values
                kept = first_frame_and(best, tokens)
                cache.keep_tokens(kept)
                notes["saliency"] = replaced(notes["saliency"], layer, score.gather(-1, kept))


def probes(q: Tensor, num_patches: int, num_special: int = Aggregator.num_special) -> Tensor:
    """Queries of a frame's special tokens and of patches spread over it evenly. (B, N, P, D) → (B, N, Q, D)"""
    special, patches = q[:, :, :num_special], q[:, :, num_special:]
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
    exact = at_least_float32(q)
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
