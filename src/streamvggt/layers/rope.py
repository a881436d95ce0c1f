"""Two-dimensional rotary position embedding (RoPE, arXiv 2104.09864)."""

import torch
from torch import Tensor

from streamvggt.layers.tables import cached_table


class RoPE2D:
    """Rotate queries and keys by the row and column of their patches.

    Rows rotate the first half of the head width, columns the second half. The rotation is independent of the frame, so
    cached keys stay valid for later frames.

    P tokens of a frame (special tokens first, then h·w patches by rows) · D head width.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        num_special_tokens: int,
        head_width: int,
        *,
        base: float = 100.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        """Compute the rotation tables.

        Args:
            grid: Patch rows and columns h, w.
            num_special_tokens: Tokens before the patches, at position 0. They are not rotated.
            head_width: Channels per head, a multiple of 4.
            base: Base of the frequencies.
            device: Device of the tables.
            dtype: Number format of the tables, at least float32.

        Raises:
            ValueError: If `head_width` is not a multiple of 4.
        """
        if head_width % 4:
            raise ValueError(f"head_width: expected a multiple of 4 for rotary positions, got {head_width}.")
        self.cos, self.signed_sin = cos_sin_tables(grid, num_special_tokens, head_width, base, device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate tokens of one or several frames. (B, N, S·P, D) → same, at least float32"""
        x = x.unflatten(2, (-1, self.cos.shape[0]))  # (B, N, S, P, D)
        a, b, c, d = x.chunk(4, -1)  # a, b: row half; c, d: column half
        return torch.addcmul(x * self.cos, torch.cat([b, a, d, c], -1), self.signed_sin).flatten(2, 3)


@cached_table(maxsize=32)  # streams use one image size, training a few
def cos_sin_tables(
    grid: tuple[int, int],
    num_special_tokens: int,
    head_width: int,
    base: float,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Return the cosines and signed sines of all angles. (2, P, D)"""
    height, width = grid
    # Compute frequencies and angles in float32 for all `dtype`, as in the released network.
    half = head_width // 2
    frequency = base ** -(torch.arange(0, half, 2, device=device).float() / half)
    row = torch.arange(1, height + 1, device=device).float()[:, None].expand(height, width)
    column = torch.arange(1, width + 1, device=device).float()[None, :].expand(height, width)
    position = torch.stack([row, column], -1).flatten(0, 1)  # (h·w, 2)
    position = torch.cat([position.new_zeros(num_special_tokens, 2), position])  # (P, 2)
    angle = position[..., None] * frequency  # (P, 2, D/4)
    angle = torch.cat([angle, angle], -1).flatten(1)  # (P, D)
    a, b, c, d = angle.sin().to(dtype).chunk(4, -1)
    return torch.stack([angle.cos().to(dtype), torch.cat([-a, b, -c, d], -1)])
