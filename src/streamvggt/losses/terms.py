"""The arithmetic of the losses, by name.

B batch · S frames · H×W pixels · C channels. `valid` and other masks are bool.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad, smooth_l1_loss

RobustLoss = Literal["huber", "l1", "l2"]


# ----------------------------------------------------------------------------------------------------------- means


def sample_mean(values: Tensor, weights: Tensor, fewest: int = 1) -> Tensor:
    """Weighted mean of each sample, averaged over the samples that have at least `fewest` positive weights.

    So a sample without valid pixels changes nothing, and one with few counts as much as one with many. The gradient
    of what has weight 0 is 0.

    Args:
        values: finite. (B, ...)
        weights: mask or weights ≥ 0, constants. (B, ...)
        fewest: how many make a mean worth having.

    Returns:
        Scalar; 0 if no sample has enough.
    """
    values, weights = values.flatten(1), weights.flatten(1).to(values.dtype)
    enough = (weights > 0).sum(1) >= fewest  # (B,)
    sums = torch.where(enough, weights.sum(1), 1)
    means = torch.where(enough, (values * weights).sum(1) / sums, 0)
    return means.sum() / enough.sum().clamp(min=1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over all entries where the mask is true; 0 if there are none."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def iteration_mean(errors: list[Tensor], decay: float) -> Tensor:
    """Mean of the refinement steps' errors, the last with weight 1, each earlier one with `decay` times the next's."""
    return sum(decay ** (len(errors) - 1 - i) * error for i, error in enumerate(errors)) / len(errors)


# ---------------------------------------------------------------------------------------------------------- errors


def robust_error(prediction: Tensor, target: Tensor, kind: RobustLoss, delta: float = 0.1) -> Tensor:
    """Error of vectors (..., C) → (...).

    kind: "l1" mean of |e| over the components; "l2" Euclidean length; "huber" mean over the components of
        e²/(2δ) where |e| ≤ δ, |e| - δ/2 elsewhere (slope 1 outside).
    """
    if kind == "l1":
        return (prediction - target).abs().mean(-1)
    if kind == "l2":
        return torch.linalg.vector_norm(prediction - target, dim=-1)
    if kind == "huber":
        return smooth_l1_loss(prediction, target.expand_as(prediction), beta=delta, reduction="none").mean(-1)
    raise ValueError(f"unknown error {kind!r}: expected 'huber', 'l1' or 'l2'")


def confidence_weighted_error(error: Tensor, conf: Tensor, alpha: float, gamma: float = 1.0) -> Tensor:
    """γ·c·e - α·log c: being sure costs where one errs and pays where one does not. Least at c = α/(γ·e)."""
    conf = conf.clamp(min=1e-6)
    return gamma * conf * error - alpha * conf.log()


def zero_invalid(values: Tensor, valid: Tensor) -> Tensor:
    """A map (B, S, H, W, C) with zeros where it is not valid, so that nothing there can spread."""
    return torch.where(valid[..., None], values, 0)


# ----------------------------------------------------------------------------------------------------------- scale


def mean_distance(values: Tensor, valid: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean length of the valid vectors, at least 0.001.

    Args:
        values: depth or points. (B, S, H, W, C)
        valid: (B, S, H, W)
        dims: what to average over, of B, S, H, W.

    Returns:
        With ones for `dims` and C, to divide by. (B, S, H, W, 1) or smaller
    """
    lengths = torch.where(valid, torch.linalg.vector_norm(values, dim=-1), 0)
    mean = lengths.sum(dims, keepdim=True) / valid.sum(dims, keepdim=True).clamp(min=1)
    return mean.clamp(min=1e-3)[..., None]


def least_squares_scale(values: Tensor, target: Tensor, valid: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The s ≥ 0.001 that brings s·values closest to the target in least squares; a constant (no gradient).

    Shapes as in `mean_distance`.
    """
    values = values.detach()
    products = torch.where(valid, (values * target).sum(-1), 0).sum(dims, keepdim=True)
    squares = torch.where(valid, (values * values).sum(-1), 0).sum(dims, keepdim=True)
    return (products / squares.clamp(min=1e-6)).clamp(min=1e-3)[..., None]


# ------------------------------------------------------------------------------------------- slopes and surfaces


def finite_differences(values: Tensor, valid: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Each pixel's right and lower neighbour minus the pixel.

    Args:
        values: (..., H, W, C)
        valid: (..., H, W)

    Returns:
        Along x: differences (..., H, W-1, C) and whether both pixels are valid (..., H, W-1);
        along y: the same with (H-1, W).
    """
    along_x = values[..., :, 1:, :] - values[..., :, :-1, :], valid[..., :, 1:] & valid[..., :, :-1]
    along_y = values[..., 1:, :, :] - values[..., :-1, :, :], valid[..., 1:, :] & valid[..., :-1, :]
    return along_x, along_y


def _neighbours(padded: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Upper, left, lower, right neighbour of each pixel inside the border: (..., H+2, W+2) → four (..., H, W)."""
    return padded[..., :-2, 1:-1], padded[..., 1:-1, :-2], padded[..., 2:, 1:-1], padded[..., 1:-1, 2:]


def normals(points: Tensor) -> Tensor:
    """Four surface normals at each pixel, from its pairs of neighbours: up×left, left×down, down×right, right×up.

    Outside the image the points are zero, so the normals of border pixels are meaningless: see `normals_valid`.

    Args:
        points: (..., H, W, 3)

    Returns:
        Unit vectors; shorter where three points are nearly on a line. (..., 4, H, W, 3)
    """
    around = _neighbours(pad(points.movedim(-1, -3), (1, 1, 1, 1)))  # (..., 3, H, W) each
    up, left, down, right = (neighbour.movedim(-3, -1) - points for neighbour in around)
    pairs = ((up, left), (left, down), (down, right), (right, up))
    crosses = torch.stack([torch.linalg.cross(a, b) for a, b in pairs], -4)
    return crosses / torch.linalg.vector_norm(crosses, dim=-1, keepdim=True).clamp(min=1e-6)


def normals_valid(valid: Tensor) -> Tensor:
    """Whether the three pixels of each of the `normals` are valid: (..., H, W) → (..., 4, H, W)."""
    up, left, down, right = _neighbours(pad(valid, (1, 1, 1, 1)))
    return valid[..., None, :, :] & torch.stack([up & left, left & down, down & right, right & up], -3)


def normal_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - cosine between the `normals` of two point maps: (..., H, W, 3) → (..., 4, H, W)."""
    return 1 - (normals(prediction) * normals(target)).sum(-1)
