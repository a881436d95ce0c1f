"""Small JPEGs of images for the page."""

import math

import cv2
import numpy as np


def small_jpeg(
    image: np.ndarray, max_height: float = math.inf, max_width: float = math.inf, quality: int = 80
) -> bytes:
    """Return a JPEG of at most `max_height` rows and `max_width` columns. RGB, uint8 (H, W, 3)"""
    height, width = image.shape[:2]
    scale = min(max_height / height, max_width / width, 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return jpeg.tobytes()
