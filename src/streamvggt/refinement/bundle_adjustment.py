"""Refine predicted cameras by bundle adjustment of point tracks.

The predicted cameras are the initial values. They are returned unchanged if the tracks are insufficient.
S frames · K points. The center of the first pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streamvggt.extras import require
from streamvggt.geometry.camera import Cameras, invert_pose
from streamvggt.geometry.pointmap import project

pycolmap = require("pycolmap", "export")

ROUNDS = (60.0, 12.0, 4.0)
"""Maximum reprojection error per round, in pixels of an image 518 wide."""
LOSS_SCALE = 0.25
"""Scale of the Cauchy loss as a ratio of the maximum reprojection error."""
MIN_OBSERVATIONS = 20
"""Minimum number of observed points per frame, so that the frame is constrained."""
MIN_ANGLE = 1.0
"""Minimum angle between the rays of a point in degrees."""


class BundleAdjustmentError(Exception):
    """Raised if the tracks are insufficient or the result is not better. The message gives the reason."""


@dataclass(frozen=True)
class Tracks:
    """Image positions of scene points in several frames.

    Attributes:
        positions: (x, y) in pixels; undefined where not visible. (S, K, 2)
        seen: Visibility. (S, K) bool
    """

    positions: Tensor
    seen: Tensor


@dataclass(frozen=True)
class Refined:
    """Result of bundle adjustment.

    Attributes:
        cameras: Refined cameras with one focal length, float64. (S, 3, 4), (S, 3, 3)
        start_error, end_error: Median reprojection error in pixels before and after.
    """

    cameras: Cameras
    start_error: float
    end_error: float


def adjust(
    cameras: Cameras,
    tracks: Tracks,
    image_size: tuple[int, int],
    depth: Tensor | None = None,
    *,
    refine_focal: bool = True,
) -> Refined:
    """Run bundle adjustment with one shared focal length.

    Each point is initialized by triangulation, or by the depth maps if their reprojection error is lower. Points, poses
    and focal length are optimized in several rounds (robust loss, pycolmap). Outliers are removed between rounds.

    Args:
        cameras: Initial cameras. (S, 3, 4), (S, 3, 3)
        tracks: Observed points.
        image_size: Height and width in pixels.
        depth: Depth in the unit of the cameras, or None. (S, H, W)
        refine_focal: Optimize the focal length. False keeps the mean of the initial focal lengths.

    Returns:
        The refined cameras.

    Raises:
        BundleAdjustmentError: If the tracks are insufficient, or the initial cameras have a smaller error.
    """
    cameras = Cameras(cameras.cam_from_world.double(), cameras.intrinsics.double())
    positions, observed = tracks.positions.double().nan_to_num(0), tracks.seen.clone()
    height, width = image_size
    if not (cameras.cam_from_world.isfinite().all() and cameras.intrinsics.isfinite().all()):
        raise BundleAdjustmentError("the initial cameras are not finite")
    points = _initial_points(cameras, positions, observed, depth)
    focal = cameras.intrinsics.diagonal(dim1=-2, dim2=-1)[:, :2].mean().item()
    center = cameras.intrinsics[0, :2, 2]
    start_errors = None
    for limit in ROUNDS:
        error = _reprojection_error(cameras, points, positions)
        observed &= error < limit * width / 518
        observed &= (observed.sum(0) >= 2) & (_ray_angle(cameras, points, observed) > MIN_ANGLE)
        fewest = observed.sum(1).min().item()
        if fewest < MIN_OBSERVATIONS:
            raise BundleAdjustmentError(f"a frame has {fewest} inlier points, at least {MIN_OBSERVATIONS} are required")
        start_errors = error if start_errors is None else start_errors
        scale = LOSS_SCALE * limit * width / 518
        problem = cameras.cam_from_world, focal, center, points, positions, observed, image_size, scale, refine_focal
        poses, points, focal = _solve(*problem)
        intrinsics = torch.tensor([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], dtype=torch.float64)
        cameras = Cameras(poses, intrinsics.expand(len(poses), 3, 3))
    if not poses.isfinite().all() or not 0.1 < focal / max(height, width) < 20:
        raise BundleAdjustmentError(f"the optimized cameras are invalid (focal length {focal:.0f} pixels)")
    # Both errors are those of the same observations: the inliers of the last round.
    start_error = start_errors[observed].median().item()
    end_error = _reprojection_error(cameras, points, positions)[observed].median().item()
    if end_error > start_error:
        raise BundleAdjustmentError("the reprojection error increased")
    return Refined(cameras, start_error, end_error)


def _solve(
    poses: Tensor,
    focal: float,
    center: Tensor,
    points: Tensor,
    positions: Tensor,
    observed: Tensor,
    image_size: tuple[int, int],
    loss_scale: float,
    refine_focal: bool,
) -> tuple[Tensor, Tensor, float]:
    """Run one optimization: poses (S, 3, 4), points (K, 3; unobserved ones are unchanged) and focal length."""
    model = pycolmap.Reconstruction()
    # In COLMAP the corner of the image is (0, 0).
    params = [focal, *(center + 0.5).tolist()]
    height, width = image_size
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="SIMPLE_PINHOLE", width=width, height=height, params=params)
    )
    elements: list[list[pycolmap.TrackElement]] = [[] for _ in range(len(points))]
    for frame, pose in enumerate(poses):
        visible = observed[frame].nonzero()[:, 0].tolist()
        keypoints = (positions[frame, visible] + 0.5).numpy()
        image = pycolmap.Image(name=str(frame), keypoints=keypoints, camera_id=1, image_id=frame + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose.numpy()))
        for number, point in enumerate(visible):
            elements[point].append(pycolmap.TrackElement(frame + 1, number))
    ids = {
        point: model.add_point3D(points[point].numpy(), pycolmap.Track(track))
        for point, track in enumerate(elements)
        if track
    }
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = refine_focal
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = loss_scale
    config = pycolmap.BundleAdjustmentConfig()
    for id in model.images:
        config.add_image(id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, int(pycolmap.logging.Level.FATAL)
    try:
        pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    finally:
        pycolmap.logging.minloglevel = level
    points = points.clone()
    for point, id in ids.items():
        points[point] = torch.from_numpy(model.points3D[id].xyz)
    adjusted = np.stack([model.images[frame + 1].cam_from_world().matrix() for frame in range(len(poses))])
    return torch.from_numpy(adjusted), points, float(model.cameras[1].params[0])


def _initial_points(cameras: Cameras, positions: Tensor, observed: Tensor, depth: Tensor | None) -> Tensor:
    """Initialize the world points from cameras, tracks and depth. (K, 3)"""
    candidates = [triangulate(cameras, positions, observed)]
    if depth is not None:
        candidates.append(_depth_points(cameras, positions, observed, depth.double()))
    errors = []
    for points in candidates:
        error = _reprojection_error(cameras, points, positions).masked_fill(~observed, torch.nan)
        errors.append(error.nanmedian(0).values.nan_to_num(torch.inf))
    best = torch.stack(errors).argmin(0)  # (K,)
    return torch.stack(candidates)[best, torch.arange(len(best))]


def triangulate(cameras: Cameras, positions: Tensor, observed: Tensor) -> Tensor:
    """Triangulate points by linear least squares.

    Args:
        cameras: (S, 3, 4), (S, 3, 3)
        positions: (x, y) in pixels. (S, K, 2)
        observed: Visibility. (S, K) bool

    Returns:
        World points; non-finite for points with fewer than two rays. (K, 3)

    Reference: Hartley and Zisserman, Multiple View Geometry, Sec. 12.2.
    """
    rays = rays_in_camera(cameras, positions)  # (S, K, 3)
    pose = cameras.cam_from_world[:, None]  # (S, 1, 3, 4)
    rows = torch.stack([rays[..., i, None] * pose[..., 2, :] - pose[..., i, :] for i in range(2)], -2)  # (S, K, 2, 4)
    rows = rows * observed[..., None, None]
    _, _, axes = torch.linalg.svd(rows.transpose(0, 1).flatten(1, 2), full_matrices=False)  # (K, 4, 4) for S ≥ 2
    homogeneous = axes[:, -1]
    points = homogeneous[:, :3] / homogeneous[:, 3:]
    return points.masked_fill((observed.sum(0) < 2)[:, None], torch.nan)


def rays_in_camera(cameras: Cameras, positions: Tensor) -> Tensor:
    """Return ray directions of pixels with z = 1 in the camera frame. (S, K, 2) → (S, K, 3)"""
    focal = cameras.intrinsics.diagonal(dim1=-2, dim2=-1)[:, None, :2]
    flat = (positions - cameras.intrinsics[:, None, :2, 2]) / focal
    return torch.cat([flat, torch.ones_like(flat[..., :1])], -1)


def _depth_points(cameras: Cameras, positions: Tensor, observed: Tensor, depth: Tensor) -> Tensor:
    """Return the median over frames of each point's unprojected depth. (K, 3)"""
    height, width = depth.shape[-2:]
    nearest = positions.round().long()
    x, y = nearest[..., 0].clamp(0, width - 1), nearest[..., 1].clamp(0, height - 1)
    z = depth.flatten(1).gather(1, y * width + x)  # (S, K)
    world_from_cam = invert_pose(cameras.cam_from_world)[:, None]
    in_camera = rays_in_camera(cameras, positions) * z[..., None]
    points = (world_from_cam[..., :3] @ in_camera[..., None])[..., 0] + world_from_cam[..., 3]
    return points.masked_fill(~observed[..., None], torch.nan).nanmedian(0).values


def _reprojection_error(cameras: Cameras, points: Tensor, positions: Tensor) -> Tensor:
    """Return the reprojection error in pixels; infinite behind a camera. (S, K)"""
    pixels, depth = project(points.expand(len(positions), -1, -1), cameras)
    error = (pixels - positions).norm(dim=-1)
    return error.masked_fill(~(depth > 0), torch.inf).nan_to_num(torch.inf)


def _ray_angle(cameras: Cameras, points: Tensor, observed: Tensor) -> Tensor:
    """Return the maximum angle in degrees between two rays of a point. (K,)"""
    centers = invert_pose(cameras.cam_from_world)[:, None, :, 3]
    rays = torch.nn.functional.normalize(points - centers, dim=-1).nan_to_num(0)  # (S, K, 3)
    smallest = torch.ones_like(rays[0, :, 0])
    for frame in range(len(rays)):
        cosine = (rays[frame] * rays).sum(-1)  # (S, K)
        smallest = torch.minimum(smallest, cosine.masked_fill(~(observed[frame] & observed), 1).min(0).values)
    return torch.rad2deg(torch.arccos(smallest.clamp(-1, 1)))
