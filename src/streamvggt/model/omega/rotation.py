"""Rotary positions of DINOv3: patch centers relative to the longer side of the image (arXiv 2508.10104)."""

import math

import torch
from torch import Tensor

from streamvggt.layers.rope import RoPE2D
from streamvggt.layers.tables import cached_table

BASE = 100.0


class CenteredRotation(RoPE2D):
    """Rotate queries and keys of a frame by the positions of the patch centers.

    Positions are in [-1, 1] along the longer side of the patch grid. Row angles, then column angles, rotate the channel
    pairs (c, c + D/2). `RoPE2D` uses integer positions, and separate halves for rows and columns.

    P tokens of a frame (special tokens first, then h·w patches by rows) · D head width.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        num_special_tokens: int,
        head_width: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        """Compute the rotation tables.

        Args:
            grid: Patch rows and columns h, w.
            num_special_tokens: Tokens before the patches. They are not rotated.
            head_width: Channels per head, a multiple of 4.
            device: Device of the tables.
            dtype: Number format of the tables, at least float32.

        Raises:
            ValueError: If `head_width` is not a multiple of 4.
        """
        if head_width % 4:
            raise ValueError(f"head_width: expected a multiple of 4 for rotary positions, got {head_width}.")
        self.cos, self.signed_sin = centered_cosines_and_sines(grid, num_special_tokens, head_width, device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate tokens of one or several frames. (B, N, S·P, D) → same, at least float32."""
        x = x.unflatten(2, (-1, self.cos.shape[0]))  # (B, N, S, P, D)
        first, second = x.chunk(2, -1)
        return (x * self.cos + torch.cat([second, first], -1) * self.signed_sin).flatten(2, 3)


def rotary_periods(head_width: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the periods in units of the position. Published files contain them as the buffer `periods`. (D/4,)"""
    number = torch.arange(head_width // 4, dtype=torch.float32, device=device)
    return BASE ** (2 * number / (head_width // 2))


@cached_table(maxsize=32)
def centered_cosines_and_sines(
    grid: tuple[int, int], num_special_tokens: int, head_width: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Compute cosines and signed sines of all angles. (2, P, D)"""
    # Compute positions and angles in float32 for all `dtype`, like the reference implementation.
    row, column = (2 * (torch.arange(0.5, count, dtype=torch.float32, device=device) / max(grid)) - 1 for count in grid)
    position = torch.stack(torch.meshgrid(row, column, indexing="ij"), -1).flatten(0, 1)  # (h·w, 2)
    angle = 2 * math.pi * position[..., None] / rotary_periods(head_width, device)  # (h·w, 2, D/4)
    angle = torch.cat([angle.flatten(1), angle.flatten(1)], -1)  # (h·w, D)
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    first, second = sin.chunk(2, -1)
    unturned = torch.stack(
        [cos.new_ones(num_special_tokens, head_width), cos.new_zeros(num_special_tokens, head_width)]
    )
    return torch.cat([unturned, torch.stack([cos, torch.cat([-first, second], -1)])], 1)
