"""Depth metrics after one of several alignments.

The order follows the reference implementation: valid pixels, clip, align, clip, mask, metrics. The dtypes also follow
it: float32 predictions and float32 or float64 ground truth reproduce its digits, because the "scale" alignment stops
before convergence.
T frames · H×W pixels · N valid pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.evaluation.depth_alignment import Alignment, sums

METRICS = ("Abs Rel", "Sq Rel", "RMSE", "Log RMSE", "δ < 1.", "δ < 1.25", "δ < 1.25^2", "δ < 1.25^3")
RATIOS = (1.0, 1.25, 1.25**2, 1.25**3)
"""The reference implementation also reports the first one. It is 0, because no ratio is below 1."""
MIN_DEPTH = 1e-5  # minimum aligned prediction in logarithms and ratios
Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class DepthOptions:
    """Evaluation options of a data set.

    Attributes:
        max_depth: Exclusive maximum of the evaluated ground-truth depth; the exclusive minimum is 0. None disables it.
        clip_prediction: Range of the prediction before the alignment.
        clip_aligned: Range of the prediction after the alignment.
        is_disparity: Whether the prediction is inverse depth. The alignment is then applied to inverse depth.
    """

    max_depth: float | None = None
    clip_prediction: Range = (None, None)
    clip_aligned: Range = (None, None)
    is_disparity: bool = False

    def valid(self, gt: Tensor) -> Tensor:
        return (gt > 0) if self.max_depth is None else (gt > 0) & (gt < self.max_depth)


@dataclass(frozen=True)
class DepthScore:
    """Metrics of one alignment of an image, or of a sequence with one shared scale.

    Attributes:
        numbers: Metrics by the names in `METRICS`. All 0 without valid pixels.
        num_valid: Number of evaluated pixels.
        scale: Scale of the prediction, or of its inverse.
        shift: Shift of the prediction, or of its inverse.
    """

    numbers: dict[str, float]
    num_valid: int
    scale: Tensor
    shift: Tensor
    is_disparity: bool

    def align(self, estimated: Tensor) -> Tensor:
        """Apply the alignment to a prediction of any shape, without clipping."""
        return _apply(estimated, self.scale, self.shift, self.is_disparity)


def score_depth(
    estimated: Tensor,
    gt: Tensor,
    alignment: Alignment,
    rules: DepthOptions = DepthOptions(),
    mask: Tensor | None = None,
) -> DepthScore:
    """Align a prediction to the ground truth and compute the metrics.

    Args:
        estimated: Predicted depth. (..., H, W)
        gt: Ground-truth depth; values ≤ 0 are unknown. (..., H, W)
        alignment: An entry of `depth_alignment.ALIGNMENTS` or another function.
        rules: Options of the data set.
        mask: Pixels to evaluate. The alignment uses all valid pixels. (..., H, W) bool
    """
    valid = rules.valid(gt)
    wanted = gt[valid]
    given = _clipped(estimated[valid], rules.clip_prediction)
    target = 1 / (wanted + 1e-8) if rules.is_disparity else wanted
    scale, shift = alignment(given, target) if len(given) else (torch.tensor(1.0), torch.tensor(0.0))
    given = _clipped(_apply(given, scale, shift, rules.is_disparity), rules.clip_aligned)
    if mask is not None:
        given, wanted = given[mask[valid]], wanted[mask[valid]]
    return DepthScore(compute_metrics(given, wanted), len(given), scale, shift, rules.is_disparity)


def compute_metrics(estimated: Tensor, gt: Tensor) -> dict[str, float]:
    """Compute the eight metrics of aligned values. The first three do not clip negative predictions. (N,) each"""
    if not len(gt):
        return dict.fromkeys(METRICS, 0.0)

    def terms(estimated: Tensor, gt: Tensor) -> list[Tensor]:
        error = estimated - gt
        square = error.square()
        positive = estimated.clamp(min=MIN_DEPTH)
        ratio = torch.maximum(positive / gt, gt / positive)
        return [error.abs() / gt, square / gt, square, (positive / gt).log().square()] + [
            ratio < most for most in RATIOS
        ]

    means = [total / len(gt) for total in sums(terms, estimated, gt)]
    means[2], means[3] = means[2] ** 0.5, means[3] ** 0.5
    return dict(zip(METRICS, means, strict=True))


def error_map(aligned: Tensor, gt: Tensor, rules: DepthOptions) -> Tensor:
    """Return |prediction - ground truth| / ground truth of valid pixels, else 0. Shape of `gt`."""
    return torch.where(rules.valid(gt), (aligned - gt).abs() / gt, 0)


def weighted_mean(scores: Sequence[tuple[Mapping[str, float], int]]) -> dict[str, float]:
    """Return the pixel-weighted mean of metrics. As in the reference implementation, RMSE is averaged directly.

    Raises:
        ValueError: If there is no valid pixel.
    """
    total = sum(num_valid for _, num_valid in scores)
    if not total:
        raise ValueError("no pixel of the ground-truth depth is valid, so there is nothing to compare")
    return {name: sum(numbers[name] * n for numbers, n in scores) / total for name in METRICS}


def _clipped(values: Tensor, clip: Range) -> Tensor:
    return values if clip == (None, None) else values.clamp(*clip)


def _apply(values: Tensor, scale: Tensor, shift: Tensor, is_disparity: bool) -> Tensor:
    values = values * scale + shift
    return torch.where(values > 0, 1 / values, 0) if is_disparity else values


# For the held-out table of the procedural world.


def median_scale(estimated: Tensor, gt: Tensor, valid: Tensor) -> Tensor:
    """Scale the prediction of any shape by one factor, so that its median equals that of the ground truth."""
    return estimated * (gt[valid].median() / estimated[valid].median().clamp(min=1e-9))


def absolute_relative_error(estimated: Tensor, gt: Tensor, valid: Tensor) -> float:
    """Return the mean of |prediction - ground truth| / ground truth over valid pixels (AbsRel)."""
    return ((estimated - gt).abs() / gt)[valid].mean().item()


def delta_accuracy(estimated: Tensor, gt: Tensor, valid: Tensor, ratio: float = 1.25) -> float:
    """Return the ratio of valid pixels with max(prediction / gt, gt / prediction) < `ratio` (δ < ratio)."""
    e, t = estimated[valid].clamp(min=1e-9), gt[valid]
    return ((e / t).maximum(t / e) < ratio).float().mean().item()
