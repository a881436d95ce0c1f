"""Between depth maps, point maps and pixels. Conventions: docs/conventions.md."""

import torch
from torch import Tensor

from streamvggt.geometry.camera import Cameras


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Coordinates (x, y) of all pixels, of dtype and device of `like`. (H, W, 2)"""
    y = torch.arange(height, dtype=like.dtype, device=like.device)
    x = torch.arange(width, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def unproject(depth: Tensor, cameras: Cameras) -> Tensor:
    """World points of a depth map.

    Args:
        depth: distance along the optical axis, in the scene's unit. (..., H, W)
        cameras: with leading dimensions (...).

    Returns:
        Points in world coordinates, in the unit of `depth`. (..., H, W, 3)

    Raises:
        ValueError: the leading dimensions do not agree.
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
    # The ray of a pixel is a part of its column plus a part of its row: few operations on whole maps.
    of_columns = x[..., None] * right  # (..., W, 3)
    of_rows = y[..., None] * down + forward  # (..., H, 3)
    rays = of_columns[..., None, :, :] + of_rows[..., :, None, :]  # (..., H, W, 3)
    return torch.addcmul(center[..., None, :, :], depth[..., None], rays)


def project(points: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Pixels and depths of world points.

    Args:
        points: world coordinates. (..., N, 3)
        cameras: with leading dimensions (...).

    Returns:
        pixels: (x, y); meaningless where the depth is not positive. (..., N, 2)
        depth: distance along the optical axis. (..., N)
    """
    pose, K = cameras.cam_from_world, cameras.intrinsics
    in_camera = points @ pose[..., :3].transpose(-1, -2) + pose[..., None, :, 3]  # (..., N, 3)
    depth = in_camera[..., 2]
    focal = K.diagonal(dim1=-2, dim2=-1)[..., None, :2]  # (..., 1, 2)
    return in_camera[..., :2] / depth[..., None] * focal + K[..., None, :2, 2], depth
