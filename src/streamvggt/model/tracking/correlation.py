"""How well a track's features match the map around where the track is now (RAFT, arXiv 2003.12039).

B batch · S frames · N tracks · C channels · h×w cells of the feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bilinear_sample(maps: Tensor, coords: Tensor, *, padding: str) -> Tensor:
    """Bilinear samples; coordinate 0 is the centre of the first cell.

    Args:
        maps: (M, C, h, w)
        coords: (x, y) in cells. (M, n, 2)
        padding: beyond the map, "border" or "zeros".

    Returns:
        (M, n, C)
    """
    height, width = maps.shape[-2:]
    x, y = coords.unbind(-1)
    grid = torch.stack([x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1], -1)
    sampled = F.grid_sample(maps, grid[:, :, None], mode="bilinear", padding_mode=padding, align_corners=True)
    return sampled.squeeze(-1).transpose(1, 2)


def feature_pyramid(maps: Tensor, num_levels: int) -> list[Tensor]:
    """The maps and ever coarser averages of 2×2, while there is something to average, up to a number of levels.

    (B, S, C, h, w) → one such per level
    """
    levels = [maps]
    while len(levels) < num_levels and min(levels[-1].shape[-2:]) >= 2:
        levels.append(F.avg_pool2d(levels[-1].flatten(0, 1), 2).unflatten(0, maps.shape[:2]))
    return levels


def correlate(pyramid: list[Tensor], features: Tensor, coords: Tensor, radius: int, num_levels: int) -> Tensor:
    """Correlation of features with a window around coords, at every level.

    Levels that a small map does not have answer zero, as all that lies beyond a map does; the released code fails there
    (sides below 128 pixels with its 7 levels).

    Sampling the map and then multiplying equals sampling the correlation map (both are linear) and needs no
    correlation of a track with places that nobody looks at.

    Args:
        pyramid: (B, S, C, h, w) and coarser.
        features: of each track in each frame. (B, S, N, C)
        coords: (x, y) in cells of the finest level. (B, S, N, 2)
        radius: of the window, in cells of each level.
        num_levels: that are expected.

    Returns:
        Windows of (2·radius + 1)² fine to coarse; row by row, but with x and y exchanged, as released.
        (B, S, N, levels·(2·radius + 1)²)
    """
    step = torch.arange(-radius, radius + 1, dtype=coords.dtype, device=coords.device)
    window = torch.stack(torch.meshgrid(step, step, indexing="ij"), -1).flatten(0, 1)  # (dy, dx) added to (x, y)
    batch, num_frames, num_tracks, channels = features.shape
    answers = []
    for level, maps in enumerate(pyramid):
        around = (coords / 2**level)[..., None, :] + window  # (B, S, N, window, 2)
        seen = bilinear_sample(maps.flatten(0, 1), around.flatten(0, 1).flatten(1, 2), padding="zeros")
        seen = seen.unflatten(1, (num_tracks, -1)).unflatten(0, (batch, num_frames))  # (B, S, N, window, C)
        answers.append((seen @ features[..., None]).squeeze(-1) / channels**0.5)
    absent = (num_levels - len(pyramid)) * len(window)
    answers.append(coords.new_zeros(batch, num_frames, num_tracks, absent))
    return torch.cat(answers, -1)
