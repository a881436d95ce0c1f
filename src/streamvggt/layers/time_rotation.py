"""Rotary positions for time, row and column, as in LingBot-Map."""

from __future__ import annotations

import torch
from torch import Tensor

from streamvggt.layers.tables import cached_table


class TimeRotation:
    """Rotate queries and keys by the time of their frame and the row and column of their patch.

    Neighboring channels form pairs. The first pairs rotate by time, the next by row, the last by column. A head of
    width 64 uses 20, 22 and 22 channels; other widths are divided proportionally. Special token i has row i and column
    i. The top left patch has row and column `num_special_tokens`. Rotated keys can be cached for later frames.

    B streams · S frames · P tokens per frame · D head width.
    """

    def __init__(
        self,
        times: Tensor,
        grid: tuple[int, int],
        num_special_tokens: int,
        head_width: int,
        *,
        base: float = 10000.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        """Compute the rotation tables.

        Args:
            times: Number of earlier stored frames per frame. (B or 1, S)
            grid: Patch rows and columns h, w.
            num_special_tokens: Tokens before the patches.
            head_width: Channels per head, even and at least 6.
            base: Base of the frequencies.
            device: Device of the tables.
            dtype: Number format of the tables. The angles are computed in float64.

        Raises:
            ValueError: If `head_width` is odd or below 6.
        """
        if head_width % 2 or head_width < 6:
            raise ValueError(f"global_rotation='time': expected an even head width of 6 or more, got {head_width}.")
        in_space = head_width * 11 // 64 * 2
        angle = times.double()[..., None] * frequencies(head_width - 2 * in_space, base, times.device)  # (B, S, D_t/2)
        tables = place_table(grid, num_special_tokens, in_space, base, torch.device(device), dtype)  # (2, P, D_s)
        batch, num_frames = times.shape
        self.cos, self.sin = (
            torch.cat(
                [
                    in_time.to(device=device, dtype=dtype)[:, :, None].expand(-1, -1, place.shape[0], -1),
                    place.expand(batch, num_frames, -1, -1),
                ],
                -1,
            ).flatten(1, 2)[:, None]  # (B, 1, S·P, D/2)
            for in_time, place in zip((angle.cos(), angle.sin()), tables, strict=True)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate tokens. (B, N, S·P, D) → same, at least float32"""
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * self.cos - b * self.sin, a * self.sin + b * self.cos], -1).flatten(-2)


def frequencies(width: int, base: float, device: torch.device) -> Tensor:
    """Return the frequency of each channel pair in radians per position, float64. (width/2)"""
    return base ** -(torch.arange(0, width, 2, device=device, dtype=torch.float64) / width)


@cached_table(maxsize=32)
def place_table(
    grid: tuple[int, int], num_special_tokens: int, width: int, base: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the cosines and sines of row and column angles. (2, P, width)"""
    height, columns = grid
    special = torch.arange(num_special_tokens, dtype=torch.float64)[:, None].expand(-1, 2)
    patches = torch.cartesian_prod(torch.arange(height), torch.arange(columns)).double() + num_special_tokens
    position = torch.cat([special, patches.view(-1, 2)])  # (P, 2)
    angle = (position[..., None] * frequencies(width, base, position.device)).flatten(1)  # (P, width)
    return torch.stack([angle.cos(), angle.sin()]).to(device=device, dtype=dtype)
