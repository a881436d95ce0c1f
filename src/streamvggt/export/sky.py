"""Detect sky in a photo from its pixels, without a model.

Sky is the region above the first strong gradient of each column. The gradient threshold minimizes the color variance
of both regions. A smooth, bright ceiling is also detected as sky, so the filter is off by default.

H×W pixels.

Reference: Shen and Wang, "Sky region detection in a single image for autonomous ground robot navigation", 2013.
"""

import cv2
import numpy as np

WIDTH = 64
"""Processing width in pixels: sufficient for a horizon, and fast."""

THRESHOLDS = np.append(np.linspace(5, 600, 16), np.inf).astype(np.float32)
"""Gradients to try as the border. No gradient exceeds the last one, which selects the whole image."""

SKY_WEIGHT = 2.0  # weight of the sky's variance relative to the ground's (γ in the paper)
MIN_HEIGHT = 1 / 30  # minimum mean sky height as a ratio of the image height
MAX_JAGGEDNESS = 1 / 10  # maximum mean border step between columns, ratio of the image height
UPPER = np.triu_indices(3)
MIN_SKY_BRIGHTNESS = 90  # mean of red, green and blue; the method assumes daylight


def sky_mask(image: np.ndarray) -> np.ndarray:
    """Return where the image shows sky. Empty if the image is not an outdoor photo at daylight.

    Args:
        image: RGB, uint8. (H, W, 3)

    Returns:
        Bool. (H, W)
    """
    height, width = image.shape[:2]
    small_size = (min(WIDTH, width), max(round(height * min(WIDTH, width) / width), 2))
    small = cv2.resize(image, small_size, interpolation=cv2.INTER_AREA)
    border = sky_border(small)
    if border.mean() < MIN_HEIGHT * len(small) or np.abs(np.diff(border)).mean() > MAX_JAGGEDNESS * len(small):
        return np.zeros((height, width), bool)
    sky = np.arange(len(small))[:, None] < border
    light = small[sky].mean(0)
    if light.mean() < MIN_SKY_BRIGHTNESS or light[0] > light[2] + 20:  # too dark or too red for sky
        return np.zeros((height, width), bool)
    return cv2.resize(sky.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def sky_border(image: np.ndarray) -> np.ndarray:
    """Return the number of sky rows per column for the split with the lowest variance. RGB (H, W, 3) to (W,)"""
    num_pixels, width = image[..., 0].size, image.shape[1]
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gradient = cv2.magnitude(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    # The running maximum exceeds the threshold at the first strong gradient of a column.
    is_sky = np.maximum.accumulate(gradient) <= THRESHOLDS[:, None, None]  # (T, H, W)
    sums = is_sky.reshape(len(THRESHOLDS), -1).astype(np.float64) @ color_terms(image).T  # (T, 10)
    sky, total = sums[:-1], sums[-1]
    sizes = sky[:, 0]
    is_split = (sizes >= width) & (num_pixels - sizes >= width)  # a region needs at least one row of pixels
    if not is_split.any():
        return np.zeros(width, int)
    spread = color_spread(np.stack([sky, total - sky])[:, is_split])  # (2, T)
    best = np.flatnonzero(is_split)[(SKY_WEIGHT * spread[0] + spread[1]).argmin()]
    return is_sky[best].sum(0)


def color_terms(image: np.ndarray) -> np.ndarray:
    """Return 1, color and the products of the color channels of each pixel, in [0, 1]. RGB (H, W, 3) to (10, HW)"""
    terms = np.ones((10, image[..., 0].size))
    np.divide(image.reshape(-1, 3).T, 255, out=terms[1:4])
    for row, (one, other) in enumerate(zip(*UPPER, strict=True), 4):
        np.multiply(terms[1 + one], terms[1 + other], out=terms[row])
    return terms


def color_spread(sums: np.ndarray) -> np.ndarray:
    """Return determinant plus largest eigenvalue of color covariances, from sums of 1, color and products.

    The variance measure of the paper. (..., 10) to (...)
    """
    means = sums[..., 1:4] / sums[..., :1]
    covariances = np.empty((*sums.shape[:-1], 3, 3))
    covariances[..., UPPER[0], UPPER[1]] = covariances[..., UPPER[1], UPPER[0]] = sums[..., 4:] / sums[..., :1]
    covariances -= means[..., :, None] * means[..., None, :]
    eigenvalues = np.linalg.eigvalsh(covariances)
    return eigenvalues.prod(-1) + eigenvalues[..., -1]
