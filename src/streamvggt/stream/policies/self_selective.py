"""Memory of the tokens that a network itself finds important, with anchors along the way.

session = StreamSession(model, policy=SelfSelective(budget=8))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.layers.kv_cache import KVCache
from streamvggt.layers.tables import table
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.memory import Evidence, Note
from streamvggt.stream.policies.overlap import coverage, thinned_points
from streamvggt.stream.policies.token_budget import TokenBudget, at_least_float32, first_frame_and, replaced


@dataclass(frozen=True)
class SelfSelective(TokenBudget):
    """New tokens stay that the network works on, and old ones that are unusual (OVGGT, arXiv 2603.05959).

    A token is new until its layer is cut down for the next time. Its score is the length of what the MLP of the frame
    block before the global layer adds to it, smoothed over the image. An old token's score is how unlike the mean key
    its key is, on average over heads. Both are brought to [0, 1], weighted, and make one ranking for all heads.

    A frame of which the last anchor's points cover little becomes an anchor itself: its best tokens are protected until
    so many others have become anchors. That is decided on the device, for each stream of a batch on its own.

    new_weight: of new tokens' scores; the old ones' is 1 - `new_weight`.
    anchors: frames that protect their best tokens at the same time, besides the first, which stays whole.
    anchor_below: part of the image that the last anchor's points cover, below which a frame becomes an anchor.
    anchor_share: part of an anchor's tokens that it protects.

    Notes, lists with one entry per layer:
        "new": scores of the tokens that came since the layer was cut down. (B, T_new)
        "anchor": of the tokens after the first frame's, the number of the anchor that protects it, 0: none. (B, T - P)
    and "num_anchors": how many there have been, (B); "anchor_points": the last one's points, (B, h, w, 3).
    During a step, "arriving": scores of the frame's tokens in the layers so far. (B, P)
    """

    new_weight: float = 0.5
    anchors: int = 3
    anchor_below: float = 0.2
    anchor_share: float = 0.05

    looks_at = ("camera", "depth")
    watches = ("residuals",)

    def __post_init__(self):
        super().__post_init__()
        for name in ("new_weight", "anchor_below", "anchor_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a part of 1, not {getattr(self, name)}")
        if self.anchors < 0 or self.anchors * self.anchor_share > self.budget - 1:
            raise ValueError(
                f"anchors={self.anchors} with anchor_share={self.anchor_share} of a frame each do not fit into "
                f"budget={self.budget} besides the first frame"
            )

    def watch_residual(self, layer: int, residual: Tensor, notes: dict[str, Note]) -> None:
        arriving = notes.get("arriving", [])
        length = torch.linalg.vector_norm(residual, dim=-1, dtype=at_least_float32(residual))
        notes["arriving"] = [*arriving, length]

    def prune(self, evidence: Evidence) -> None:
        notes, layers = evidence.notes, evidence.layers
        scores = [
            smoothed(length, evidence.result.image_size, layers[0].num_special) for length in notes.pop("arriving")
        ]
        if "new" not in notes:
            self._begin(evidence, scores)
            return
        number = self._number_as_anchor(evidence)
        anchor = [self._protected(score, number) for score in scores]
        notes["new"] = [torch.cat(pair, 1) for pair in zip(notes["new"], scores, strict=True)]
        notes["anchor"] = [torch.cat(pair, 1) for pair in zip(notes["anchor"], anchor, strict=True)]
        for layer, cache in enumerate(layers):
            if self.is_full(cache, self.budget * cache.frame_tokens):
                self._cut_down(layer, cache, notes)

    def _begin(self, evidence: Evidence, scores: list[Tensor]) -> None:
        """The first frame stays whole and is the first anchor; it needs no scores."""
        notes = evidence.notes
        notes["new"] = [score[:, :0] for score in scores]
        notes["anchor"] = [score[:, :0].long() for score in scores]
        notes["num_anchors"] = scores[0].new_zeros(len(scores[0]), dtype=torch.long)
        notes["anchor_points"] = thinned_points(evidence.result)

    def _number_as_anchor(self, evidence: Evidence) -> Tensor:
        """The newest frame's number among the anchors, 0 where it is none. (B)"""
        notes, result = evidence.notes, evidence.result
        is_anchor = (
            coverage(notes["anchor_points"], result.cam_from_world_enc[:, 0], result.image_size) < self.anchor_below
        )
        notes["num_anchors"] = notes["num_anchors"] + is_anchor
        notes["anchor_points"] = torch.where(
            is_anchor[:, None, None, None], thinned_points(result), notes["anchor_points"]
        )
        return torch.where(is_anchor, notes["num_anchors"], 0)

    def _protected(self, score: Tensor, number: Tensor) -> Tensor:
        """A frame's number as an anchor at its best tokens, 0 at the others. (B, P), (B) → (B, P)"""
        best = score.topk(math.ceil(self.anchor_share * score.shape[1]), 1).indices
        return torch.zeros_like(score, dtype=torch.long).scatter(1, best, number[:, None].expand_as(best))

    def _cut_down(self, layer: int, cache: KVCache, notes: dict[str, Note]) -> None:
        tokens, new, anchor = cache.frame_tokens, notes["new"][layer], notes["anchor"][layer]
        old = unlikeness_to_mean(cache)[:, tokens : len(cache) - new.shape[1]]
        score = torch.cat([(1 - self.new_weight) * from_0_to_1(old), self.new_weight * from_0_to_1(new)], 1)
        is_protected = (anchor > 0) & (anchor > notes["num_anchors"][:, None] - self.anchors)
        score = torch.where(is_protected, 2, score)  # above all others
        best = score.topk((self.budget - 1) * tokens, 1).indices.sort(1).values  # (B, T_best)
        num_heads = cache.contents()[0].shape[1]
        cache.keep_tokens(first_frame_and(best[:, None].expand(-1, num_heads, -1), tokens))
        notes["new"] = replaced(notes["new"], layer, new[:, :0])
        notes["anchor"] = replaced(notes["anchor"], layer, anchor.gather(1, best))


