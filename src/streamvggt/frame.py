"""One image on its way into the network, and the way back to the pixels it came from."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """An image prepared for the network.

    image: RGB in [0, 1], height and width multiples of the patch size. (3, H, W)
    index: position in the input, counted over all its frames: photo number, or number of the video's decoded frame.
    name: file stem for outputs ("IMG_0012", "frame_000120"); unique within one input.
    original: the image as loaded (upright, RGB, before any resizing), uint8. (H0, W0, 3)
    original_from_image: maps processed pixel coordinates to original ones, both with the centre of the first pixel
        at (0, 0): [[sx, 0, ox], [0, sy, oy], [0, 0, 1]], float64; so K_original = original_from_image @ K. (3, 3)
    content: top, left, bottom, right of the part of `image` that shows the original; the rest is white padding.
    time: seconds since the start of the video or capture; None for photos.
    valid: False where the image has no content because the original has alpha 0 there, and on the padding; None if the
        original has no such pixel, so that all of `content` counts. bool (H, W)
    """

    image: Tensor
    index: int
    name: str
    original: np.ndarray
    original_from_image: np.ndarray
    content: tuple[int, int, int, int]
    time: float | None = None
    valid: Tensor | None = None
