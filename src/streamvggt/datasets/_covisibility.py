"""Overlap of the frames of a scene, computed from depth and cameras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamvggt.datasets._files import FrameFiles

DEPTH_SIZE = 48, 64  # height and width of the compared depth maps
EVERY = 4  # pixel stride of the projected points
DEPTH_TOLERANCE = 0.1  # maximum relative difference of equal depths
MIN_OVERLAP = 0.2
MAX_NEIGHBORS = 100


@dataclass(frozen=True)
class LowResFrame:
    """Subsampled depth (h, w), intrinsics of this size in pixels (3, 3), and world-from-camera pose (4, 4)."""

    depth: np.ndarray
    intrinsics: np.ndarray
    world_from_cam: np.ndarray

    @classmethod
    def of(cls, depth: np.ndarray, intrinsics: np.ndarray, world_from_cam: np.ndarray) -> LowResFrame:
        """Subsample a depth map of any size (H, W), 0 where unknown, with intrinsics (3, 3) and pose (4, 4)."""
        size = np.array(DEPTH_SIZE)
        rows, columns = (
            ((np.arange(n) + 0.5) * full / n).astype(int) for n, full in zip(size, depth.shape, strict=True)
        )
        scale = size[::-1] / np.array(depth.shape[::-1])
        small = np.array(intrinsics, np.float64)
        small[:2] *= scale[:, None]
        small[:2, 2] += 0.5 * scale - 0.5  # pixel centers are whole numbers
        return cls(depth[np.ix_(rows, columns)].astype(np.float32), small, np.array(world_from_cam, np.float64))

    @classmethod
    def read(cls, files: FrameFiles, folder: Path, name: str) -> LowResFrame:
        """Read a frame and subsample it. Depth that is not finite or negative is unknown."""
        stored = files.read(folder, name)
        return cls.of(np.nan_to_num(stored.depth).clip(min=0), stored.intrinsics, stored.world_from_cam)


def overlaps(frames: Iterable[LowResFrame]) -> np.ndarray:
    """Return the fraction of the pixels of frame i that frame j observes at equal depth. (N, N) in [0, 1]"""
    frames = list(frames)
    depth = np.stack([frame.depth for frame in frames]).astype(np.float32)  # (N, h, w)
    K = np.stack([frame.intrinsics for frame in frames])
    world_from_cam = np.stack([frame.world_from_cam for frame in frames])
    pixels_from_world = (K @ np.linalg.inv(world_from_cam)[:, :3]).astype(np.float32).reshape(-1, 4)  # (3N, 4)
    height, width = depth.shape[1:]
    y, x = np.meshgrid(np.arange(EVERY // 2, height, EVERY), np.arange(EVERY // 2, width, EVERY), indexing="ij")
    first_pixel = np.arange(len(frames), dtype=np.int32)[:, None] * (height * width)

    shares = np.zeros((len(frames), len(frames)))
    for i in range(len(frames)):
        z = depth[i][y, x]
        seen = z > 0
        if not seen.any():
            continue
        rays = np.stack([(x - K[i, 0, 2]) / K[i, 0, 0], (y - K[i, 1, 2]) / K[i, 1, 1], np.ones_like(z)], -1)
        points = np.ones((seen.sum(), 4), np.float32)
        points[:, :3] = (rays * z[..., None])[seen] @ world_from_cam[i, :3, :3].T + world_from_cam[i, :3, 3]  # (G, 3)
        u, v, z = (pixels_from_world @ points.T).reshape(len(frames), 3, -1).transpose(1, 0, 2)  # (N, G) each
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = u / z + np.float32(0.5), v / z + np.float32(0.5)
        inside = (z > 0) & (u >= 0) & (v >= 0) & (u < width) & (v < height)
        u, v = (np.where(inside, a, 0).astype(np.int32) for a in (u, v))
        there = depth.ravel()[first_pixel + v * width + u]
        same = inside & (there > 0) & (np.abs(there - z) < DEPTH_TOLERANCE * z)
        shares[i] = same.mean(1)
    return shares


def covisible(frames: Iterable[LowResFrame]) -> dict[int, list[tuple[int, float]]]:
    """Return the overlapping frames of each frame, best first, with the overlap. Omits frames without any.

    The overlap of two frames is the smaller of both directions. A close-up and a view of the whole room therefore
    have a small overlap.
    """
    shares = overlaps(frames)
    both = np.minimum(shares, shares.T)
    np.fill_diagonal(both, 0)
    groups = {}
    for i, row in enumerate(both):
        best = np.argsort(-row, kind="stable")[:MAX_NEIGHBORS]
        neighbors = [(int(j), float(row[j])) for j in best if row[j] >= MIN_OVERLAP]
        if neighbors:
            groups[i] = neighbors
    return groups
