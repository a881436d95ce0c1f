"""Convert an image of any size and mode to the model input, with the inverse pixel mapping.

An image is resized and placed on a white canvas. A positive offset pads, a negative offset crops.

          canvas (left > 0, top < 0)
         +---------------------------+
         |      :            :       |     resized:  width × height
         | left :  resized   :       |     content:  the visible part of the resized image
         |      :            :       |
         +---------------------------+

H×W pixels of the canvas, H0×W0 pixels of the original.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from streamvggt.frame import Frame
from streamvggt.image_files import upright

MODES = ("crop", "pad")
MAX_FAST_RATIO = 4
"""Maximum number of resized pixels per canvas pixel in `Placement.render_fast`, which bounds the memory."""


@dataclass(frozen=True)
class Placement:
    """Placement of an original of W0×H0 pixels: resized to `width`×`height`, with its corner at (left, top)."""

    original_size: tuple[int, int]  # W0, H0
    width: int
    height: int
    left: int
    top: int
    canvas_size: tuple[int, int]  # W, H

    def with_canvas(self, canvas_size: tuple[int, int] | None) -> "Placement":
        """Return the placement of the same resized image, centered on another canvas (width, height), if given."""
        if canvas_size is None:
            return self
        left = self.left + (canvas_size[0] - self.canvas_size[0]) // 2
        top = self.top + (canvas_size[1] - self.canvas_size[1]) // 2
        return replace(self, left=left, top=top, canvas_size=canvas_size)

    @property
    def content(self) -> tuple[int, int, int, int]:
        """Return top, left, bottom and right of the visible part of the original on the canvas, in pixels."""
        right = min(self.left + self.width, self.canvas_size[0])
        bottom = min(self.top + self.height, self.canvas_size[1])
        return max(self.top, 0), max(self.left, 0), bottom, right

    @property
    def original_from_image(self) -> np.ndarray:
        """Return the map from canvas to original pixels. (0, 0) is the center of the first pixel in both. (3, 3)"""
        scale_x = self.original_size[0] / self.width
        scale_y = self.original_size[1] / self.height
        offset_x = (0.5 - self.left) * scale_x - 0.5
        offset_y = (0.5 - self.top) * scale_y - 0.5
        return np.array([[scale_x, 0, offset_x], [0, scale_y, offset_y], [0, 0, 1]])

    def render(self, image: Image.Image) -> np.ndarray:
        """Render an RGB image of `original_size` on the canvas, uint8. (H, W, 3)"""
        return self._on_canvas(self._shown(image, Image.Resampling.BICUBIC), background=255)

    def render_fast(self, pixels: np.ndarray) -> np.ndarray:
        """Render as `render`, with the bicubic filter of PyTorch, which takes a fifth of the time of Pillow.

        The weights of the filter have fewer bits than those of Pillow, so that single values differ by 1/255. Images
        that are enlarged or mostly cropped are rendered by `render`.

        Args:
            pixels: uint8 RGB. (H0, W0, 3)
        """
        is_smaller = self.width <= self.original_size[0] and self.height <= self.original_size[1]
        if not is_smaller or self.width * self.height > MAX_FAST_RATIO * math.prod(self.canvas_size):
            return self.render(Image.fromarray(pixels))
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        resized = functional.interpolate(planes, (self.height, self.width), mode="bicubic", antialias=True)
        top, left, bottom, right = self.content
        rows, columns = slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)
        return self._on_canvas(resized[0].permute(1, 2, 0).numpy()[rows, columns], background=255)

    def render_mask(self, mask: np.ndarray) -> Tensor:
        """Map a mask of the original to the canvas with nearest-neighbor sampling. The padding is False.

        Args:
            mask: Bool. (H0, W0)

        Returns:
            Bool. (H, W)
        """
        image = Image.fromarray(mask.astype(np.uint8))
        return torch.from_numpy(self._on_canvas(self._shown(image, Image.Resampling.NEAREST), background=0) > 0)

    def _shown(self, image: Image.Image, kernel: Image.Resampling) -> np.ndarray:
        """Resize only the visible part, so that the canvas size bounds the memory. (bottom - top, right - left, ...)"""
        top, left, bottom, right = self.content
        columns, rows = (left - self.left, right - self.left), (top - self.top, bottom - self.top)  # in resized pixels
        (x0, x1), (y0, y1) = (
            [edge * original / resized for edge in edges]
            for edges, original, resized in zip(
                (columns, rows), self.original_size, (self.width, self.height), strict=True
            )
        )
        return np.asarray(image.resize((right - left, bottom - top), kernel, (x0, y0, x1, y1)))

    def _on_canvas(self, shown: np.ndarray, background: int) -> np.ndarray:
        """Place the visible part of the resized image. (H, W, ...)"""
        top, left, bottom, right = self.content
        pixels = np.full((*self.canvas_size[::-1], *shown.shape[2:]), background, np.uint8)
        pixels[top:bottom, left:right] = shown
        return pixels


def compute_placement(
    original_size: tuple[int, int], *, size: int = 518, patch_size: int = 14, mode: str = "crop"
) -> Placement:
    """Compute the preprocessing of the reference implementation for an image of W0×H0 pixels.

    Args:
        original_size: Width and height of the original in pixels.
        size: Target size in pixels.
        patch_size: Patch size of the model in pixels.
        mode: "crop" resizes the width to `size` and crops rows above `size` at the top and bottom. "pad" resizes the
            longer side to `size` and pads to a white square.

    Raises:
        ValueError: If `mode` is unknown, or `size` is not a multiple of `patch_size`.
    """
    validate_options(size, patch_size, mode)
    scale = size / (original_size[0] if mode == "crop" else max(original_size))
    # Scale first, then divide. The order of the reference implementation determines ties of the rounding.
    width, height = (max(round(side * scale / patch_size), 1) * patch_size for side in original_size)
    canvas_size = (size, min(height, size)) if mode == "crop" else (size, size)
    left, top = (_centered(side, room) for side, room in zip((width, height), canvas_size, strict=True))
    return Placement(original_size, width, height, left, top, canvas_size)


def _centered(side: int, room: int) -> int:
    """Return the offset of a centered side. An odd pixel of the margin or crop is at the end."""
    return (room - side) // 2 if side <= room else -((side - room) // 2)


def validate_options(size: int, patch_size: int, mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f'mode must be one of "crop", "pad"; got {mode!r}')
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1; got {patch_size}")
    if size < patch_size or size % patch_size:
        nearest = max(round(size / patch_size), 1) * patch_size
        raise ValueError(
            f"size must be a multiple of the patch size {patch_size}; got {size}, the nearest is {nearest}"
        )


def preprocess_image(
    image: Image.Image,
    *,
    size: int = 518,
    patch_size: int = 14,
    mode: str = "crop",
    fast_resize: bool = False,
    canvas_size: tuple[int, int] | None = None,
    white: int = 0,
    index: int = 0,
    name: str | None = None,
    time: float | None = None,
) -> Frame:
    """Convert an image of any mode that Pillow reads to a model input. EXIF orientation is applied.

    Args:
        image: The original image. H0×W0
        size: Target size in pixels, see `compute_placement`.
        patch_size: Patch size of the model in pixels.
        mode: "crop" or "pad", see `compute_placement`.
        fast_resize: See `Placement.render_fast`.
        canvas_size: Width and height to pad to, for sequences with frames of different sizes.
        white: White level of 16-bit images, see `image_files.upright`.
        index: As in `Frame`.
        name: As in `Frame`. The default is "frame_" and the index with six digits.
        time: As in `Frame`, in seconds.
    """
    image, valid = upright(image, white)
    original = np.array(image)
    placement = compute_placement(image.size, size=size, patch_size=patch_size, mode=mode).with_canvas(canvas_size)
    return _framed(
        placement.render_fast(original) if fast_resize else placement.render(image),
        original,
        valid,
        placement,
        index=index,
        name=name,
        time=time,
    )


def _framed(
    pixels: np.ndarray,
    original: np.ndarray,
    valid: np.ndarray | None,
    placement: Placement,
    *,
    index: int,
    name: str | None,
    time: float | None,
) -> Frame:
    return Frame.from_pixels(
        pixels,
        index=index,
        name=f"frame_{index:06d}" if name is None else name,
        original=original,
        original_from_image=placement.original_from_image,
        content=placement.content,
        time=time,
        valid=None if valid is None else placement.render_mask(valid),
    )


def frame_from_array(
    array: np.ndarray,
    *,
    size: int = 518,
    patch_size: int = 14,
    mode: str = "crop",
    fast_resize: bool = False,
    canvas_size: tuple[int, int] | None = None,
    index: int = 0,
    name: str | None = None,
    time: float | None = None,
) -> Frame:
    """Convert an RGB array, for example from a robot's camera, to a frame.

    Args:
        array: RGB (not the BGR order of OpenCV), uint8. (H0, W0, 3)
        size: Target size in pixels, see `compute_placement`.
        patch_size: Patch size of the model in pixels.
        mode: "crop" or "pad", see `compute_placement`.
        fast_resize: See `Placement.render_fast`.
        canvas_size: As for `preprocess_image`.
        index: As for `preprocess_image`.
        name: As for `preprocess_image`.
        time: As for `preprocess_image`.

    Raises:
        ValueError: If the array has another dtype or shape.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"an image must be a numpy array of uint8 in 0…255; got {kind}")
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ValueError(f"an image must have shape (height, width, 3), RGB; got {array.shape}")
    original = np.ascontiguousarray(array)
    height, width = original.shape[:2]
    placement = compute_placement((width, height), size=size, patch_size=patch_size, mode=mode).with_canvas(canvas_size)
    return _framed(
        placement.render_fast(original) if fast_resize else placement.render(Image.fromarray(original)),
        original,
        None,
        placement,
        index=index,
        name=name,
        time=time,
    )
