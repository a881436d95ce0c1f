"""Conversion between depth maps, point maps and pixels. Conventions: docs/conventions.md."""

import torch
from torch import Tensor

from streamvggt.geometry.camera import Cameras


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Return the coordinates (x, y) of all pixels, with the dtype and device of `like`. (H, W, 2)"""
    y = torch.arange(height, dtype=like.dtype, device=like.device)
    x = torch.arange(width, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def unproject(depth: Tensor, cameras: Cameras) -> Tensor:
    """Unproject depth maps to world points.

    Args:
        depth: Distance along the optical axis in scene units. (..., H, W)
        cameras: Cameras with leading dimensions (...).

    Returns:
        Points in world coordinates, in the unit of `depth`. (..., H, W, 3)

    Raises:
        ValueError: If the leading dimensions differ.
    """
    if depth.shape[:-2] != cameras.intrinsics.shape[:-2]:
        raise ValueError(
            f"unproject: depth has leading dimensions {tuple(depth.shape[:-2])}, "
            f"the cameras have {tuple(cameras.intrinsics.shape[:-2])}; they must be the same"
        )
    height, width = depth.shape[-2:]
    K = cameras.intrinsics[..., None]
    x = (torch.arange(width, dtype=depth.dtype, device=depth.device) - K[..., 0, 2, :]) / K[..., 0, 0, :]  # (..., W)
    y = (torch.arange(height, dtype=depth.dtype, device=depth.device) - K[..., 1, 2, :]) / K[..., 1, 1, :]  # (..., H)
    right, down, forward, center = cameras.world_from_cam[..., None, :, :].unbind(-1)  # (..., 1, 3) each
    # A ray is the sum of a column part and a row part, which needs few operations on full maps.
    of_columns = x[..., None] * right  # (..., W, 3)
    of_rows = y[..., None] * down + forward  # (..., H, 3)
    rays = of_columns[..., None, :, :] + of_rows[..., :, None, :]  # (..., H, W, 3)
    return torch.addcmul(center[..., None, :, :], depth[..., None], rays)


def project(points: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Project world points to pixels.

    Args:
        points: World coordinates. (..., N, 3)
        cameras: Cameras with leading dimensions (...).

    Returns:
        pixels: Pixel coordinates (x, y), not meaningful where depth ≤ 0. (..., N, 2)
        depth: Distance along the optical axis in the unit of `points`. (..., N)
    """
    pose, K = cameras.cam_from_world, cameras.intrinsics
    in_camera = points @ pose[..., :3].transpose(-1, -2) + pose[..., None, :, 3]  # (..., N, 3)
    depth = in_camera[..., 2]
    focal = K.diagonal(dim1=-2, dim2=-1)[..., None, :2]  # (..., 1, 2)
    return in_camera[..., :2] / depth[..., None] * focal + K[..., None, :2, 2], depth
