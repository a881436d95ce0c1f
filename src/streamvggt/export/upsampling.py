"""Upsample depth maps to the size of the original images along the edges of the images.

Each pixel of the original takes the neighbor among the 3×3 nearest depth pixels that is closest in position and color,
and averages it with the neighbors on the same surface. Foreground and background are never mixed, unlike in bilinear
upsampling. H×W: depth map. H0×W0: original.

Reference: the weights are those of joint bilateral upsampling, Kopf et al., SIGGRAPH 2007.
"""

from __future__ import annotations

from itertools import product

import numpy as np

SIGMA_POSITION = 0.7
"""Standard deviation of the position weight in pixels of the depth map."""
SIGMA_COLOR = 16.0
"""Standard deviation of the color weight, in levels of 255 per channel."""
SAME_SURFACE = 0.03
"""Maximum relative depth difference of neighbors that are averaged."""
CHUNK = 64  # rows of the original


def upsample_depth(
    depth: np.ndarray, usable: np.ndarray, image: np.ndarray, original: np.ndarray, original_from_image: np.ndarray
) -> np.ndarray:
    """Return the depth of the original image.

    Args:
        depth: Depth map. (H, W)
        usable: Where depth is known. Bool. (H, W)
        image: RGB, uint8, with the pixels of `depth`. (H, W, 3)
        original: RGB, uint8. (H0, W0, 3)
        original_from_image: Map from pixels of `depth` to pixels of the original. (3, 3)

    Returns:
        Depth, float32, 0 where it is unknown, for example outside the processed image. (H0, W0)
    """
    y, x = depth_positions(original.shape[:2], original_from_image)
    result = np.empty(original.shape[:2], np.float32)
    for top in range(0, len(y), CHUNK):
        rows = slice(top, top + CHUNK)
        result[rows] = _upsample_rows(depth, usable, image, original[rows], x, y[rows])
    return result


def nearest_pixels(
    original_size: tuple[int, int], size: tuple[int, int], original_from_image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of the depth map nearest to each row and column of the original. (H0,), (W0,)"""
    y, x = depth_positions(original_size, original_from_image)
    return np.rint(y).astype(int).clip(0, size[0] - 1), np.rint(x).astype(int).clip(0, size[1] - 1)


def depth_positions(original_size: tuple[int, int], original_from_image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return y of each row and x of each column of the original, in pixels of the depth map. (H0,), (W0,)"""
    x, y = (
        (np.arange(original_size[1 - axis]) - original_from_image[axis, 2]) / original_from_image[axis, axis]
        for axis in (0, 1)
    )
    return y, x


def _upsample_rows(
    depth: np.ndarray, usable: np.ndarray, image: np.ndarray, original: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Return the depth of some rows of the original, whose pixels are at `x` (W0,) and `y` (rows,). (rows, W0)"""
    bottom, right = depth.shape[0] - 1, depth.shape[1] - 1
    rows, columns = np.rint(y).astype(int), np.rint(x).astype(int)
    guide = original.astype(np.float32)
    depths, weights = [], []
    for dy, dx in product((-1, 0, 1), repeat=2):
        r, c = (rows + dy).clip(0, bottom), (columns + dx).clip(0, right)
        index = np.ix_(r, c)
        distance = ((r - y) ** 2)[:, None] + (c - x) ** 2
        color = ((guide - image[index]) ** 2).mean(-1)
        weight = np.exp(-distance / (2 * SIGMA_POSITION**2) - color / (2 * SIGMA_COLOR**2)) + 1e-30
        depths.append(np.where(usable[index], depth[index], 0))
        weights.append(np.where(usable[index], weight, 0))
    depths, weights = np.stack(depths), np.stack(weights)  # (9, rows, W0)
    best = np.take_along_axis(depths, weights.argmax(0)[None], 0)
    weights *= np.abs(depths - best) <= SAME_SURFACE * best
    mean = (weights * depths).sum(0) / np.maximum(weights.sum(0), 1e-30)
    is_inside = ((rows == rows.clip(0, bottom))[:, None]) & (columns == columns.clip(0, right))
    nearest = np.ix_(rows.clip(0, bottom), columns.clip(0, right))
    return np.where(is_inside & usable[nearest], mean, 0)
