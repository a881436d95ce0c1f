"""Whether two views of a scene agree about its geometry."""

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
"""How many pixels far depth is carried from where a laser has measured it: to the eight around."""
MAX_DEPTH_SPREAD = 0.02


@dataclass(frozen=True)
class GeometricConsistency:
    """What of a view another one sees, and with which result; all are shares.

    overlap: of the valid pixels, those that land on valid pixels of the other view.
    agreeing: of these, those that the other view finds at the same depth (1 %) and sends back to where they came from
        (0.5 pixels). Things that hide each other and things that move never all agree.
    """

    overlap: float
    consistent_ratio: float


def agreement(first: View, second: View) -> GeometricConsistency:
    """Sends the pixels of one view into another and back, with both depths and cameras."""
    landed, good = agreeing_pixels(first, second)
    if not landed.any():
        return GeometricConsistency(0.0, 0.0)
    return GeometricConsistency(landed.sum().item() / first.valid.sum().item(), good[landed].float().mean().item())


def agreeing_pixels(first: View, second: View) -> tuple[Tensor, Tensor]:
    """Which pixels of a view land on valid ones of another, and which of them agree. (H, W), (H, W) bool

    Where the other's depth is known at single pixels only, it is the depth of a neighbour that must be the same, by
    2 %. That tells gross mistakes; a slightly wrong focal length it does not.
    """
    if is_sparse(second):
        landed, _, depth_error, _ = forward_backward(first, dilate_depth(second))
        return landed, landed & (depth_error < MAX_DEPTH_SPREAD)
    landed, pixel_error, depth_error, _ = forward_backward(first, second)
    return landed, landed & (pixel_error < MAX_PIXELS) & (depth_error < MAX_DEPTH)


def is_sparse(view: View) -> bool:
    """Whether most pixels with depth have neighbours without, as lasers leave them."""
    valid = view.valid
    squares = valid[1:, 1:] & valid[:-1, 1:] & valid[1:, :-1] & valid[:-1, :-1]
    return squares.sum() < 0.25 * valid.sum()


def dilate_depth(view: View) -> View:
    """Depth known also beside where it was measured: that of the nearest pixel, up to `SPREAD` away."""
    unknown = (~view.valid).numpy().astype(np.uint8)
    distance, label = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    near = distance <= SPREAD
    depth_of_label = np.zeros(label.max() + 1, np.float32)
    depth_of_label[label[view.valid.numpy()]] = view.depth[view.valid].numpy()
    return replace(view, depth=torch.from_numpy(depth_of_label[label] * near), valid=torch.from_numpy(near))


def forward_backward(first: View, second: View) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every pixel of a view sent into another and back.

    Returns:
        landed: on valid pixels of the other. (H, W) bool
        pixel_error: how far from itself it comes back; NaN where not landed. (H, W)
        depth_error: relative, in the other view; NaN where not landed. (H, W)
        pixels: where it lands, (x, y). (H, W, 2)
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
    """Depth between pixels, 0 where one of the four around is not valid; exact on planes. (N, 2) → (N,)

    It is the inverse depth that is linear over the image of a plane.
    """
    height, width = view.depth.shape
    grid = 2 * pixels / torch.tensor([width - 1, height - 1]) - 1
    grid = grid.nan_to_num(2.0, 2.0, 2.0).clamp(-2, 2)[None, None]
    inverse = torch.where(view.valid, 1 / view.depth.clamp(min=1e-9), 0)
    planes = torch.stack([inverse, view.valid.to(inverse.dtype)])[None]
    sampled, known = F.grid_sample(planes, grid, align_corners=True)[0, :, 0]
    return torch.where(known > 0.999, 1 / sampled.clamp(min=1e-9), 0)


def unproject_pixels(pixels: Tensor, depth: Tensor, cameras: Cameras) -> Tensor:
    """World points of some pixels. (N, 2), (N,) → (N, 3)"""
    K = cameras.intrinsics
    x = (pixels - K[:2, 2]) / K.diagonal()[:2] * depth[:, None]
    world_from_cam = cameras.world_from_cam
    return torch.cat([x, depth[:, None]], -1) @ world_from_cam[:, :3].T + world_from_cam[:, 3]
