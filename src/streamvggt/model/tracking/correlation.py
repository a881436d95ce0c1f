"""Correlation of track features with the feature map around the current track position (RAFT, arXiv 2003.12039).

B batch · S frames · N tracks · C channels · h×w cells of the feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bilinear_sample(maps: Tensor, coords: Tensor, *, padding: str) -> Tensor:
    """Sample maps bilinearly. Coordinate 0 is the center of the first cell.

    Args:
        maps: Feature maps. (M, C, h, w)
        coords: Positions (x, y) in cells. (M, n, 2)
        padding: Values outside the map: "border" or "zeros".

    Returns:
        Samples. (M, n, C)
    """
    height, width = maps.shape[-2:]
    x, y = coords.unbind(-1)
    grid = torch.stack([x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1], -1)
    sampled = F.grid_sample(maps, grid[:, :, None], mode="bilinear", padding_mode=padding, align_corners=True)
    return sampled.squeeze(-1).transpose(1, 2)


def feature_pyramid(maps: Tensor, num_levels: int) -> list[Tensor]:
    """Compute the average pyramid of the maps. Stops early if a side is shorter than 2 cells.

    Args:
        maps: Feature maps. (B, S, C, h, w)
        num_levels: Maximum number of levels.

    Returns:
        Maps from fine to coarse, starting with `maps`. (B, S, C, …) each
    """
    levels = [maps]
    while len(levels) < num_levels and min(levels[-1].shape[-2:]) >= 2:
        levels.append(F.avg_pool2d(levels[-1].flatten(0, 1), 2).unflatten(0, maps.shape[:2]))
    return levels


def correlate(pyramid: list[Tensor], features: Tensor, coords: Tensor, radius: int, num_levels: int) -> Tensor:
    """Correlate track features with a window around their positions at each level.

    Missing levels of small maps give zeros, like positions outside a map. The reference implementation fails for sides
    below 128 pixels with its 7 levels.

    The maps are sampled before the product. This equals sampling the correlation map, because both operations are
    linear, and skips the correlation outside the windows.

    Args:
        pyramid: Maps from fine to coarse. (B, S, C, h, w) and coarser
        features: Features of each track in each frame. (B, S, N, C)
        coords: Positions (x, y) in cells of the finest level. (B, S, N, 2)
        radius: Radius of the window in cells of each level.
        num_levels: Number of levels in the output.

    Returns:
        Correlations in windows of (2·radius + 1)² cells, from fine to coarse, row-major with x and y exchanged as in
        the released network. (B, S, N, levels·(2·radius + 1)²)
    """
    step = torch.arange(-radius, radius + 1, dtype=coords.dtype, device=coords.device)
    window = torch.stack(torch.meshgrid(step, step, indexing="ij"), -1).flatten(0, 1)  # (dy, dx) added to (x, y)
    batch, num_frames, num_tracks, channels = features.shape
    correlations = []
    for level, maps in enumerate(pyramid):
        around = (coords / 2**level)[..., None, :] + window  # (B, S, N, window, 2)
        samples = bilinear_sample(maps.flatten(0, 1), around.flatten(0, 1).flatten(1, 2), padding="zeros")
        samples = samples.unflatten(1, (num_tracks, -1)).unflatten(0, (batch, num_frames))  # (B, S, N, window, C)
        correlations.append((samples @ features[..., None]).squeeze(-1) / channels**0.5)
    absent = (num_levels - len(pyramid)) * len(window)
    correlations.append(coords.new_zeros(batch, num_frames, num_tracks, absent))
    return torch.cat(correlations, -1)
