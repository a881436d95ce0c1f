"""Detect depth discontinuities, where networks output points between objects ("flying pixels").

Depth networks interpolate between foreground and background. Unprojected, these pixels form fringes that belong to no
surface. An edge is a relative depth step near a change of the surface normal. A slanted plane has large steps, but a
constant normal. A curved surface has changing normals, but small steps.
H×W pixels.

Reference: the criterion follows MapAnything, arXiv 2509.13414, and MoGe, arXiv 2410.19115.
"""

import math

import cv2
import numpy as np

MAX_STEP = 0.03
"""Maximum depth range in a 3×3 window of a surface, relative to the depth, if the longer side has 518 pixels.

The limit grows with the pixel size, because the depth range of a plane does.
"""

MAX_ANGLE = 10.0
"""Maximum angle in degrees between the normals around a pixel of a surface."""

RADIUS = 4
"""Distance in pixels over which a change of the normal counts: the middle of a wide depth ramp is planar."""


def depth_edges(depth: np.ndarray, intrinsics: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return where the depth is discontinuous.

    Args:
        depth: Distance along the optical axis, in any unit. Float32. (H, W)
        intrinsics: In pixels of the depth map. The center of the first pixel is (0, 0). (3, 3)
        valid: Pixels with finite depth > 0. Other pixels are neither edges nor do they cause edges. Bool. (H, W)

    Returns:
        True at pixels with a depth step, within `RADIUS` of a change of the normal. Bool. (H, W)
    """
    is_step = relative_step(depth, valid) > MAX_STEP * 518 / max(depth.shape)
    if not is_step.any():
        return is_step
    with np.errstate(over="ignore", invalid="ignore"):  # a depth of 1e20 has no normal in float32
        is_bent = normal_cosine(depth, intrinsics, valid) < math.cos(math.radians(MAX_ANGLE))
    return is_step & (cv2.dilate(is_bent.view(np.uint8), window(RADIUS)) > 0)


def relative_step(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the depth range of the valid pixels in each 3×3 window, relative to the central depth.

    Returns:
        At least 0. 0 for invalid pixels. Float32. (H, W)
    """
    highest = cv2.dilate(np.where(valid, depth, 0), window(1))
    lowest = cv2.erode(np.where(valid, depth, np.float32(np.inf)), window(1))
    return np.divide(highest - lowest, depth, out=np.zeros_like(depth), where=valid)


def normal_cosine(depth: np.ndarray, intrinsics: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the cosine of the maximum angle between the surface normals at the four corners of each pixel.

    The normal of a corner is perpendicular to both diagonals of its 2×2 pixels. Corners with an invalid pixel do not
    count.

    Returns:
        In [-1, 1] up to rounding. 1 for pixels with fewer than two corners. Float32. (H, W)
    """
    height, width = depth.shape
    K = intrinsics.astype(np.float32)
    points = np.empty((3, height, width), np.float32)  # sums over rows of pixels are fast
    points[2] = np.where(valid, depth, np.nan)  # a normal with an invalid pixel is not a number
    points[0] = points[2] * ((np.arange(width, dtype=np.float32) - K[0, 2]) / K[0, 0])
    points[1] = points[2] * ((np.arange(height, dtype=np.float32) - K[1, 2]) / K[1, 1])[:, None]
    a, b, c = points[:, 1:, 1:] - points[:, :-1, :-1]
    d, e, f = points[:, :-1, 1:] - points[:, 1:, :-1]
    normals = np.full((3, height + 1, width + 1), np.nan, np.float32)  # of all corners; those at the border are unknown
    inner = normals[:, 1:-1, 1:-1]
    inner[0], inner[1], inner[2] = b * f - c * e, c * d - a * f, a * e - b * d
    inner /= np.maximum(np.sqrt(np.einsum("chw,chw->hw", inner, inner)), 1e-30)

    def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.einsum("chw,chw->hw", first, second)

    across = cosine(normals[:, :, :-1], normals[:, :, 1:])  # (H + 1, W)
    down = cosine(normals[:, :-1], normals[:, 1:])  # (H, W + 1)
    smallest = np.fmin(across[:-1], across[1:])  # `fmin` ignores unknown corners
    for other in (
        down[:, :-1],
        down[:, 1:],
        cosine(normals[:, :-1, :-1], normals[:, 1:, 1:]),
        cosine(normals[:, :-1, 1:], normals[:, 1:, :-1]),
    ):
        np.fmin(smallest, other, out=smallest)
    return np.fmin(smallest, 1, out=smallest)


def window(radius: int) -> np.ndarray:
    """Return the square window of 2·radius + 1 pixels for OpenCV's filters."""
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
