"""Arithmetic of 3-vectors, term by term.

Results must not depend on the batch, but library reductions select their summation order by size. For three terms they
are also several times slower on a CPU.
"""

import torch
from torch import Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the dot product. (..., 3), (..., 3) → (...)"""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def length(a: Tensor) -> Tensor:
    """Return the norm. (..., 3) → (...)"""
    return dot(a, a).sqrt()


def unit(a: Tensor) -> Tensor:
    """Normalize to unit length; 0 is unchanged. (..., 3)"""
    return a / length(a).clamp(min=1e-12)[..., None]


def largest_axis(a: Tensor) -> Tensor:
    """Return the index of the largest absolute coordinate; the first of equal ones. (..., 3) → (...) int64"""
    x, y, z = a.abs().unbind(-1)
    return torch.where(z > torch.maximum(x, y), 2, (y > x).long())


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product. (..., i, 3) × (..., 3, j) → (..., i, j)"""
    first, second, third = (a[..., :, k, None] * b[..., None, k, :] for k in range(3))
    return first + second + third
