"""Point cloud normals and rigid registration.

The k-d trees are SciPy's and use all processors. Open3D, used for the published results, has equivalent functions but
requires 105 MB and fifty packages. `tests/evaluation/test_recon_metrics.py` compares the results with Open3D's.

N, M points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree

from streamvggt.geometry.alignment import align_points

WORKERS = -1
"""Threads of a k-d tree query: all processors."""
NORMALS_CHUNK = 1 << 16
"""Number of neighborhoods per chunk."""


@dataclass(frozen=True)
class Registration:
    """Result of the iterative closest point algorithm.

    Attributes:
        transformation: Target-from-source rigid motion. (4, 4) float64
        fitness: Ratio of source points with a target point within the maximum distance.
        inlier_rmse: Root mean square distance of these points.
    """

    transformation: np.ndarray
    fitness: float
    inlier_rmse: float

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Transform points. (N, 3) → (N, 3)"""
        return points @ self.transformation[:3, :3].T + self.transformation[:3, 3]


def icp(
    source: np.ndarray,
    target: np.ndarray,
    max_distance: float,
    *,
    max_iterations: int = 30,
    relative_change: float = 1e-6,
) -> Registration:
    """Register two clouds with point-to-point iterative closest points, starting at the identity.

    Args:
        source: Points to move. (N, 3)
        target: (M, 3)
        max_distance: Maximum distance of a correspondence.
        max_iterations: Maximum number of iterations.
        relative_change: Stop if fitness and inlier_rmse change less than this. The defaults are Open3D's.

    Returns:
        The motion; the identity if there is no correspondence.

    Reference: Besl and McKay, A Method for Registration of 3-D Shapes, 1992.
    """
    tree = KDTree(target)
    moved = source.astype(np.float64)
    motion = np.eye(4)
    index, fitness, rmse = _pairs(tree, moved, max_distance)
    for _ in range(max_iterations):
        near = index < len(target)
        if not near.any():
            break
        step = align_points(
            torch.from_numpy(moved[near]), torch.from_numpy(target[index[near]]).double(), with_scale=False
        )
        rotation, translation = step.rotation.numpy(), step.translation.numpy()
        moved = moved @ rotation.T + translation
        motion = np.block([[rotation, translation[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]) @ motion
        before = fitness, rmse
        index, fitness, rmse = _pairs(tree, moved, max_distance)
        if abs(fitness - before[0]) < relative_change and abs(rmse - before[1]) < relative_change:
            break
    return Registration(motion, fitness, rmse)


def _pairs(tree: KDTree, points: np.ndarray, max_distance: float) -> tuple[np.ndarray, float, float]:
    """Return nearest target points (`tree.n` if none is within the distance), fitness and RMS distance."""
    distance, index = tree.query(points, distance_upper_bound=max_distance, workers=WORKERS)
    near = index < tree.n
    if not near.any():
        return index, 0.0, 0.0
    return index, near.mean().item(), np.sqrt(np.square(distance[near]).mean()).item()


def estimate_normals(points: np.ndarray, num_neighbors: int = 30) -> np.ndarray:
    """Estimate normals as the direction of least variance of the nearest points. The sign is arbitrary.

    Args:
        points: (N, 3)
        num_neighbors: Number of nearest points, including the point.

    Returns:
        Unit vectors; (0, 0, 1) for fewer than three points. (N, 3) float64
    """
    if len(points) < 3:
        return np.tile([0.0, 0.0, 1.0], (len(points), 1))
    tree = KDTree(points)
    neighbors = min(num_neighbors, len(points))
    normals = []
    for start in range(0, len(points), NORMALS_CHUNK):
        _, index = tree.query(points[start : start + NORMALS_CHUNK], k=neighbors, workers=WORKERS)
        near = points[index].astype(np.float64)  # (n, k, 3)
        near -= near.mean(1, keepdims=True)
        _, axes = np.linalg.eigh(near.transpose(0, 2, 1) @ near)
        normals.append(axes[..., 0])  # eigenvalues are ascending
    return np.concatenate(normals)
