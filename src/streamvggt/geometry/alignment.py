"""The similarity that brings one set of points onto another (Umeyama 1991), also where many of them are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.geometry.similarity import Sim3

MAD_TO_STD = 1.4826  # from the median of absolute errors to the standard deviation, of a normal distribution


def align_points(
    source: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    with_scale: bool = True,
    symmetric: bool = False,
) -> Sim3:
    """The least-squares similarity from source to target points.

    Args:
        source, target: corresponding points. (..., N, 3)
        weight: ≥ 0 per point; None: all the same. (..., N)
        with_scale: False: the best rigid motion, scale 1.
        symmetric: the scale is the quotient of the spreads (Horn 1987) instead of least squares, which noise in
            `source` makes too small; so aligning back is the inverse, and a chain of alignments does not shrink.

    Returns:
        A similarity with a proper rotation; scale 1 where all source points are one place.
    """
    weight = torch.ones_like(source[..., 0]) if weight is None else weight
    weight = (weight / weight.sum(-1, keepdim=True).clamp(min=1e-12))[..., None]  # (..., N, 1)
    source_mean, target_mean = ((weight * x).sum(-2, keepdim=True) for x in (source, target))
    centred, wanted = source - source_mean, target - target_mean
    covariance = (weight * wanted).mT @ centred  # (..., 3, 3)
    u, singular, vt = torch.linalg.svd(covariance)
    sign = torch.ones_like(singular)
    sign[..., -1] = torch.linalg.det(u @ vt).sign()
    rotation = u * sign[..., None, :] @ vt
    variance = (weight * centred.square()).sum((-2, -1))
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
    """A similarity, and which of the points it fits.

    error: distance of each point from where it should be, in units of its tolerance. (N,)
    weight: of each point in the last step, at most the weight that it was given. (N,)
    """

    similarity: Sim3
    error: Tensor
    weight: Tensor


def align_points_robust(
    source: Tensor, target: Tensor, weight: Tensor, tolerance: Tensor, num_steps: int = 60
) -> RobustAlignment:
    """The similarity from source to target points of which many may be wrong.

    Geman and McClure's loss, to which graduated non-convexity leads from least squares (Yang et al., RA-L 2020):
    weights that ignore all errors beyond a bound, the bound falling step by step from the largest error to the
    tolerance, or to the noise of the points where that is larger. It needs no start and draws no samples, so the same
    points always give the same answer.

    Args:
        source, target: corresponding points. (N, 3), N ≥ 1
        weight: ≥ 0, how much each point is trusted (its inverse variance in units of the tolerance); not all 0. (N,)
        tolerance: > 0, the distance from which on a point counts as wrong, in the unit of target. (N,)
        num_steps: alignments at most.
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
    """The value on both sides of which half the weight lies. (N,) and (N,) → ()"""
    ordered, order = values.sort()
    reached = weight[order].cumsum(0)
    return ordered[torch.searchsorted(reached, reached[-1:] / 2).clamp(max=len(values) - 1)].squeeze(0)
