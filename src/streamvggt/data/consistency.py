"""Geometric consistency of two views of a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.data.view import View
from streamvggt.geometry.camera import Cameras
from streamvggt.geometry.pointmap import pixel_grid, project

MAX_PIXELS, MAX_DEPTH = 0.5, 0.01
SPREAD = 1.5
"""Dilation radius of sparse laser depth in pixels."""
MAX_DEPTH_SPREAD = 0.02


@dataclass(frozen=True)
class GeometricConsistency:
    """Overlap and consistency of a view with another view, as ratios.

    Attributes:
        overlap: Ratio of valid pixels that project to valid pixels of the other view.
        consistent_ratio: Ratio of these pixels with equal depth in the other view (1 %) that project back to their
            position (0.5 pixels). Occluded and moving objects reduce it.
    """

    overlap: float
    consistent_ratio: float


def agreement(first: View, second: View) -> GeometricConsistency:
    """Project the pixels of one view into another and back, with the depths and cameras of both."""
    landed, good = agreeing_pixels(first, second)
    if not landed.any():
        return GeometricConsistency(0.0, 0.0)
    return GeometricConsistency(landed.sum().item() / first.valid.sum().item(), good[landed].float().mean().item())


def agreeing_pixels(first: View, second: View) -> tuple[Tensor, Tensor]:
    """Return the pixels that project to valid pixels of another view, and those that agree. (H, W), (H, W) bool

    If the depth of the other view is sparse, it is compared with a neighboring pixel and a tolerance of 2 %. That
    detects large errors, but not a slightly wrong focal length.
    """
    if is_sparse(second):
        landed, _, depth_error, _ = forward_backward(first, dilate_depth(second))
        return landed, landed & (depth_error < MAX_DEPTH_SPREAD)
    landed, pixel_error, depth_error, _ = forward_backward(first, second)
    return landed, landed & (pixel_error < MAX_PIXELS) & (depth_error < MAX_DEPTH)


def is_sparse(view: View) -> bool:
    """Whether most pixels with depth have neighbors without depth, as in laser scans."""
    valid = view.valid
    squares = valid[1:, 1:] & valid[:-1, 1:] & valid[1:, :-1] & valid[:-1, :-1]
    return squares.sum() < 0.25 * valid.sum()


def dilate_depth(view: View) -> View:
    """Fill depth up to `SPREAD` pixels beside known depth with the nearest value."""
    unknown = (~view.valid).numpy().astype(np.uint8)
    distance, label = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    near = distance <= SPREAD
    depth_of_label = np.zeros(label.max() + 1, np.float32)
    depth_of_label[label[view.valid.numpy()]] = view.depth[view.valid].numpy()
    return replace(view, depth=torch.from_numpy(depth_of_label[label] * near), valid=torch.from_numpy(near))


def forward_backward(first: View, second: View) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Project every pixel of a view into another and back.

    Returns:
        landed: Whether the pixel projects to a valid pixel of the other view. (H, W) bool
        pixel_error: Distance of the back projection to the pixel; NaN where not landed. (H, W)
        depth_error: Relative depth difference in the other view; NaN where not landed. (H, W)
        pixels: Projection (x, y). (H, W, 2)
    """
    height, width = first.depth.shape
    points = first.points().flatten(0, 1)
    pixels, depth = project(points, second.cameras)
    seen = sample_depth(second, pixels)  # (HW,)
    landed = first.valid.flatten() & (depth > 0) & (seen > 0)
    there = unproject_pixels(pixels, seen, second.cameras)
    back, _ = project(there, first.cameras)
    pixel_error = (back - pixel_grid(height, width, like=back).flatten(0, 1)).norm(dim=-1)
    depth_error = (seen / depth - 1).abs()
    unknown = torch.full_like(depth, torch.nan)
    shape = (height, width)
    return (
        landed.view(shape),
        torch.where(landed, pixel_error, unknown).view(shape),
        torch.where(landed, depth_error, unknown).view(shape),
        pixels.view(height, width, 2),
    )


def sample_depth(view: View, pixels: Tensor) -> Tensor:
    """Interpolate depth, 0 if one of the four neighbors is invalid. Exact on planes. (N, 2) → (N,)

    Interpolates the inverse depth, which is linear over the image of a plane.
    """
    height, width = view.depth.shape
    grid = 2 * pixels / torch.tensor([width - 1, height - 1]) - 1
    grid = grid.nan_to_num(2.0, 2.0, 2.0).clamp(-2, 2)[None, None]
    inverse = torch.where(view.valid, 1 / view.depth.clamp(min=1e-9), 0)
    planes = torch.stack([inverse, view.valid.to(inverse.dtype)])[None]
    sampled, known = F.grid_sample(planes, grid, align_corners=True)[0, :, 0]
    return torch.where(known > 0.999, 1 / sampled.clamp(min=1e-9), 0)


def unproject_pixels(pixels: Tensor, depth: Tensor, cameras: Cameras) -> Tensor:
    """Return the world points of pixels. (N, 2), (N,) → (N, 3)"""
    K = cameras.intrinsics
    x = (pixels - K[:2, 2]) / K.diagonal()[:2] * depth[:, None]
    world_from_cam = cameras.world_from_cam
    return torch.cat([x, depth[:, None]], -1) @ world_from_cam[:, :3].T + world_from_cam[:, 3]
