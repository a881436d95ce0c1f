"""Views as the published evaluation of reconstructions prepares them.

`data.transforms.crop_and_resize` of the training differs by two roundings, which determine the published points: depth
comes from the pixel of OpenCV's nearest neighbor (rounded down), and both focal lengths are multiplied by the requested
scale instead of the ratio of the rounded sizes.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from streamvggt.data.transforms import Size, center_crop, crop_around_principal_point, resize
from streamvggt.data.view import View

CROP = 224
"""Size of the compared central crop in pixels, at the published resolution."""


def view_size(size: int, patch_size: int = 14) -> Size:
    """Width and height of the views for --size: 518×392, 512×384 and 224×224 as published, else four to three."""
    published = {518: (518, 392), 512: (512, 384), 224: (224, 224)}
    if size in published:
        return published[size]
    width, height = (max(round(side / patch_size), 1) * patch_size for side in (size, size * 3 / 4))
    return width, height


def preprocess_view(view: View, size: Size) -> View:
    """A view of a given size."""
    if size == (224, 224):
        return center_crop(preprocess_view(view, (512, 384)), size)
    return center_crop(_rescale_to_cover(crop_around_principal_point(view), size), size)


def center_crop_slices(size: Size) -> tuple[slice, slice]:
    """Rows and columns in the middle of a view that are compared: 224×224, fewer of small views in proportion."""
    width, height = size
    side = CROP if min(size) >= CROP else round(min(size) * CROP / 392)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    return slice(top, top + side), slice(left, left + side)


def _rescale_to_cover(view: View, size: Size) -> View:
    height, width = view.depth.shape
    scale = max(size[0] / width, size[1] / height) + 1e-8
    new_size = math.floor(scale * width), math.floor(scale * height)
    rows = _nearest(height, new_size[1])[:, None]
    columns = _nearest(width, new_size[0])[None]
    lost = torch.tensor([scale * width - new_size[0], scale * height - new_size[1]])
    intrinsics = view.intrinsics.clone()
    intrinsics[:2, :2] *= scale
    intrinsics[:2, 2] = (intrinsics[:2, 2] + 0.5) * scale - 0.5 * lost - 0.5
    return replace(
        resize(view, new_size),
        depth=view.depth[rows, columns],
        valid=view.valid[rows, columns],
        sky=view.sky[rows, columns],
        intrinsics=intrinsics,
    )


def _nearest(before: int, after: int) -> Tensor:
    """Which of `before` pixels OpenCV's nearest neighbor takes for each of `after`. (after,) int64"""
    index = np.arange(before, dtype=np.float32)[None]
    return torch.from_numpy(cv2.resize(index, (after, 1), interpolation=cv2.INTER_NEAREST)[0]).long()
