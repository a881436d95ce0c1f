"""Camera models by the names and parameters of COLMAP, and the undistortion of images and depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from streamvggt.data.decode import DataError
from streamvggt.extras import require

pycolmap = require("pycolmap", "export")

NODES = 256
"""Undistortion is exact at this many or more nodes along the larger side, and linear between them (0.02 pixels)."""


@dataclass(frozen=True)
class Lens:
    """Intrinsics as COLMAP stores them: the center of the first pixel is (0.5, 0.5).

    Attributes:
        model: Name of the camera model, e.g. "OPENCV".
        size: Width and height of the image in pixels.
        params: Parameters in the order of the model, e.g. (fx, fy, cx, cy, k1, k2, p1, p2).
    """

    model: str
    size: tuple[int, int]
    params: tuple[float, ...]


def checked_lens(model: str, size: Sequence[float], params: Sequence[float], where: str) -> Lens:
    """Make a lens from the numbers of a file.

    Args:
        where: File and field, for error messages.

    Raises:
        DataError: If the model is unknown, a number is not finite, or a size or focal length is not positive.
    """
    if model not in perspective_models():
        raise DataError(
            f"{where}: expected one of the camera models {', '.join(perspective_models())}, got {model!r}. "
            "Undistort the images to PINHOLE first."
        )
    if not (np.isfinite(size).all() and min(size) >= 1 and all(float(side).is_integer() for side in size)):
        raise DataError(f"{where}: expected the width and height of the image in pixels, got {tuple(size)}.")
    camera = pycolmap.Camera.create_from_model_name(1, model, 1.0, int(size[0]), int(size[1]))
    if len(params) != len(camera.params) or not np.isfinite(params).all():
        names = camera.params_info.replace(", ", " ")
        raise DataError(
            f"{where}: expected {len(camera.params)} finite numbers {names} for {model}, got {list(params)}."
        )
    focal = [params[index] for index in camera.focal_length_idxs()]
    if min(focal) <= 0:
        raise DataError(f"{where}: expected positive focal lengths, got {focal}.")
    return Lens(model, (int(size[0]), int(size[1])), tuple(map(float, params)))


@dataclass(frozen=True)
class Undistortion:
    """A pinhole camera, and the pixel of the distorted image for each of its pixels.

    Attributes:
        intrinsics: In pixels; the center of the first pixel is (0, 0). (3, 3)
        grid: Column and row of the distorted image, (H, W) float32 each; None if nothing is distorted.
    """

    intrinsics: np.ndarray
    grid: tuple[np.ndarray, np.ndarray] | None

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """Resample an image. (H0, W0, 3) uint8 → (H, W, 3) uint8"""
        if self.grid is None:
            return pixels
        return cv2.remap(pixels, *self.grid, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    def depth(self, values: np.ndarray) -> np.ndarray:
        """Resample depth along the optical axis by the nearest pixel. (H0, W0) → (H, W)"""
        return values if self.grid is None else cv2.remap(values, *self.grid, cv2.INTER_NEAREST)


@lru_cache(maxsize=8)
def undistortion(lens: Lens) -> Undistortion:
    """The pinhole camera of `pycolmap.undistort_camera`: every pixel of it is inside the distorted image."""
    camera = pycolmap.Camera(
        model=lens.model, width=lens.size[0], height=lens.size[1], params=np.array(lens.params, np.float64)
    )
    if camera.is_undistorted() and not camera.is_perspective_fisheye():
        return Undistortion(_pixel_centers_at_integers(camera), None)
    straight = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
    width, height = straight.width, straight.height
    step = 1 << max((max(width, height) // NODES).bit_length() - 1, 0)
    x, y = np.meshgrid(np.arange(0, width + step, step) + 0.5, np.arange(0, height + step, step) + 0.5)
    rays = straight.cam_from_img(np.stack([x, y], -1).reshape(-1, 2))
    rays = np.concatenate([rays, np.ones((len(rays), 1))], 1)
    nodes = (camera.img_from_cam(rays) - 0.5).astype(np.float32).reshape(*x.shape, 2)
    shrink = np.array([[1 / step, 0, 0], [0, 1 / step, 0]])
    there = cv2.warpAffine(nodes, shrink, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    grid = np.ascontiguousarray(there[..., 0]), np.ascontiguousarray(there[..., 1])
    return Undistortion(_pixel_centers_at_integers(straight), grid)


@lru_cache(maxsize=1)
def perspective_models() -> tuple[str, ...]:
    """Names of the camera models that can be undistorted to a pinhole camera."""
    names = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    cameras = {name: pycolmap.Camera.create_from_model_name(1, name, 1.0, 2, 2) for name in names}
    return tuple(name for name, camera in cameras.items() if not camera.is_spherical())


def _pixel_centers_at_integers(camera: pycolmap.Camera) -> np.ndarray:
    intrinsics = camera.calibration_matrix()
    intrinsics[:2, 2] -= 0.5
    return intrinsics