def smoothed(score: Tensor, image_size: tuple[int, int], num_special: int = Aggregator.num_special) -> Tensor:
    """The mean of each patch's score and that of its neighbourhood; special tokens' as it is. (B, P) → (B, P)"""
    special, patches = score[:, :num_special], score[:, num_special:]
    height, width = image_size
    patch_size = math.isqrt(height * width // patches.shape[1])
    grid = patches.unflatten(1, (1, height // patch_size, width // patch_size))  # (B, 1, h, w)
    around = F.pad(grid, (1, 1, 1, 1), mode="replicate")
    around = F.conv2d(around, binomial(grid.device, grid.dtype))
    return torch.cat([special, ((grid + around) / 2).flatten(1)], 1)


@table(8)
def binomial(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Make the weights of a 3×3 neighborhood. (1, 1, 3, 3)"""
    weights = torch.tensor([1, 2, 1], device=device, dtype=dtype) / 4
    return (weights[:, None] * weights)[None, None]


def unlikeness_to_mean(cache: KVCache) -> Tensor:
    """1 - cosine of each key and the mean key of its head, on average over heads. (B, T)"""
    keys = cache.contents()[0]
    keys = keys.to(at_least_float32(keys))
    return 1 - F.cosine_similarity(keys, keys.mean(2, keepdim=True), dim=-1).mean(1)


def from_0_to_1(score: Tensor) -> Tensor:
    """Moved and scaled, for each stream, so that the lowest is 0 and the highest 1. (B, T)"""
    if not score.shape[1]:
        return score
    lowest, highest = score.aminmax(dim=1, keepdim=True)
    return (score - lowest) / (highest - lowest).clamp(min=torch.finfo(score.dtype).tiny)
