"""How much of one frame another frame sees, by the network's own depth and cameras.

B streams · H×W pixels · h×w pixels of the thinned depth map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc
from streamvggt.geometry.pointmap import pixel_grid, project, unproject
from streamvggt.prediction import Prediction

STRIDE = 8  # pixels; every eighth column and row tells enough
CELL = 4  # thinned pixels; points of a surface that has come closer must not leave holes in what it covers


def subsampled_points(result: Prediction) -> Tensor:
    """World points of every eighth pixel of a one-frame prediction. (B, h, w, 3)"""
    pose_enc = result.cam_from_world_enc[:, 0]
    exact = torch.promote_types(pose_enc.dtype, torch.float32)
    depth = result.depth[:, 0, ::STRIDE, ::STRIDE, 0].to(exact)
    return unproject(depth, _subsampled_cameras(pose_enc, result.image_size))


def mean_displacement(points: Tensor, own: Tensor, other: Tensor, image_size: tuple[int, int]) -> Tensor:
    """How far a frame's points are, on average, from their own pixels in another frame's image.

    Args:
        points: what `subsampled_points` says of the frame. (B, h, w, 3)
        own, other: pose encodings of the frame and of the other one. (B, 9)

    Returns:
        In pixels, over the points that the other image has; infinite where it has none. (B,)
    """
    grid = pixel_grid(*points.shape[1:3], like=points)  # (h, w, 2)
    seen, is_inside = _project(points, other, image_size)
    distance = STRIDE * (seen - grid.flatten(0, 1)).norm(dim=-1)  # (B, h·w)
    distance = torch.where(is_inside, distance, 0)
    count = is_inside.sum(-1)
    return torch.where(count > 0, distance.sum(-1) / count.clamp(min=1), torch.inf)


def coverage(points: Tensor, other: Tensor, image_size: tuple[int, int]) -> Tensor:
    """How much of another frame's image a frame's points cover.

    Args:
        points: what `subsampled_points` says of the frame. (B, h, w, 3)
        other: pose encoding of the other frame. (B, 9)

    Returns:
        Part of the image's cells, 32 pixels wide, that have any of the points. (B,)
    """
    height, width = (-(-side // CELL) for side in points.shape[1:3])
    seen, is_inside = _project(points, other, image_size)
    column, row = ((seen + 0.5) / CELL).long().unbind(-1)
    nowhere = height * width
    cell = torch.where(is_inside, row * width + column, nowhere)
    return points.new_zeros(len(points), nowhere + 1).scatter(1, cell, 1)[:, :nowhere].mean(1)


def _project(points: Tensor, pose_enc: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Thinned pixels of points, (B, h·w, 2), and which of them are in the image, (B, h·w)."""
    height, width = points.shape[1:3]
    seen, depth = project(points.flatten(1, 2), _subsampled_cameras(pose_enc, image_size))
    x, y = seen.unbind(-1)
    is_inside = (depth > 0) & (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    return seen, is_inside


def _subsampled_cameras(pose_enc: Tensor, image_size: tuple[int, int]) -> Cameras:
    """Cameras whose pixels are every eighth of the image's."""
    cameras = cameras_from_pose_enc(pose_enc, image_size)
    intrinsics = torch.cat([cameras.intrinsics[..., :2, :] / STRIDE, cameras.intrinsics[..., 2:, :]], -2)
    return Cameras(cameras.cam_from_world, intrinsics)
