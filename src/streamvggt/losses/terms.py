"""Building blocks of the losses: means, errors, scales, slopes and normals.

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
    """Average the weighted mean of each sample over the samples with at least `fewest` positive weights.

    All counted samples have equal weight, independent of their number of valid pixels. The gradient of values with
    weight 0 is 0.

    Args:
        values: Finite values. (B, ...)
        weights: Mask or weights ≥ 0, without gradient. (B, ...)
        fewest: Minimum number of positive weights per sample.

    Returns:
        Scalar. 0 if no sample has enough positive weights.
    """
    values, weights = values.flatten(1), weights.flatten(1).to(values.dtype)
    enough = (weights > 0).sum(1) >= fewest  # (B,)
    sums = torch.where(enough, weights.sum(1), 1)
    means = torch.where(enough, (values * weights).sum(1) / sums, 0)
    return means.sum() / enough.sum().clamp(min=1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average the entries where the mask is true. 0 if the mask is empty."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def iteration_mean(errors: list[Tensor], decay: float) -> Tensor:
    """Sum the errors of n iterations with weight decay^(n - 1 - i) for iteration i = 0, …, n - 1, divided by n."""
    return sum(decay ** (len(errors) - 1 - i) * error for i, error in enumerate(errors)) / len(errors)


# ---------------------------------------------------------------------------------------------------------- errors


def robust_error(prediction: Tensor, target: Tensor, kind: RobustLoss, delta: float = 0.1) -> Tensor:
    """Compute the error of vectors.

    Args:
        prediction, target: Vectors. (..., C)
        kind: "l1": mean of |e| over the components. "l2": Euclidean length. "huber": mean over the components of
            e²/(2δ) for |e| ≤ δ, otherwise |e| - δ/2.
        delta: Threshold δ of "huber".

    Returns:
        Errors. (...)

    Raises:
        ValueError: If `kind` is unknown.
    """
    if kind == "l1":
        return (prediction - target).abs().mean(-1)
    if kind == "l2":
        return torch.linalg.vector_norm(prediction - target, dim=-1)
    if kind == "huber":
        return smooth_l1_loss(prediction, target.expand_as(prediction), beta=delta, reduction="none").mean(-1)
    raise ValueError(f"unknown error {kind!r}: expected 'huber', 'l1' or 'l2'")


def confidence_weighted_error(error: Tensor, conf: Tensor, alpha: float, gamma: float = 1.0) -> Tensor:
    """Compute the aleatoric-uncertainty loss γ·c·e - α·log c. Its minimum is at c = α/(γ·e).

    High confidence increases the cost of large errors.

    Args:
        error: Errors e ≥ 0. (...)
        conf: Confidences c > 0. (...)
        alpha, gamma: Weights of the confidence term and of the error.

    Reference: DUSt3R, arXiv 2312.14132, Sec. 3.2.
    """
    conf = conf.clamp(min=1e-6)
    return gamma * conf * error - alpha * conf.log()


def zero_invalid(values: Tensor, valid: Tensor) -> Tensor:
    """Set invalid pixels of a map (B, S, H, W, C) to zero, so that NaN values do not propagate."""
    return torch.where(valid[..., None], values, 0)


# ----------------------------------------------------------------------------------------------------------- scale


def mean_distance(values: Tensor, valid: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Compute the mean length of the valid vectors, at least 0.001.

    Args:
        values: Depth or points. (B, S, H, W, C)
        valid: Valid pixels. Bool (B, S, H, W)
        dims: Dimensions among B, S, H, W to average over.

    Returns:
        Mean lengths, with size 1 for `dims` and C. (B, S, H, W, 1) or smaller
    """
    lengths = torch.where(valid, torch.linalg.vector_norm(values, dim=-1), 0)
    mean = lengths.sum(dims, keepdim=True) / valid.sum(dims, keepdim=True).clamp(min=1)
    return mean.clamp(min=1e-3)[..., None]


def least_squares_scale(values: Tensor, target: Tensor, valid: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Compute the factor s ≥ 0.001 of the least-squares fit of s·values to the target, without gradient.

    Shapes as in `mean_distance`.
    """
    values = values.detach()
    products = torch.where(valid, (values * target).sum(-1), 0).sum(dims, keepdim=True)
    squares = torch.where(valid, (values * values).sum(-1), 0).sum(dims, keepdim=True)
    return (products / squares.clamp(min=1e-6)).clamp(min=1e-3)[..., None]


# ------------------------------------------------------------------------------------------- slopes and surfaces


def finite_differences(values: Tensor, valid: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Compute the forward differences of each pixel to its right and lower neighbor.

    Args:
        values: Map. (..., H, W, C)
        valid: Valid pixels. Bool (..., H, W)

    Returns:
        Along x: differences (..., H, W-1, C), and whether both pixels are valid (..., H, W-1). Along y: differences
        (..., H-1, W, C), and whether both pixels are valid (..., H-1, W).
    """
    along_x = values[..., :, 1:, :] - values[..., :, :-1, :], valid[..., :, 1:] & valid[..., :, :-1]
    along_y = values[..., 1:, :, :] - values[..., :-1, :, :], valid[..., 1:, :] & valid[..., :-1, :]
    return along_x, along_y


def _neighbors(padded: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the upper, left, lower and right neighbor of each inner pixel. (..., H+2, W+2) → four (..., H, W)"""
    return padded[..., :-2, 1:-1], padded[..., 1:-1, :-2], padded[..., 2:, 1:-1], padded[..., 1:-1, 2:]


def normals(points: Tensor) -> Tensor:
    """Compute four surface normals per pixel from neighbor pairs: up×left, left×down, down×right, right×up.

    Points outside the image are zero, so normals of border pixels are not meaningful. See `normals_valid`.

    Args:
        points: Point map. (..., H, W, 3)

    Returns:
        Unit vectors, shorter if three points are nearly collinear. (..., 4, H, W, 3)
    """
    return _normals(points).movedim(-3, -1)


def _normals(points: Tensor) -> Tensor:
    """Compute `normals` with the coordinates before the pixels. (..., H, W, 3) → (..., 4, 3, H, W)

    `linalg.cross` and `linalg.vector_norm` along this dimension take seven times as long on CPU.
    """
    points = points.movedim(-1, -3).contiguous()  # (..., 3, H, W)
    sides = torch.stack([neighbor - points for neighbor in _neighbors(pad(points, (1, 1, 1, 1)))], -4)
    ax, ay, az = sides.unbind(-3)  # up, left, down, right. (..., 4, H, W) each
    bx, by, bz = sides.roll(-1, -4).unbind(-3)  # left, down, right, up
    crosses = torch.stack(
        [
            torch.addcmul(ay * bz, az, by, value=-1),
            torch.addcmul(az * bx, ax, bz, value=-1),
            torch.addcmul(ax * by, ay, bx, value=-1),
        ],
        -3,
    )
    return crosses * crosses.square().sum(-3, keepdim=True).clamp(min=1e-12).rsqrt()


def normals_valid(valid: Tensor) -> Tensor:
    """Return whether the three pixels of each of the `normals` are valid. (..., H, W) → (..., 4, H, W)"""
    up, left, down, right = _neighbors(pad(valid, (1, 1, 1, 1)))
    return valid[..., None, :, :] & torch.stack([up & left, left & down, down & right, right & up], -3)


def normal_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute 1 - cosine between the `normals` of two point maps. (..., H, W, 3) → (..., 4, H, W)"""
    return 1 - (_normals(prediction) * _normals(target)).sum(-3)
