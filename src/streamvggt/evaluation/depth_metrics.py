"""Depth metrics after one of several alignments.

The order follows the reference implementation: valid pixels, clip, align, clip, mask, metrics. The dtypes also follow
it: float32 predictions and float32 or float64 ground truth reproduce its digits, because the "scale" alignment stops
before convergence.
T frames · H×W pixels · N valid pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

METRICS = ("Abs Rel", "Sq Rel", "RMSE", "Log RMSE", "δ < 1.", "δ < 1.25", "δ < 1.25^2", "δ < 1.25^3")
RATIOS = (1.0, 1.25, 1.25**2, 1.25**3)
"""The reference implementation also reports the first one. It is 0, because no ratio is below 1."""
MIN_DEPTH = 1e-5  # minimum aligned prediction in logarithms and ratios
MIN_SCALE = 1e-3
CHUNK = 1 << 20
"""Values per chunk: enough for all processors, few enough for the cache."""

Affine = tuple[Tensor, Tensor]
"""Scale and shift, 0-d."""
Alignment = Callable[[Tensor, Tensor], Affine]
"""Function of predicted and ground-truth values of N valid pixels, (N,) each."""
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
        alignment: An entry of `ALIGNMENTS` or another function.
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


def sums(terms: Callable[..., Sequence[Tensor]], *values: Tensor) -> list[float]:
    """Sum the outputs of `terms` over N in chunks, because a video has up to 30 million pixels.

    Args:
        terms: Function from chunks of the values to the terms to sum.
        values: (N,) each.
    """
    parts = zip(*(value.split(CHUNK) for value in values), strict=True)
    return torch.stack([torch.stack([term.sum().double() for term in terms(*part)]) for part in parts]).sum(0).tolist()


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


# Alignments: first those of the reference implementation, including its errors, then exact versions.


def align_median(estimated: Tensor, gt: Tensor) -> Affine:
    """Scale the median to that of the ground truth. For even counts, the lower middle value is used."""
    return gt.median() / estimated.median(), torch.zeros((), dtype=gt.dtype)


def align_scale(estimated: Tensor, gt: Tensor, num_steps: int = 10) -> Affine:
    """Scale as in the reference implementation: ten iterations towards the least absolute error, before convergence.

    The weights reach 1e8, so dtype and summation order affect the third or fourth digit.
    """

    def terms(estimated: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        weight = 1 / ((scale * estimated - gt).abs() + 1e-8)
        return weight * estimated * gt, weight * estimated**2

    scale = gt.mean() / estimated.mean()
    for _ in range(num_steps):
        above, below = sums(terms, estimated, gt)
        scale = torch.tensor(above / below, dtype=gt.dtype)
    return scale.clamp(min=MIN_SCALE), torch.zeros_like(scale)


def align_scale_shift(estimated: Tensor, gt: Tensor, learning_rate: float = 1e-4, num_steps: int = 1000) -> Affine:
    """Scale and shift as in the reference implementation: Adam on the absolute error, from the median ratio.

    Both values stay within about learning_rate · num_steps = 0.1 of their initial values.
    """

    def terms(estimated: Tensor, gt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        error = scale * estimated + shift - gt
        sign = error.sign().to(estimated.dtype)
        return error.abs(), sign * estimated, sign

    scale = (gt.median() / estimated.median()).float()
    shift = torch.zeros_like(scale)
    optimizer = torch.optim.Adam([scale, shift], lr=learning_rate)
    before = None
    for _ in range(num_steps):
        loss, slope, offset = sums(terms, estimated, gt)
        scale.grad, shift.grad = torch.tensor(slope), torch.tensor(offset)
        optimizer.step()
        if before is not None and abs(before - loss) < 1e-6:
            break
        before = loss
    return scale, shift


def align_none(estimated: Tensor, gt: Tensor) -> Affine:
    """Return the identity, for metric predictions."""
    return torch.ones((), dtype=gt.dtype), torch.zeros((), dtype=gt.dtype)


def align_least_squares(estimated: Tensor, gt: Tensor) -> Affine:
    """Compute scale and shift of the least squared error."""
    p, g = estimated.double(), gt.double()
    p_mean, g_mean = p.mean(), g.mean()
    scale = ((p - p_mean) * (g - g_mean)).sum() / (p - p_mean).square().sum()
    return scale, g_mean - scale * p_mean


def align_bfgs(estimated: Tensor, gt: Tensor) -> Affine:
    """Compute scale and shift as in the reference implementation: SciPy's BFGS on the absolute error."""
    from scipy.optimize import minimize

    p, g = estimated.double().cpu().numpy(), gt.double().cpu().numpy()
    start = align_median(estimated, gt)[0].item()
    found = minimize(lambda x: abs(x[0] * p + x[1] - g).sum(), [start, 0.0], method="BFGS").x
    return torch.tensor(found[0]), torch.tensor(found[1])


