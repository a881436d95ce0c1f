"""Alignments of a depth prediction to the ground truth: scale, or scale and shift.

First those of the reference implementation, including its errors, then exact versions. N valid pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MIN_SCALE = 1e-3
CHUNK = 1 << 20
"""Values per chunk: enough for all processors, few enough for the cache."""

Affine = tuple[Tensor, Tensor]
"""Scale and shift, 0-d."""
Alignment = Callable[[Tensor, Tensor], Affine]
"""Function of predicted and ground-truth values of N valid pixels, (N,) each."""


def sums(terms: Callable[..., Sequence[Tensor]], *values: Tensor) -> list[float]:
    """Sum the outputs of `terms` over N in chunks, because a video has up to 30 million pixels.

    Args:
        terms: Function from chunks of the values to the terms to sum.
        values: (N,) each.
    """
    parts = zip(*(value.split(CHUNK) for value in values), strict=True)
    return torch.stack([torch.stack([term.sum().double() for term in terms(*part)]) for part in parts]).sum(0).tolist()


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
            break  # the pivot is the smallest value
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
        center = align_scale_shift_exact(p[::step], g[::step])[0]
        reach = center.abs() * 1e-3
    else:
        center = align_least_squares(p, g)[0]
        reach = center.abs() / 2
    reach = reach.clamp(min=1e-6)

    def is_beyond(scale: Tensor) -> bool:
        shift = (g - scale * p).median()
        return sums(lambda p, g: [(scale * p + shift - g).sign() * p], p, g)[0] > 0

    low, high = center - reach, center + reach
    while is_beyond(low):
        low, high, reach = low - 2 * reach, low, 2 * reach
    while not is_beyond(high):
        low, high, reach = high, high + 2 * reach, 2 * reach
    while high - low > 1e-9 * center.abs() + 1e-15:
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
