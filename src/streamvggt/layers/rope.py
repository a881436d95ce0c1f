"""Rotary positions in two dimensions (RoPE, arXiv 2104.09864, by rows and columns)."""

import torch
from torch import Tensor

from streamvggt.layers.tables import cached_table


class RoPE2D:
    """The rotation of one frame's queries and keys by where their patches lie in the image.

    The head width is cut in two halves, the first turned by the row, the second by the column. There is no frame in
    it: the same patch of any frame turns the same way, so keys can be kept for later frames as they are.

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
        """
        Args:
            grid: h, w: the frame's patches.
            num_special: tokens before the patches; they stay unturned (position 0).
            head_width: a multiple of 4.
            dtype: of cosine and sine; at least float32.
        """
        if head_width % 4:
            raise ValueError(f"rotary positions need a head width that is a multiple of 4, not {head_width}")
        self.cos, self.signed_sin = cos_sin_tables(grid, num_special_tokens, head_width, base, device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Turned tokens of one or several frames. (B, N, S·P, D) → same, at least float32"""
        x = x.unflatten(2, (-1, self.cos.shape[0]))  # (B, N, S, P, D)
        a, b, c, d = x.chunk(4, -1)  # a, b: the row's half; c, d: the column's
        return torch.addcmul(x * self.cos, torch.cat([b, a, d, c], -1), self.signed_sin).flatten(2, 3)


@cached_table(maxsize=32)  # a stream has images of one size, training of a few
def cos_sin_tables(
    grid: tuple[int, int],
    num_special_tokens: int,
    head_width: int,
    base: float,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Cosines of all angles, and sines with the signs that a rotation gives them. (2, P, D)"""
    height, width = grid
    # Frequencies and angles in float32 whatever `dtype` is: they are part of the released network.
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
