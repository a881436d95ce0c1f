"""From a picture of any size and kind to the image the network sees, and the exact way back.

A picture is resized and laid on a white canvas. One offset says where: positive pads, negative crops.

          canvas (left > 0, top < 0)
         +---------------------------+
         |      :            :       |     resized:  width × height
         | left :  resized   :       |     content:  the part of it that the canvas shows
         |      :            :       |
         +---------------------------+

H×W pixels of the canvas, H0×W0 pixels of the original.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from streamvggt.frame import Frame
from streamvggt.image_files import upright

MODES = ("crop", "pad")


@dataclass(frozen=True)
class Placement:
    """Where an original of W0×H0 pixels lands: resized to `width`×`height`, its corner at (left, top) of the canvas."""

    original_size: tuple[int, int]  # W0, H0
    width: int
    height: int
    left: int
    top: int
    canvas_size: tuple[int, int]  # W, H

    def with_canvas(self, canvas_size: tuple[int, int]) -> "Placement":
        """The same picture in the middle of another canvas (width, height)."""
        left = self.left + (canvas_size[0] - self.canvas_size[0]) // 2
        top = self.top + (canvas_size[1] - self.canvas_size[1]) // 2
        return replace(self, left=left, top=top, canvas_size=canvas_size)

    @property
    def content(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of the part of the canvas that shows the original."""
        right = min(self.left + self.width, self.canvas_size[0])
        bottom = min(self.top + self.height, self.canvas_size[1])
        return max(self.top, 0), max(self.left, 0), bottom, right

    @property
    def original_from_image(self) -> np.ndarray:
        """Maps canvas pixel coordinates to original ones, both with the first pixel's centre at (0, 0). (3, 3)"""
        scale_x = self.original_size[0] / self.width
        scale_y = self.original_size[1] / self.height
        offset_x = (0.5 - self.left) * scale_x - 0.5
        offset_y = (0.5 - self.top) * scale_y - 0.5
        return np.array([[scale_x, 0, offset_x], [0, scale_y, offset_y], [0, 0, 1]])

    def render(self, image: Image.Image) -> Tensor:
        """The canvas with an RGB image of `original_size` on it, in [0, 1]. (3, H, W)"""
        pixels = self._on_canvas(image, Image.Resampling.BICUBIC, background=255)  # (H, W, 3)
        return torch.from_numpy(pixels).movedim(-1, 0).contiguous().float() / 255

    def render_mask(self, mask: np.ndarray) -> Tensor:
        """Take a mask of the original to the canvas, by the nearest pixel; False on the padding.

        Args:
            mask: bool. (H0, W0)

        Returns:
            bool. (H, W)
        """
        image = Image.fromarray(mask.astype(np.uint8))
        return torch.from_numpy(self._on_canvas(image, Image.Resampling.NEAREST, background=0) > 0)

    def _on_canvas(self, image: Image.Image, kernel: Image.Resampling, background: int) -> np.ndarray:
        """Resize only the part that the canvas shows, so that memory is bounded by the canvas. (H, W, ...)"""
        top, left, bottom, right = self.content
        columns, rows = (left - self.left, right - self.left), (top - self.top, bottom - self.top)  # of the resized
        (x0, x1), (y0, y1) = (
            [edge * original / resized for edge in edges]
            for edges, original, resized in zip(
                (columns, rows), self.original_size, (self.width, self.height), strict=True
            )
        )
        shown = np.asarray(image.resize((right - left, bottom - top), kernel, (x0, y0, x1, y1)))
        pixels = np.full((*self.canvas_size[::-1], *shown.shape[2:]), background, np.uint8)
        pixels[top:bottom, left:right] = shown
        return pixels


def compute_placement(
    original_size: tuple[int, int], *, size: int = 518, patch_size: int = 14, mode: str = "crop"
) -> Placement:
    """The published preparation of a picture of W0×H0 pixels.

    "crop": the width becomes `size`; what is then higher than `size` loses rows above and below.
    "pad": the longer side becomes `size`; white fills the square.

    Raises:
        ValueError: unknown mode, or a size that is no multiple of the patch size.
    """
    validate_options(size, patch_size, mode)
    scale = size / (original_size[0] if mode == "crop" else max(original_size))
    # Scale first, then divide: the published order, which decides ties of the rounding.
    width, height = (max(round(side * scale / patch_size), 1) * patch_size for side in original_size)
    canvas_size = (size, min(height, size)) if mode == "crop" else (size, size)
    left, top = (_centred(side, room) for side, room in zip((width, height), canvas_size, strict=True))
    return Placement(original_size, width, height, left, top, canvas_size)


def _centred(side: int, room: int) -> int:
    """Offset of a side in the middle of the room for it; what is odd goes to the end, for margins and for cuts."""
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
    canvas_size: tuple[int, int] | None = None,
    white: int = 0,
    index: int = 0,
    name: str | None = None,
    time: float | None = None,
) -> Frame:
    """A picture as the network wants it. Any mode Pillow reads; EXIF orientation is applied.

    Args:
        canvas_size: width and height to pad to, where a sequence has frames of different size.
        white: see `image_files.upright`.
        index, name, time: as in `Frame`; the name defaults to "frame_000000" with the index.
    """
    image, valid = upright(image, white)
    placement = compute_placement(image.size, size=size, patch_size=patch_size, mode=mode)
    if canvas_size is not None:
        placement = placement.with_canvas(canvas_size)
    return Frame(
        image=placement.render(image),
        index=index,
        name=f"frame_{index:06d}" if name is None else name,
        original=np.array(image),
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
    canvas_size: tuple[int, int] | None = None,
    index: int = 0,
    name: str | None = None,
    time: float | None = None,
) -> Frame:
    """A frame of pixels already in memory, as from a robot's camera.

    Args:
        array: RGB, not OpenCV's BGR, uint8. (H0, W0, 3)
        canvas_size, index, name, time: as for `prepare`.

    Raises:
        ValueError: the array is of another type or shape.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"an image must be a numpy array of uint8 in 0…255; got {kind}")
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ValueError(f"an image must have shape (height, width, 3), RGB; got {array.shape}")
    image = Image.fromarray(np.ascontiguousarray(array))
    return preprocess_image(
        image,
        size=size,
        patch_size=patch_size,
        mode=mode,
        canvas_size=canvas_size,
        index=index,
        name=name,
        time=time,
    )
