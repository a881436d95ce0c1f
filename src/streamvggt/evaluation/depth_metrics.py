"""How far estimated depth is from true depth, after one of several alignments.

The order is that of the published evaluation: valid pixels, clip, align, clip, mask, numbers. So are the types: an
estimate in float32 and a truth in float32 or float64 give its digits, because "scale" has not converged when it stops.
T frames · H×W pixels · N valid pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

METRICS = ("Abs Rel", "Sq Rel", "RMSE", "Log RMSE", "δ < 1.", "δ < 1.25", "δ < 1.25^2", "δ < 1.25^3")
RATIOS = (1.0, 1.25, 1.25**2, 1.25**3)
"""The first is published, too: nothing is ever below a ratio of 1."""
MIN_DEPTH = 1e-5  # of an aligned estimate, in logarithms and ratios
MIN_SCALE = 1e-3
CHUNK = 1 << 20
"""Values at a time: many enough for all processors, few enough to stay near them."""

Affine = tuple[Tensor, Tensor]
"""Scale and shift, 0-d."""
Alignment = Callable[[Tensor, Tensor], Affine]
"""From estimated and true values of N valid pixels, (N,) each."""
Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class DepthOptions:
    """What of a data set counts.

    max_depth: true depth counts between 0 and this, both excluded; None: all above 0.
    clip_before, clip_after: smallest and largest value of an estimate, before and after its alignment.
    is_disparity: whether the estimate is inverse depth; it is aligned as such.
    """

    max_depth: float | None = None
    clip_prediction: Range = (None, None)
    clip_aligned: Range = (None, None)
    is_disparity: bool = False

    def valid(self, gt: Tensor) -> Tensor:
        return (gt > 0) if self.max_depth is None else (gt > 0) & (gt < self.max_depth)


@dataclass(frozen=True)
class DepthScore:
    """Numbers of one alignment: of an image, or of a sequence with one scale for all its frames.

    numbers: by the names in `METRICS`; all 0 if nothing is valid.
    num_valid: pixels they are of.
    scale, shift: what was done to the estimate, or to its inverse.
    """

    numbers: dict[str, float]
    num_valid: int
    scale: Tensor
    shift: Tensor
    is_disparity: bool

    def align(self, estimated: Tensor) -> Tensor:
        """The estimate as it was compared, not clipped, valid or not. Any shape."""
        return _apply(estimated, self.scale, self.shift, self.is_disparity)


def score_depth(
    estimated: Tensor,
    gt: Tensor,
    alignment: Alignment,
    rules: DepthOptions = DepthOptions(),
    mask: Tensor | None = None,
) -> DepthScore:
    """Align an estimate with the truth and compare them.

    Args:
        estimated, true: any shape; depth ≤ 0 is unknown. (..., H, W)
        alignment: one of `ALIGNMENTS`, or another function.
        mask: of the valid pixels those to compare; all are aligned. (..., H, W) bool
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
    """The eight numbers of aligned values; an estimate below 0 counts as it is in the first three. (N,) each"""
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
    """Sums over N of what `terms` makes of values, a part of them at a time: a video has 30 million pixels.

    Args:
        values: (N,) each.
    """
    parts = zip(*(value.split(CHUNK) for value in values), strict=True)
    return torch.stack([torch.stack([term.sum().double() for term in terms(*part)]) for part in parts]).sum(0).tolist()


def error_map(aligned: Tensor, gt: Tensor, rules: DepthOptions) -> Tensor:
    """|aligned - true| / true where it counts, else 0. Shape of `true`."""
    return torch.where(rules.valid(gt), (aligned - gt).abs() / gt, 0)


def weighted_mean(scores: Sequence[tuple[Mapping[str, float], int]]) -> dict[str, float]:
    """The mean of numbers, weighted by pixels as published: RMSE is averaged, not its square.

    Raises:
        ValueError: there is not one valid pixel.
    """
    total = sum(num_valid for _, num_valid in scores)
    if not total:
        raise ValueError("no pixel of the true depth is valid, so there is nothing to compare")
    return {name: sum(numbers[name] * n for numbers, n in scores) / total for name in METRICS}


def _clipped(values: Tensor, clip: Range) -> Tensor:
    return values if clip == (None, None) else values.clamp(*clip)


