"""Convolutional stem for patch tokens, for small networks.

A single strided convolution is linear in the pixels and does not locate edges within a patch. Early convolutions
improve small vision transformers (arXiv 2106.14881).

B images · C token channels · H×W pixels · h×w patches.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 3
"""Number of convolutions of stride 2."""


class ConvStem(nn.Module):
    """Three convolutions of stride 2, each followed by a residual unit, then a projection to patch tokens."""

    def __init__(self, patch_size: int, dim: int, width: int):
        """Build the stem.

        Args:
            patch_size: Side of a patch in pixels, a multiple of 8.
            dim: Token channels C.
            width: Channels at half of the resolution. The number doubles per level.
        """
        super().__init__()
        widths = [3, *(width * 2**level for level in range(LEVELS))]
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.units = nn.ModuleList(ResidualUnit(channels) for channels in widths[1:])
        cells = patch_size // 2**LEVELS
        self.proj = nn.Conv2d(widths[-1], dim, cells, cells)

    def forward(self, images: Tensor) -> Tensor:
        """Compute patch tokens. (B, 3, H, W) → (B, C, h, w)"""
        x = self.units[0](self.downs[0](images))
        for down, unit in zip(self.downs[1:], self.units[1:], strict=True):
            x = unit(down(F.gelu(x)))
        return self.proj(F.gelu(x))


class ResidualUnit(nn.Module):
    """Residual branch of two convolutions, initialized to zero. (B, C, H, W) → (B, C, H, W)"""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual branch. (B, C, H, W) → (B, C, H, W)"""
        return x + self.conv2(F.gelu(self.conv1(F.gelu(x))))
