"""Alignment of consecutive submaps by the points of their common frames.

F common frames · N points of all common frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from streamvggt.geometry.alignment import align_points_robust, weighted_median
from streamvggt.geometry.similarity import Sim3, so3_log
from streamvggt.stream.submaps.observation import FrameObservation

MAX_POINTS = 4_000
"""Maximum number of points per alignment. More points cost time and do not improve the result."""
RELATIVE_TOLERANCE = 0.1
"""Inlier threshold: error of a point as a fraction of its depth."""
MIN_POINTS = 10
MIN_EXTENT_RATIO = 1e-3
"""Minimum ratio of the second to the first principal extent. Points on a line do not constrain the rotation."""


@dataclass(frozen=True)
class SubmapAlignment:
    """Pose and scale of a new submap in the world of the submap before, and the quality of their agreement.

    Attributes:
        old_from_new: Similarity between the worlds, float64, on the CPU.
        method: "points", or "pose" if there are too few points. "pose" aligns the cameras of the last common frame.
        inlier_ratio: Weighted ratio of points with an error below `RELATIVE_TOLERANCE`. None for "pose".
        residual: Weighted median point error after alignment, as a fraction of depth. None for "pose".
        rotation_error_deg: Median angle between the two cameras of a common frame after alignment.
        scale_spread: Largest ratio between the depth scales of two common frames; 1 if all are equal.
    """

    old_from_new: Sim3
    method: Literal["points", "pose"]
    inlier_ratio: float | None
    residual: float | None
    rotation_error_deg: float
    scale_spread: float


def align_submaps(new: Sequence[FrameObservation], old: Sequence[FrameObservation]) -> SubmapAlignment:
    """Align two submaps with a robust similarity of their common points.

    Args:
        new: Common frames in the world of the new submap, with finite poses. F ≥ 1
        old: The same frames in the world of the old submap. F
    """
    new, old = list(new), list(old)
    source, target = (torch.cat([frame.points for frame in frames]).double() for frames in (new, old))
    new_depth, old_depth = (torch.cat([frame.depth for frame in frames]).double() for frames in (new, old))
    new_conf, old_conf = (torch.cat([frame.conf for frame in frames]).double() for frames in (new, old))
    # A confidence of c stands for an error of scale 1/c. The variances of both submaps add up.
    weight = 1 / (new_conf**-2 + old_conf**-2)
    usable = source.isfinite().all(-1) & target.isfinite().all(-1) & weight.isfinite()
    usable &= (new_depth > 0) & (old_depth > 0)

    inlier_ratio = residual = None
    if usable.sum() >= MIN_POINTS and _constrains_rotation(source[usable]) and _constrains_rotation(target[usable]):
        tolerance = RELATIVE_TOLERANCE * old_depth[usable]
        found = align_points_robust(source[usable], target[usable], weight[usable], tolerance)
        inlier_ratio = (weight[usable][found.error < 1].sum() / weight[usable].sum()).item()
        residual = RELATIVE_TOLERANCE * weighted_median(found.error, weight[usable]).item()
        old_from_new = found.similarity
    else:
        old_from_new = align_by_pose(new, old)
    new_poses, old_poses = (torch.stack([frame.cam_from_world for frame in frames]) for frames in (new, old))
    difference = old_from_new.transform_poses(new_poses)[..., :3] @ old_poses[..., :3].mT
    scales = _depth_scale_ratios(new, old)
    return SubmapAlignment(
        old_from_new,
        method="pose" if residual is None else "points",
        inlier_ratio=inlier_ratio,
        residual=residual,
        rotation_error_deg=torch.rad2deg(so3_log(difference).norm(dim=-1).median()).item(),
        scale_spread=max(scales) / min(scales) if scales else 1.0,
    )


def align_by_pose(new: Sequence[FrameObservation], old: Sequence[FrameObservation]) -> Sim3:
    """Align the cameras of the last common frame.

    The scale is the depth ratio of that frame. Without depth it is the ratio of the camera path lengths, else 1.

    Returns:
        old_from_new, float64.
    """
    ratios = _depth_scale_ratios([new[-1]], [old[-1]])
    lengths = [
        torch.stack([frame.center for frame in frames]).diff(dim=0).norm(dim=-1).sum().item() for frames in (new, old)
    ]
    scale = 1.0
    if ratios:
        scale = ratios[0]
    elif min(lengths) > 1e-6 * max(lengths) > 0:
        scale = lengths[1] / lengths[0]
    rotation = old[-1].cam_from_world[:, :3].mT @ new[-1].cam_from_world[:, :3]
    scale = torch.tensor(scale, dtype=torch.float64)
    return Sim3(scale, rotation, old[-1].center - scale * rotation @ new[-1].center)


def _constrains_rotation(points: Tensor) -> bool:
    """Whether the points (N, 3) are not all on one line."""
    extent = torch.linalg.svdvals((points - points.mean(0)) / len(points) ** 0.5)
    return extent[0].item() > 0 and extent[1].item() > MIN_EXTENT_RATIO * extent[0].item()


def _depth_scale_ratios(new: Sequence[FrameObservation], old: Sequence[FrameObservation]) -> list[float]:
    """Return the median depth ratio old / new of every frame with enough points."""
    ratios = []
    for new_frame, old_frame in zip(new, old, strict=True):
        usable = new_frame.depth.isfinite() & old_frame.depth.isfinite() & (new_frame.depth > 0) & (old_frame.depth > 0)
        if usable.sum() >= MIN_POINTS:
            ratios.append((old_frame.depth[usable] / new_frame.depth[usable]).double().median().item())
    return ratios
