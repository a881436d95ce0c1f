"""Point clouds of the reconstruction protocol: predicted and ground-truth points of the same views.

S frames · H×W pixels · N, M points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor

from streamvggt.data.view import View
from streamvggt.evaluation.jobs import save_arrays
from streamvggt.evaluation.recon_metrics import nearest_indices, normalize_point_maps
from streamvggt.evaluation.recon_views import center_crop_slices
from streamvggt.files import atomic_write
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import cameras_from_pose_enc
from streamvggt.geometry.pointmap import unproject

MAX_PLOT_POINTS = 20_000
"""Number of sampled points per cloud for figures."""


@dataclass(frozen=True)
class Clouds:
    """Predicted (N, 3) and ground-truth (M, 3) points with colors, uint8."""

    estimated: np.ndarray
    true: np.ndarray
    estimated_colors: np.ndarray
    gt_colors: np.ndarray


def evaluation_clouds(
    views: Sequence[View], prediction: dict[str, np.ndarray], use_proj: bool, conf_thresh: float
) -> Clouds:
    """Return the points in the central crop of all views with valid ground truth. Predictions are scaled to it.

    Points of the point head are normalized as in `normalize_point_maps`. Unprojected depth is aligned by the
    least-squares similarity of corresponding pixels.

    Args:
        views: Views with ground truth.
        prediction: `points` and `points_conf`, or `depth`, `depth_conf` and `pose_enc`.
        use_proj: Use unprojected depth.
        conf_thresh: Minimum confidence.

    Raises:
        ValueError: If no point is left.
    """
    true = torch.stack([view.points() for view in views])
    valid = torch.stack([view.valid for view in views])
    if use_proj:
        depth = torch.from_numpy(prediction["depth"][..., 0])
        estimated = unproject(
            depth, cameras_from_pose_enc(torch.from_numpy(prediction["pose_enc"]), tuple(depth.shape[-2:]))
        )
        confidence = torch.from_numpy(prediction["depth_conf"])
    else:
        estimated, confidence = torch.from_numpy(prediction["points"]), torch.from_numpy(prediction["points_conf"])
    # The reference code filters coordinates separately and shifts all points after a non-finite coordinate.
    valid &= estimated.isfinite().all(-1)
    if not use_proj:
        maps = normalize_point_maps(true, estimated, valid, views[0].cam_from_world)
        true, estimated = maps.true, maps.estimated
    rows, columns = center_crop_slices(tuple(valid.shape[:0:-1]))
    valid, confidence, true, estimated = (x[:, rows, columns] for x in (valid, confidence, true, estimated))
    colors = torch.from_numpy(prediction["images"])[:, rows, columns]
    sure = valid & (confidence >= conf_thresh)
    if not sure.any():
        raise ValueError("no pixel in the middle of the views has a ground-truth depth and enough confidence")
    if use_proj:
        estimated = align_points(estimated[sure].double(), true[sure].double()).apply(estimated.double())
    return Clouds(*(_array(x) for x in (estimated[sure], true[valid], colors[sure], colors[valid])))


def save_clouds(clouds: Clouds, moved: np.ndarray, get_path: Callable[[str], Path]) -> None:
    """Write the clouds as PLY, and a sample of the points with distances for figures.

    Args:
        clouds: The clouds.
        moved: Predicted points after registration. (N, 3)
        get_path: Function from the end of a file name to its path.
    """
    for name, points, colors in (
        ("-gt.ply", clouds.true, clouds.gt_colors),
        ("-mask.ply", clouds.estimated, clouds.estimated_colors),
        ("-mask_align.ply", moved, clouds.estimated_colors),
    ):
        with atomic_write(get_path(name)) as path:
            trimesh.PointCloud(points, colors).export(path)
    random = np.random.default_rng(0)
    shown, true_shown = (random.permutation(len(points))[:MAX_PLOT_POINTS] for points in (moved, clouds.true))
    distance, _ = nearest_indices(moved[shown], clouds.true, moved[shown], clouds.true)
    gt_distance, _ = nearest_indices(clouds.true[true_shown], moved, clouds.true[true_shown], moved)
    save_arrays(
        get_path("-errors.npz"),
        points=moved[shown].astype(np.float32),
        colours=clouds.estimated_colors[shown],
        distance=distance.astype(np.float32),
        gt_points=clouds.true[true_shown].astype(np.float32),
        gt_colors=clouds.gt_colors[true_shown],
        gt_distance=gt_distance.astype(np.float32),
    )


def _array(values: Tensor) -> np.ndarray:
    return values.numpy() if values.dtype == torch.uint8 else values.double().numpy()
