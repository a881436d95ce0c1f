"""Similarity alignment of point sets (Umeyama, PAMI 1991), also robust to outliers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.geometry.similarity import Sim3

MAD_TO_STD = 1.4826  # median absolute error → standard deviation of a normal distribution


def align_points(
    source: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    with_scale: bool = True,
    symmetric: bool = False,
) -> Sim3:
    """Compute the least-squares similarity from source to target points.

    Args:
        source, target: Corresponding points. (..., N, 3)
        weight: Weights ≥ 0. None: equal weights. (..., N)
        with_scale: False: compute a rigid motion with scale 1.
        symmetric: Compute the scale as the ratio of the spreads (Horn 1987). The inverse alignment is then the inverse
            similarity, and chains of alignments do not shrink. Noise in `source` reduces the least-squares scale.

    Returns:
        Similarity with a proper rotation, target_from_source. The scale is 1 if all source points coincide.

    Reference: Umeyama, PAMI 1991. Horn, JOSA A 1987.
    """
    weight = torch.ones_like(source[..., 0]) if weight is None else weight
    weight = (weight / weight.sum(-1, keepdim=True).clamp(min=1e-12))[..., None]  # (..., N, 1)
    source_mean, target_mean = ((weight * x).sum(-2, keepdim=True) for x in (source, target))
    centered, wanted = source - source_mean, target - target_mean
    covariance = (weight * wanted).mT @ centered  # (..., 3, 3)
    u, singular, vt = torch.linalg.svd(covariance)
    sign = torch.ones_like(singular)
    sign[..., -1] = torch.linalg.det(u @ vt).sign()
    rotation = u * sign[..., None, :] @ vt
    variance = (weight * centered.square()).sum((-2, -1))
    if symmetric:
        quotient = ((weight * wanted.square()).sum((-2, -1)) / variance.clamp(min=1e-12)).sqrt()
    else:
        quotient = (singular * sign).sum(-1) / variance.clamp(min=1e-12)
    scale = torch.where(variance > 1e-12, quotient, 1.0)
    if not with_scale:
        scale = torch.ones_like(scale)
    translation = target_mean.squeeze(-2) - scale[..., None] * (rotation @ source_mean.mT).squeeze(-1)
    return Sim3(scale, rotation, translation)


@dataclass(frozen=True)
class RobustAlignment:
    """Result of a robust alignment.

    Attributes:
        similarity: Similarity target_from_source.
        error: Residual distance of each point in units of its tolerance. (N,)
        weight: Weight of each point in the last step, at most its input weight. (N,)
    """

    similarity: Sim3
    error: Tensor
    weight: Tensor


def align_points_robust(
    source: Tensor, target: Tensor, weight: Tensor, tolerance: Tensor, num_steps: int = 60
) -> RobustAlignment:
    """Compute the similarity from source to target points with outliers.

    The method minimizes the Geman-McClure loss with graduated non-convexity. The weights suppress errors beyond a
    bound. The bound decreases from the largest error to the tolerance, or to the noise level if the noise level is
    larger. The method needs no initialization and no random samples, so the result is deterministic.

    Args:
        source, target: Corresponding points, N ≥ 1. (N, 3)
        weight: Weights ≥ 0, not all 0: inverse variances in units of the tolerance. (N,)
        tolerance: Distances > 0 beyond which points are outliers, in the unit of `target`. (N,)
        num_steps: Maximum number of alignments.

    Reference: Yang et al., Graduated Non-Convexity for Robust Spatial Perception, RA-L 2020, arXiv 1909.08605.
    """
    bound = None
    trusted = weight
    for _ in range(num_steps):
        similarity = align_points(source, target, trusted / tolerance.square(), symmetric=True)
        error = (similarity.apply(source) - target).norm(dim=-1) / tolerance
        noise = MAD_TO_STD * weighted_median(error, weight)
        least = torch.maximum(torch.ones_like(noise), noise)
        settled = bound is not None and bound <= least
        bound = 2 * error.max() if bound is None else bound / 1.4
        bound = torch.maximum(bound, least)
        before, trusted = trusted, weight / (1 + (error / bound).square()).square()
        if settled and (trusted - before).abs().sum() <= 1e-4 * before.sum():
            break
    return RobustAlignment(similarity, error, trusted)


def weighted_median(values: Tensor, weight: Tensor) -> Tensor:
    """Compute the weighted median. (N,) and (N,) → ()"""
    ordered, order = values.sort()
    reached = weight[order].cumsum(0)
    return ordered[torch.searchsorted(reached, reached[-1:] / 2).clamp(max=len(values) - 1)].squeeze(0)
