"""How far estimated depth is from true depth."""

from __future__ import annotations

from torch import Tensor


def scaled_by_median(estimated: Tensor, true: Tensor, valid: Tensor) -> Tensor:
    """The estimate times one factor that brings its median to the truth's; any shape, one factor for all."""
    return estimated * (true[valid].median() / estimated[valid].median().clamp(min=1e-9))


def absolute_relative_error(estimated: Tensor, true: Tensor, valid: Tensor) -> float:
    """Mean of |estimated - true| / true over valid pixels (AbsRel)."""
    return ((estimated - true).abs() / true)[valid].mean().item()


def share_within(estimated: Tensor, true: Tensor, valid: Tensor, ratio: float = 1.25) -> float:
    """Share of valid pixels with max(estimated/true, true/estimated) below `ratio` (δ < ratio)."""
    e, t = estimated[valid].clamp(min=1e-9), true[valid]
    return ((e / t).maximum(t / e) < ratio).float().mean().item()
