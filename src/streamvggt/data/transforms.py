"""Convert stored frames to training views: crops, resizing and color changes, with exact intrinsics.

Sizes are (width, height) in pixels, as in the configurations. H×W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from streamvggt.bounds import check_real
from streamvggt.data.decode import DataError
from streamvggt.data.view import View

Size = tuple[int, int]
MAX_SIDE = 16_384
"""Maximum side of training images in pixels."""


def check_aspects(aspects: Sequence[float]) -> None:
    """Check aspect ratios.

    Raises:
        ValueError: If there are none, or one is not between 1:100 and 100:1.
    """
    if not aspects:
        raise ValueError("aspect_ratios: expected at least one, got none")
    for aspect in aspects:
        check_real(0.01, 100, aspect_ratios=aspect)


def whole_patches(side: float, patch_size: int) -> int:
    """Return the number of pixels nearest to `side` that is a multiple of `patch_size`, at least one patch."""
    return max(round(side / patch_size), 1) * patch_size


def crop_and_resize(view: View, size: Size, extra: int = 0) -> View:
    """Crop a view around its principal point and resize it to cover the size.

    Args:
        view: The view.
        size: Size of the result.
        extra: Number of pixels by which the view exceeds `size` before the final crop, which changes the zoom.

    Raises:
        DataError: If the principal point is too close to a border.
    """
    width, height = size
    view = crop_around_principal_point(view)
    return center_crop(rescale_to_cover(view, (width + extra, height + extra)), size)


def crop_around_principal_point(view: View) -> View:
    """Return the largest crop that is centered on the principal point."""
    height, width = view.depth.shape
    cx, cy = view.intrinsics[0, 2].item(), view.intrinsics[1, 2].item()
    if min(cx, width - cx) <= width / 5 or min(cy, height - cy) <= height / 5:
        raise DataError(f"the principal point ({cx:.1f}, {cy:.1f}) is too near to a border of {width}×{height} pixels")
    x, y = round(cx), round(cy)
    half_width, half_height = min(x, width - x), min(y, height - y)
    return crop(view, x - half_width, y - half_height, (2 * half_width, 2 * half_height))


def rescale_to_cover(view: View, size: Size) -> View:
    """Resize a view to the smallest size of equal aspect ratio that covers `size`."""
    height, width = view.depth.shape
    scale = max(size[0] / width, size[1] / height) + 1e-8
    return resize(view, (math.floor(scale * width), math.floor(scale * height)))


def center_crop(view: View, size: Size) -> View:
    """Return the center crop of a view."""
    height, width = view.depth.shape
    return crop(view, round((width - size[0]) / 2), round((height - size[1]) / 2), size)


def crop(view: View, left: int, top: int, size: Size) -> View:
    width, height = size
    assert left >= 0 and top >= 0 and left + width <= view.depth.shape[1] and top + height <= view.depth.shape[0]
    rows, columns = slice(top, top + height), slice(left, left + width)
    intrinsics = view.intrinsics.clone()
    intrinsics[0, 2] -= left
    intrinsics[1, 2] -= top
    return _with_image(view, view.image[:, rows, columns], lambda pixels: pixels[rows, columns], intrinsics)


def resize(view: View, size: Size) -> View:
    """Resize a view: the image with filtering, all other fields with nearest-neighbor sampling."""
    height, width = view.depth.shape
    if size == (width, height):
        return view
    scale_x, scale_y = size[0] / width, size[1] / height
    pixels = Image.fromarray(image_array(view.image))
    kernel = Image.Resampling.LANCZOS if min(scale_x, scale_y) < 1 else Image.Resampling.BICUBIC
    rows, columns = nearest_indices(height, size[1]), nearest_indices(width, size[0])
    return _with_image(
        view,
        image_tensor(np.asarray(pixels.resize(size, kernel))),
        lambda pixels: pixels.index_select(0, rows).index_select(1, columns),
        scale_intrinsics(view.intrinsics, scale_x, scale_y),
    )


def scale_intrinsics(intrinsics: Tensor, scale_x: float, scale_y: float) -> Tensor:
    """Scale intrinsics to a resized image. Image corners are preserved, so x' + ½ = scale · (x + ½)."""
    intrinsics = intrinsics.clone()
    scale = torch.tensor([scale_x, scale_y], dtype=intrinsics.dtype)
    intrinsics[:2, :2] *= scale[:, None]
    intrinsics[:2, 2] = (intrinsics[:2, 2] + 0.5) * scale - 0.5
    return intrinsics


def nearest_indices(before: int, after: int) -> Tensor:
    """Return the index of the nearest of `before` pixels for each of `after` pixels. (after,) int64"""
    return ((torch.arange(after, dtype=torch.float64) + 0.5) * before / after).long().clamp(max=before - 1)


def image_array(image: Tensor) -> np.ndarray:
    """Convert (3, H, W) in [0, 1] to (H, W, 3) uint8."""
    return (image * 255).round_().byte().permute(1, 2, 0).contiguous().numpy()


def image_tensor(image: np.ndarray) -> Tensor:
    """Convert (H, W, 3) uint8 to (3, H, W) in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32)).div_(255)


def _with_image(view: View, image: Tensor, taken: Callable[[Tensor], Tensor], intrinsics: Tensor) -> View:
    """Return a view with another image, and the other fields transformed by `taken`."""
    ids = view.instance_ids
    return replace(
        view,
        image=image,
        depth=taken(view.depth),
        valid=taken(view.valid),
        sky=taken(view.sky),
        intrinsics=intrinsics,
        instance_ids=None if ids is None else taken(ids),
    )


@dataclass(frozen=True)
class ColorJitter:
    """A color change that is constant over a sequence.

    Attributes:
        brightness: Factor; 1 is the identity.
        contrast: Factor; 1 is the identity.
        saturation: Factor; 1 is the identity.
        hue: Shift in turns.
        order: Order of the four operations by index.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: Sequence[int] = (0, 1, 2, 3)

    @staticmethod
    def draw(random: np.random.Generator) -> ColorJitter:
        factors = random.uniform(0.5, 1.5, 3)
        return ColorJitter(*factors, random.uniform(-0.1, 0.1), tuple(random.permutation(4)))

    def __call__(self, image: Tensor) -> Tensor:
        """Apply the change. (3, H, W) in [0, 1] → (3, H, W) in [0, 1]"""
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        changes = (self._adjust_brightness, self._contrast, self._saturate, self._adjust_hue)
        for number in self.order:
            pixels = changes[number](pixels)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def _adjust_brightness(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels * np.float32(self.brightness)).clip(0, 1)

    def _contrast(self, pixels: np.ndarray) -> np.ndarray:
        return _blend(pixels, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean(), self.contrast)

    def _saturate(self, pixels: np.ndarray) -> np.ndarray:
        return _blend(pixels, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], self.saturation)

    def _adjust_hue(self, pixels: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + np.float32(360 * self.hue)) % 360
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).clip(0, 1)


def _blend(pixels: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Interpolate: `other` at 0, `pixels` at 1, extrapolation above 1."""
    return (other + (pixels - other) * np.float32(share)).clip(0, 1)