def _apply(values: Tensor, scale: Tensor, shift: Tensor, is_disparity: bool) -> Tensor:
    values = values * scale + shift
    return torch.where(values > 0, 1 / values, 0) if is_disparity else values


# Alignments. The published ones first, faults included; then those that do what the name says.


def align_median(estimated: Tensor, gt: Tensor) -> Affine:
    """Brings the median to the truth's; the lower one of an even number."""
    return gt.median() / estimated.median(), torch.zeros((), dtype=gt.dtype)


def align_scale(estimated: Tensor, gt: Tensor, num_steps: int = 10) -> Affine:
    """The published "scale": ten steps towards the least sum of absolute errors, which they do not reach.

    Weights go up to 1e8, so types and the order of the sum show in the third or fourth digit.
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
    """The published "scale&shift": Adam on the sum of absolute errors, from the median ratio.

    Neither number gets further than about learning_rate · num_steps = 0.1 from its start.
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
    """For estimates in metres."""
    return torch.ones((), dtype=gt.dtype), torch.zeros((), dtype=gt.dtype)


def align_least_squares(estimated: Tensor, gt: Tensor) -> Affine:
    """Scale and shift of the least sum of squares."""
    p, g = estimated.double(), gt.double()
    p_mean, g_mean = p.mean(), g.mean()
    scale = ((p - p_mean) * (g - g_mean)).sum() / (p - p_mean).square().sum()
    return scale, g_mean - scale * p_mean


def align_bfgs(estimated: Tensor, gt: Tensor) -> Affine:
    """The published least sum of absolute errors with shift: SciPy's BFGS from the median ratio."""
    from scipy.optimize import minimize

    p, g = estimated.double().cpu().numpy(), gt.double().cpu().numpy()
    start = align_median(estimated, gt)[0].item()
    found = minimize(lambda x: abs(x[0] * p + x[1] - g).sum(), [start, 0.0], method="BFGS").x
    return torch.tensor(found[0]), torch.tensor(found[1])


def align_scale_exact(estimated: Tensor, gt: Tensor) -> Affine:
    """The scale of the least sum of absolute errors: the median of the ratios, weighted by the estimates."""
    p, g = estimated.double(), gt.double()
    p, g = p[p != 0], g[p != 0]
    return weighted_median(g / p, p.abs()), torch.zeros((), dtype=p.dtype)


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """The lowest value up to which at least half of the weight lies. (N,) each, weights > 0 → 0-d"""
    left = weights.sum() / 2
    while len(values) > CHUNK:  # keep the side that holds it; only the last few are sorted
        pivot = values[:: max(len(values) // 1000, 1)].median()
        is_below = values < pivot
        weight_below = weights[is_below].sum()
        keep = is_below if weight_below >= left else ~is_below
        if keep.all():
            break  # so many are equal
        left = left if weight_below >= left else left - weight_below
        values, weights = values[keep], weights[keep]
    values, order = values.sort()
    return values[torch.searchsorted(weights[order].cumsum(0), left).clamp(max=len(values) - 1)]


def align_scale_shift_exact(estimated: Tensor, gt: Tensor) -> Affine:
    """Scale and shift of the least sum of absolute errors, to about 1e-9 of the scale.

    For any scale the best shift is the median of what is left, and the error is convex in the scale: its slope changes
    sign at the best one, which halving finds. The best one of some of the values tells where to look.
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
"""By the names on the command line and in file names; those that end in "exact" are not published."""


# For the held-out table of the procedural world.


def median_scale(estimated: Tensor, gt: Tensor, valid: Tensor) -> Tensor:
    """The estimate times one factor that brings its median to the truth's; any shape, one factor for all."""
    return estimated * (gt[valid].median() / estimated[valid].median().clamp(min=1e-9))


def absolute_relative_error(estimated: Tensor, gt: Tensor, valid: Tensor) -> float:
    """Mean of |estimated - true| / true over valid pixels (AbsRel)."""
    return ((estimated - gt).abs() / gt)[valid].mean().item()


def delta_accuracy(estimated: Tensor, gt: Tensor, valid: Tensor, ratio: float = 1.25) -> float:
    """Share of valid pixels with max(estimated/true, true/estimated) below `ratio` (δ < ratio)."""
    e, t = estimated[valid].clamp(min=1e-9), gt[valid]
    return ((e / t).maximum(t / e) < ratio).float().mean().item()
