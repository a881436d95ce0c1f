"""Reconstruction metrics: accuracy, completion, normal consistency.

S frames · H×W pixels · N, M points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from streamvggt.evaluation.point_clouds import WORKERS


@dataclass(frozen=True)
class NormalizedPointMaps:
    """Point maps in one frame and scale.

    Attributes:
        true: Ground-truth points. (S, H, W, 3)
        estimated: Predicted points. (S, H, W, 3)
        true_shift: Shift that was subtracted from the z of the ground truth.
        estimated_shift: Shift that was subtracted from the z of the prediction.
        true_scale: Scale of the ground truth. The prediction was multiplied by true_scale / estimated_scale.
        estimated_scale: Scale of the prediction.
    """

    true: Tensor
    estimated: Tensor
    true_shift: float
    estimated_shift: float
    true_scale: float
    estimated_scale: float


def normalize_point_maps(true: Tensor, estimated: Tensor, valid: Tensor, cam_from_world: Tensor) -> NormalizedPointMaps:
    """Normalize scale and depth of a prediction to the ground truth, as in the reference implementation.

    The ground truth is transformed to the first camera. The median z over all valid pixels is subtracted from each
    cloud (the lower of two middle values). The prediction is scaled by the ratio of the cloud sizes, the median
    distances from the median point. Rotation and x and y shift are not aligned.

    Args:
        true: World points of the ground truth. (S, H, W, 3)
        estimated: Predicted points in the first camera frame, any scale. (S, H, W, 3)
        valid: (S, H, W) bool
        cam_from_world: Pose of the first frame. (3, 4)

    Raises:
        ValueError: If no pixel is valid.
    """
    if not valid.any():
        raise ValueError("normalize_point_maps: no pixel of any frame has a ground-truth depth")
    true = true @ cam_from_world[:, :3].mT + cam_from_world[:, 3]
    shifted, shifts, scales = [], [], []
    for points in (true, estimated):
        shift = points[valid][:, 2].median()
        points = torch.cat([points[..., :2], points[..., 2:] - shift], -1)
        inside = points[valid]
        shifted.append(points)
        shifts.append(shift.item())
        scales.append((inside - inside.median(0).values).norm(dim=-1).median().item())
    scales[1] = min(max(scales[1], 1e-3), 1e3)
    return NormalizedPointMaps(shifted[0], shifted[1] * (scales[0] / scales[1]), *shifts, *scales)


@dataclass(frozen=True)
class ReconstructionScore:
    """Scores of one scene in meters and cosines, as means and medians.

    Attributes:
        acc: Mean distance of predicted points to the nearest ground-truth point.
        acc_med: Median of the same distances.
        comp: Mean distance of ground-truth points to the nearest predicted point.
        comp_med: Median of the same distances.
        nc1: Mean |cosine| between the normals of predicted points and their nearest ground-truth points.
        nc1_med: Median of the same values.
        nc2: Mean |cosine| between the normals of ground-truth points and their nearest predicted points.
        nc2_med: Median of the same values.
    """

    acc: float
    comp: float
    nc1: float
    nc2: float
    acc_med: float
    comp_med: float
    nc1_med: float
    nc2_med: float

    @classmethod
    def of(cls, numbers: Mapping[str, float]) -> ReconstructionScore:
        """Create a score from the output of `numbers()`."""
        return cls(**{field.name: numbers[field.name] for field in fields(cls)})

    @property
    def nc(self) -> float:
        return (self.nc1 + self.nc2) / 2

    @property
    def nc_med(self) -> float:
        return (self.nc1_med + self.nc2_med) / 2

    def numbers(self) -> dict[str, float]:
        """Return all ten scores by name, in the order of the reference implementation."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "nc": self.nc,
            "nc_med": self.nc_med,
        }


def compare_clouds(
    estimated: np.ndarray, true: np.ndarray, estimated_normals: np.ndarray, gt_normals: np.ndarray
) -> ReconstructionScore:
    """Score a predicted cloud against the ground truth.

    Args:
        estimated: Predicted points. (N, 3)
        true: Ground-truth points. (M, 3)
        estimated_normals: (N, 3)
        gt_normals: (M, 3)

    Raises:
        ValueError: If a cloud is empty.
    """
    if not len(estimated) or not len(true):
        raise ValueError(f"compare_clouds: expected points in both clouds, got {len(estimated)} and {len(true)}.")
    distance, consistency = nearest_indices(estimated, true, estimated_normals, gt_normals)
    distance_back, consistency_back = nearest_indices(true, estimated, gt_normals, estimated_normals)
    each = (distance, distance_back, consistency, consistency_back)
    return ReconstructionScore(
        *(np.mean(values).item() for values in each), *(np.median(values).item() for values in each)
    )


def nearest_indices(
    points: np.ndarray, others: np.ndarray, normals: np.ndarray, other_normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance of each point to the nearest of the others, and |cosine| of their normals. (N,) each"""
    distance, index = KDTree(others).query(points, workers=WORKERS)
    return distance, np.abs((normals * other_normals[index]).sum(-1))


def completion_ratio(estimated: np.ndarray, true: np.ndarray, distance: float) -> float:
    """Return the ratio of ground-truth points (M, 3) with a predicted point (N, 3) closer than `distance`."""
    found, _ = KDTree(estimated).query(true, workers=WORKERS)
    return (found < distance).mean().item()


def mean_score(scores: Sequence[ReconstructionScore]) -> dict[str, float]:
    """Return the unweighted mean over scenes by name, in the order of the reference implementation."""
    return {name: float(np.mean([score.numbers()[name] for score in scores])) for name in scores[0].numbers()}


def scene_line(scene: str, score: ReconstructionScore) -> str:
    """Return the log line of a scene in the format of the reference implementation."""
    s = score
    return (
        f"Idx: {scene}, Acc: {s.acc}, Comp: {s.comp}, NC1: {s.nc1}, NC2: {s.nc2} - "
        f"Acc_med: {s.acc_med}, Compc_med: {s.comp_med}, NC1c_med: {s.nc1_med}, NC2c_med: {s.nc2_med}"
    )


def mean_line(means: dict[str, float]) -> str:
    """Return the last log line in the format of the reference implementation."""
    return f"{'mean':<20}: " + "".join(f"{name}: {value:.3f} | " for name, value in means.items())
