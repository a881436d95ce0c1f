"""How far a reconstruction is from the true surfaces: accuracy, completion, normal consistency.

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
class NormalisedPointMaps:
    """Point maps in one frame and of one size.

    true, estimated: (S, H, W, 3)
    true_shift, estimated_shift: what was subtracted from z.
    true_scale, estimated_scale: by their ratio the estimate was multiplied.
    """

    true: Tensor
    estimated: Tensor
    true_shift: float
    estimated_shift: float
    true_scale: float
    estimated_scale: float


def normalise_point_maps(true: Tensor, estimated: Tensor, valid: Tensor, cam_from_world: Tensor) -> NormalisedPointMaps:
    """Bring an estimate to the true scale and depth, as the published protocol does before it compares.

    True points go to the first camera. Over all valid pixels together the median z is subtracted (each cloud its own;
    the lower one of two middle values), and the estimate is scaled by the ratio of the clouds' sizes: median distances
    from the median point. Neither rotation nor a shift in x and y is taken out.

    Args:
        true: world points. (S, H, W, 3)
        estimated: in the first camera's axes, of any scale. (S, H, W, 3)
        valid: (S, H, W) bool
        cam_from_world: of the first frame. (3, 4)

    Raises:
        ValueError: no pixel is valid.
    """
    if not valid.any():
        raise ValueError("normalise_point_maps: no pixel of any frame has a true depth")
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
    return NormalisedPointMaps(shifted[0], shifted[1] * (scales[0] / scales[1]), *shifts, *scales)


@dataclass(frozen=True)
class ReconstructionScore:
    """Of one scene, in metres and cosines; means, then medians.

    acc, acc_med: distance of estimated points from the nearest true ones.
    comp, comp_med: distance of true points from the nearest estimated ones.
    nc1, nc1_med: |cosine| between the normals of estimated points and of their nearest true ones.
    nc2, nc2_med: the same of true points.
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
        """Back from `numbers()`."""
        return cls(**{field.name: numbers[field.name] for field in fields(cls)})

    @property
    def nc(self) -> float:
        return (self.nc1 + self.nc2) / 2

    @property
    def nc_med(self) -> float:
        return (self.nc1_med + self.nc2_med) / 2

    def numbers(self) -> dict[str, float]:
        """All ten by name, in the published order."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "nc": self.nc,
            "nc_med": self.nc_med,
        }


def compare_clouds(
    estimated: np.ndarray, true: np.ndarray, estimated_normals: np.ndarray, gt_normals: np.ndarray
) -> ReconstructionScore:
    """The score of a cloud against the true one.

    Args:
        estimated, estimated_normals: (N, 3)
        true, gt_normals: (M, 3)

    Raises:
        ValueError: one of the clouds is empty.
    """
    if not len(estimated) or not len(true):
        raise ValueError(f"compare_clouds: {len(estimated)} estimated and {len(true)} true points; neither may be none")
    distance, consistency = nearest_indices(estimated, true, estimated_normals, gt_normals)
    distance_back, consistency_back = nearest_indices(true, estimated, gt_normals, estimated_normals)
    each = (distance, distance_back, consistency, consistency_back)
    return ReconstructionScore(
        *(np.mean(values).item() for values in each), *(np.median(values).item() for values in each)
    )


def nearest_indices(
    points: np.ndarray, others: np.ndarray, normals: np.ndarray, other_normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance from each point to the nearest of the others, and |cosine| between their normals. (N,) each"""
    distance, index = KDTree(others).query(points, workers=WORKERS)
    return distance, np.abs((normals * other_normals[index]).sum(-1))


def completion_ratio(estimated: np.ndarray, true: np.ndarray, distance: float) -> float:
    """Share of true points (M, 3) with an estimated point (N, 3) nearer than `distance`."""
    found, _ = KDTree(estimated).query(true, workers=WORKERS)
    return (found < distance).mean().item()


def mean_score(scores: Sequence[ReconstructionScore]) -> dict[str, float]:
    """The unweighted mean over scenes, by name in the published order."""
    return {name: float(np.mean([score.numbers()[name] for score in scores])) for name in scores[0].numbers()}


def scene_line(scene: str, score: ReconstructionScore) -> str:
    """One scene's line of the published log."""
    s = score
    return (
        f"Idx: {scene}, Acc: {s.acc}, Comp: {s.comp}, NC1: {s.nc1}, NC2: {s.nc2} - "
        f"Acc_med: {s.acc_med}, Compc_med: {s.comp_med}, NC1c_med: {s.nc1_med}, NC2c_med: {s.nc2_med}"
    )


def mean_line(means: dict[str, float]) -> str:
    """The last line of the published log."""
    return f"{'mean':<20}: " + "".join(f"{name}: {value:.3f} | " for name, value in means.items())
