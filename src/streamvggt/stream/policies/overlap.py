"""Overlap of two frames according to the predicted depth and cameras.

B streams · H×W pixels · h×w pixels of the subsampled depth map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc
from streamvggt.geometry.pointmap import pixel_grid, project, unproject
from streamvggt.prediction import Prediction

STRIDE = 8  # pixels between samples
CELL = 4  # subsampled pixels; large enough to avoid holes in a surface that comes closer


def subsampled_points(result: Prediction) -> Tensor:
    """Return world points of every eighth pixel of a one-frame prediction. (B, h, w, 3)"""
    pose_enc = result.cam_from_world_enc[:, 0]
    exact = torch.promote_types(pose_enc.dtype, torch.float32)
    depth = result.depth[:, 0, ::STRIDE, ::STRIDE, 0].to(exact)
    return unproject(depth, _subsampled_cameras(pose_enc, result.image_size))


def mean_displacement(points: Tensor, own: Tensor, other: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Compute the mean distance between a frame's pixels and their projections into another frame.

    Args:
        points: World points of the frame from `subsampled_points`. (B, h, w, 3)
        own: Pose encodings of the frame. (B, 9)
        other: Pose encodings of the other frame. (B, 9)
        image_size: Height and width in pixels.

    Returns:
        Distance in pixels over the points visible in the other image; infinite if there are none. (B,)
    """
    grid = pixel_grid(*points.shape[1:3], like=points)  # (h, w, 2)
    pixels, is_inside = _project(points, other, image_size)
    distance = STRIDE * (pixels - grid.flatten(0, 1)).norm(dim=-1)  # (B, h·w)
    distance = torch.where(is_inside, distance, 0)
    count = is_inside.sum(-1)
    return torch.where(count > 0, distance.sum(-1) / count.clamp(min=1), torch.inf)


def coverage(points: Tensor, other: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Compute the ratio of another frame's image that a frame's points cover.

    Args:
        points: World points of the frame from `subsampled_points`. (B, h, w, 3)
        other: Pose encodings of the other frame. (B, 9)
        image_size: Height and width in pixels.

    Returns:
        Ratio of image cells, 32 pixels wide, that contain a point, in [0, 1]. (B,)
    """
    height, width = (-(-side // CELL) for side in points.shape[1:3])
    pixels, is_inside = _project(points, other, image_size)
    column, row = ((pixels + 0.5) / CELL).long().unbind(-1)
    nowhere = height * width
    cell = torch.where(is_inside, row * width + column, nowhere)
    return points.new_zeros(len(points), nowhere + 1).scatter(1, cell, 1)[:, :nowhere].mean(1)


def _project(points: Tensor, pose_enc: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return subsampled pixels of points, (B, h·w, 2), and whether they are inside the image, (B, h·w)."""
    height, width = points.shape[1:3]
    pixels, depth = project(points.flatten(1, 2), _subsampled_cameras(pose_enc, image_size))
    x, y = pixels.unbind(-1)
    is_inside = (depth > 0) & (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    return pixels, is_inside


def _subsampled_cameras(pose_enc: Tensor, image_size: tuple[int, int]) -> Cameras:
    """Return the cameras of the subsampled image."""
    cameras = cameras_from_pose_enc(pose_enc, image_size)
    intrinsics = torch.cat([cameras.intrinsics[..., :2, :] / STRIDE, cameras.intrinsics[..., 2:, :]], -2)
    return Cameras(cameras.cam_from_world, intrinsics)
