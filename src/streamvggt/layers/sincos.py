"""Sinusoidal embedding of positions."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_embed(position: Tensor, channels: int, base: float) -> Tensor:
    """Embed positions as sines at decreasing frequencies, then cosines. (n,) → (n, channels)"""
    dtype = torch.float32 if position.device.type == "mps" else torch.float64  # MPS has no float64
    frequency = base ** -(torch.arange(channels // 2, dtype=dtype, device=position.device) / (channels / 2))
    angle = position.to(dtype)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)