def align_scale_exact(estimated: Tensor, gt: Tensor) -> Affine:
    """Compute the scale of the least absolute error: the median of the ratios, weighted by the predictions."""
    p, g = estimated.double(), gt.double()
    p, g = p[p != 0], g[p != 0]
    return weighted_median(g / p, p.abs()), torch.zeros((), dtype=p.dtype)


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """Return the smallest value whose cumulative weight is at least half. (N,) each, weights > 0 → 0-d"""
    left = weights.sum() / 2
    while len(values) > CHUNK:  # keep the side with the median; sort only the remaining values
        pivot = values[:: max(len(values) // 1000, 1)].median()
        is_below = values < pivot
        weight_below = weights[is_below].sum()
        keep = is_below if weight_below >= left else ~is_below
        if keep.all():
            break  # all remaining values are equal
        left = left if weight_below >= left else left - weight_below
        values, weights = values[keep], weights[keep]
    values, order = values.sort()
    return values[torch.searchsorted(weights[order].cumsum(0), left).clamp(max=len(values) - 1)]


def align_scale_shift_exact(estimated: Tensor, gt: Tensor) -> Affine:
    """Compute scale and shift of the least absolute error with a relative accuracy of about 1e-9.

    For a given scale the best shift is the median residual, and the error is convex in the scale. Bisection finds the
    sign change of its derivative. The solution of a subsample gives the initial interval.
    """
    p, g = estimated.double(), gt.double()
    if len(p) > 2 * CHUNK:
        step = len(p) // (CHUNK // 4)
        centre = align_scale_shift_exact(p[::step], g[::step])[0]
        reach = centre.abs() * 1e-3
    else:
        centre = align_least_squares(p, g)[0]
        reach = centre.abs() / 2
    reach = reach.clamp(min=1e-6)

    def is_beyond(scale: Tensor) -> bool:
        shift = (g - scale * p).median()
        return sums(lambda p, g: [(scale * p + shift - g).sign() * p], p, g)[0] > 0

    low, high = centre - reach, centre + reach
    while is_beyond(low):
        low, high, reach = low - 2 * reach, low, 2 * reach
    while not is_beyond(high):
        low, high, reach = high, high + 2 * reach, 2 * reach
    while high - low > 1e-9 * centre.abs() + 1e-15:
        middle = (low + high) / 2
        low, high = (low, middle) if is_beyond(middle) else (middle, high)
    scale = (low + high) / 2
    return scale, (g - scale * p).median()


ALIGNMENTS: dict[str, Alignment] = {
    "median": align_median,
    "scale": align_scale,
    "scale&shift": align_scale_shift,
    "metric": align_none,
    "lstsq": align_least_squares,
    "lad": align_bfgs,
    "scale_exact": align_scale_exact,
    "scale&shift_exact": align_scale_shift_exact,
}
"""Alignments by name on the command line and in file names. The reference implementation has no "exact" alignments."""


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
