"""The similarity that brings one set of points onto another (Umeyama 1991)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Similarity:
    """y = scale·R·x + t.

    scale: (...)    rotation: (..., 3, 3)    translation: (..., 3)
    """

    scale: Tensor
    rotation: Tensor
    translation: Tensor

    def apply(self, points: Tensor) -> Tensor:
        """(..., N, 3) → (..., N, 3)"""
        return self.scale[..., None, None] * points @ self.rotation.mT + self.translation[..., None, :]


def align_points(
    source: Tensor, target: Tensor, weight: Tensor | None = None, *, with_scale: bool = True
) -> Similarity:
    """The least-squares similarity from source to target points.

    Args:
        source, target: corresponding points. (..., N, 3)
        weight: ≥ 0 per point; None: all the same. (..., N)
        with_scale: False: the best rigid motion, scale 1.

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
    scale = torch.where(variance > 1e-12, (singular * sign).sum(-1) / variance.clamp(min=1e-12), 1.0)
    if not with_scale:
        scale = torch.ones_like(scale)
    translation = target_mean.squeeze(-2) - scale[..., None] * (rotation @ source_mean.mT).squeeze(-1)
    return Similarity(scale, rotation, translation)
