"""Input frame: the processed image and its mapping to the original pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """Image prepared for the network.

    Attributes:
        image: RGB in [0, 1], height and width multiples of the patch size. (3, H, W)
        index: Index of the photo, or of the decoded video frame, among all frames of the input.
        name: File stem for outputs ("IMG_0012", "frame_000120"), unique within one input.
        original: Image as loaded (upright, RGB, not resized), uint8. (H0, W0, 3)
        original_from_image: Map from processed to original pixel coordinates, float64, both with the center of the
            first pixel at (0, 0): [[sx, 0, ox], [0, sy, oy], [0, 0, 1]]. K_original = original_from_image @ K. (3, 3)
        content: Top, left, bottom, right of the part of `image` that contains the original, in pixels. The rest is
            white padding.
        time: Seconds since the start of the video or capture. For photos seconds since 1970 from EXIF, None without.
        valid: False on the padding and where the original has alpha 0. None if the original has no such pixel: all of
            `content` is valid. bool (H, W)
        jpeg: Content of a JPEG file without metadata that decodes to `original`. None for other sources.
        pixels: `image` · 255 as uint8 (3, H, W), set by `from_pixels`. None for other images, and after
            `dataclasses.replace`.
    """

    image: Tensor
    index: int
    name: str
    original: np.ndarray
    original_from_image: np.ndarray
    content: tuple[int, int, int, int]
    time: float | None = None
    valid: Tensor | None = None
    jpeg: bytes | None = None
    pixels: Tensor | None = field(init=False, default=None)

    @classmethod
    def from_pixels(cls, pixels: np.ndarray, **fields) -> Frame:
        """Create a frame from an image of 8 bits.

        Args:
            pixels: RGB, uint8. (H, W, 3)
            fields: All fields except `image` and `pixels`.
        """
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        values = planes.astype(np.float32)  # NumPy uses one thread, because several threads prepare frames
        values /= 255
        frame = cls(torch.from_numpy(values), **fields)
        object.__setattr__(frame, "pixels", torch.from_numpy(planes))
        return frame
