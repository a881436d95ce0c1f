"""Arithmetic of 3-vectors, term by term.

A thing must not depend on what it is computed together with, and library reductions pick their order of summation by
size; over three numbers they are also several times slower on a CPU.
"""

import torch
from torch import Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(..., 3), (..., 3) → (...)"""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def length(a: Tensor) -> Tensor:
    """(..., 3) → (...)"""
    return dot(a, a).sqrt()


def unit(a: Tensor) -> Tensor:
    """Of length 1; 0 stays 0. (..., 3)"""
    return a / length(a).clamp(min=1e-12)[..., None]


def largest_axis(a: Tensor) -> Tensor:
    """Which coordinate is farthest from 0; the first of equals. (..., 3) → (...) int64"""
    x, y, z = a.abs().unbind(-1)
    return torch.where(z > torch.maximum(x, y), 2, (y > x).long())


def product(a: Tensor, b: Tensor) -> Tensor:
    """Of matrices. (..., i, 3) × (..., 3, j) → (..., i, j)"""
    first, second, third = (a[..., :, k, None] * b[..., None, k, :] for k in range(3))
    return first + second + third
