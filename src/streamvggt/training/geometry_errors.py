"""Errors of attention, features and tokens against ground-truth geometry. See `GeometryLosses`.

B sequences · S frames · P tokens per frame · N heads · D head width · C channels · H×W pixels · h×w patches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.losses.target import Target
from streamvggt.losses.terms import masked_mean
from streamvggt.training.matches import Matches, Targets, patch_centers

PLACE, POINT, LOG_DEPTH = slice(0, 2), slice(2, 5), 5
"""Entries of the linear functions of patch tokens."""
NEAREST = 0.1
"""Lower bound in scene units of the depth that normalizes point errors."""


def attention_error(q: Tensor, k: Tensor, targets: Targets, num_special_tokens: int, causal: bool) -> Tensor:
    """Compute the cross entropy of the attention of heads 0 and 1 against the matches. See `GeometryLosses`.

    Args:
        q, k: Normalized and rotated queries and keys. (B, N, S·P, D)
        targets: Matches.
        num_special_tokens: Tokens of a frame before its patches.
        causal: Skip matches in later frames, because causal attention excludes them.
    """
    num_frames = targets.visible.shape[1]
    q, k = (x[:, :2].unflatten(2, (num_frames, -1)) for x in (q, k))  # (B, 2, S, P, D)
    q = q[:, :, :, num_special_tokens:] * q.shape[-1] ** -0.5
    in_sight = _attendable(num_frames, causal, q.device)
    counts = targets.visible & in_sight[..., None]

    scores = torch.einsum("bipd,bjkd->bipjk", q[:, 0], k[:, 0])  # (B, S, h·w, S, P)
    scores = scores.masked_fill(~in_sight[:, None, :, None], -torch.inf)
    log_weights = scores.flatten(3).log_softmax(-1)[
        ..., num_special_tokens : k.shape[3]
    ]  # of patches of the first frame
    to_first = -(log_weights.gather(-1, targets.patches[:, :, 0]) * targets.weights[:, :, 0]).sum(-1)
    within = torch.einsum("bipd,bjkd->bijpk", q[:, 1], k[:, 1, :, num_special_tokens:])
    return masked_mean(to_first, counts[:, :, 0]) + targets.cross_entropy(within, counts)


def position_error(predicted: Tensor, matches: Matches, causal: bool) -> Tensor:
    """Compute the mean error |Δx| + |Δy| of predicted positions in the first frame.

    Args:
        predicted: Predicted positions in the units of `Matches.position`. (B, S, h·w, 2)
        matches: Ground-truth matches.
        causal: Skip matches in later frames.
    """
    counts = (matches.visible & _attendable(predicted.shape[1], causal, predicted.device)[..., None])[:, :, 0]
    errors = (predicted - torch.where(counts[..., None], matches.position[:, :, 0], 0)).abs().sum(-1)
    return masked_mean(errors, counts)


def feature_error(features: Tensor, targets: Targets, temperature: float) -> Tensor:
    """Compute the mean InfoNCE loss of matching patches between frames by cosine similarity.

    Args:
        features: Projected encoder features. (B, S, h·w, C)
        targets: Matches.
        temperature: Divisor of the cosine similarities.
    """
    unit = F.normalize(features, dim=-1)
    return targets.cross_entropy(torch.einsum("bipc,bjkc->bijpk", unit, unit) / temperature, targets.visible)


def deep_error(read: Tensor, known: Target, patch_size: int) -> Tensor:
    """Compute the mean error of points relative to their depth, plus the mean error of log depth.

    Args:
        read: Predictions from patch tokens. (B, S, h·w, 6)
        known: Target with depth, points and valid pixels.
        patch_size: Side of a patch in pixels.
    """
    y, x = patch_centers(known.prediction.depth[..., 0], patch_size)
    depth = known.prediction.depth[:, :, y, x, 0].flatten(2, 3)
    points = known.prediction.points[:, :, y, x].flatten(2, 3)
    valid = known.valid[:, :, y, x].flatten(2, 3)
    point_error = (read[..., POINT] - points).norm(dim=-1) / depth.clamp(min=NEAREST)
    depth_error = (read[..., LOG_DEPTH] - depth.clamp(min=1e-3).log()).abs()
    return masked_mean(torch.where(valid, point_error + depth_error, 0), valid)


def _attendable(num_frames: int, causal: bool, device: torch.device) -> Tensor:
    """Return whether frame i attends to frame j. Bool (S, S)"""
    everything = torch.ones(num_frames, num_frames, dtype=torch.bool, device=device)
    return everything.tril() if causal else everything
