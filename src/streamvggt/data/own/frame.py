"""One frame of a custom scene: its files and labels, and the conversion to a `View`.

H×W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streamvggt.data.dataset_reader import make_view, validate_pose
from streamvggt.data.decode import DataError, read_exr, read_image, read_mask, read_npy, read_png16, read_stored_color
from streamvggt.data.own.lens import Lens, undistortion
from streamvggt.data.transforms import nearest_indices
from streamvggt.data.view import View

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".m4v", ".webm")
DEPTHS = (".png", ".npy", ".exr", ".bin")
UNKNOWN_FIELD_OF_VIEW = 60.0
"""Degrees over the longer side of images without a camera. Distillation does not use it; crops need a lens."""


@dataclass(frozen=True)
class Frame:
    """Files and labels of a frame.

    Attributes:
        name: Unique within the scene.
        image: The image file, or the video file if `number` is given.
        number: Number of the frame within the video.
        lens: None if the intrinsics are unknown.
        world_from_cam: Pose, OpenCV axes. (4, 4); None if unknown.
        depth: File of the depth along the optical axis; None if unknown.
        depth_unit: Scene units per step of a 16-bit depth image. Other formats store scene units.
        mask: 8-bit image that is 0 where depth is ignored.
        is_metric: True if the unit of the scene is the meter.
    """

    name: str
    image: Path
    number: int | None = None
    lens: Lens | None = None
    world_from_cam: np.ndarray | None = None
    depth: Path | None = None
    depth_unit: float = 1.0
    mask: Path | None = None
    is_metric: bool = False


def checked_world_from_cam(pose: Sequence, where: str) -> np.ndarray:
    """Validate the numbers of a pose from a file.

    Args:
        pose: Nested lists or an array. (4, 4) or (3, 4)
        where: File and field, for error messages.

    Returns:
        World-from-camera pose, float64. (4, 4)

    Raises:
        DataError: If a number is not finite or the rotation is invalid.
    """
    try:
        pose = np.array(pose, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: expected a 4×4 matrix of numbers, got {str(pose)[:80]}.") from error
    validate_pose(pose, where)
    whole = np.eye(4)
    whole[:3] = pose[:3]
    return whole


def read_frame(frame: Frame) -> View:
    """Read, undistort and check a frame.

    Pixels keep the order in which the file stores them if the camera is known, because tools that estimate cameras
    ignore the EXIF orientation. Images without a camera are turned upright.

    Raises:
        DataError: If a file is damaged or its size contradicts the intrinsics.
        OSError: If a file is missing.
    """
    image = _pixels(frame)
    if frame.lens is None:
        return _unlabeled_view(image, frame)
    width, height = frame.lens.size
    if image.shape[:2] != (height, width):
        raise DataError(
            f"{frame.image}: expected {width}×{height} pixels as its intrinsics say, "
            f"got {image.shape[1]}×{image.shape[0]}. Use the images that the cameras were computed with."
        )
    straight = undistortion(frame.lens)
    depth = np.zeros(image.shape[:2], np.float32) if frame.depth is None else _depth(frame, image.shape[:2])
    return make_view(
        frame.image,
        image=straight.image(image),
        depth=straight.depth(depth),
        intrinsics=straight.intrinsics,
        world_from_cam=np.eye(4) if frame.world_from_cam is None else frame.world_from_cam,
        is_metric=frame.is_metric,
    )


def read_depth(path: Path, unit: float) -> np.ndarray:
    """Read depth along the optical axis in scene units, 0 or not finite if unknown. (H, W) float32

    Args:
        path: 16-bit .png, .npy, .exr, or a COLMAP .bin of dense depth.
        unit: Scene units per integer step.

    Raises:
        DataError: If the file is damaged or has another format.
    """
    if path.suffix == ".png":
        return read_png16(path) * np.float32(unit)
    if path.suffix == ".exr":
        return read_exr(path)
    if path.suffix == ".bin":
        return read_colmap_depth(path)
    if path.suffix != ".npy":
        raise DataError(f"{path}: expected depth as one of {', '.join(DEPTHS)}, got {path.suffix!r}.")
    values = read_npy(path)
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected real numbers of shape (H, W), got {values.dtype} of shape {values.shape}.")
    return values.astype(np.float32) * np.float32(1 if values.dtype.kind == "f" else unit)


def read_colmap_depth(path: Path) -> np.ndarray:
    """Read a dense depth map of COLMAP: "WIDTH&HEIGHT&1&", then float32 row by row. (H, W)"""
    content = path.read_bytes()
    try:
        width, height, channels, numbers = content.split(b"&", 3)
        shape = int(height), int(width)
        if int(channels) != 1:
            raise ValueError(f"{int(channels)} channels")
        return np.frombuffer(numbers, "<f4").reshape(shape).copy()
    except ValueError as error:
        raise DataError(f"{path}: expected a depth map of COLMAP, got a damaged file ({error}).") from error


def read_video_frame(path: Path, number: int) -> np.ndarray:
    """Decode one frame, turned upright. (H, W, 3) uint8 RGB

    Raises:
        DataError: If the frame cannot be decoded.
    """
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        is_read, pixels = capture.read()
    finally:
        capture.release()
    if not is_read:
        raise DataError(f"{path}: expected a frame number {number}, got none. The video may be damaged or cut off.")
    return np.ascontiguousarray(pixels[..., ::-1])


def _pixels(frame: Frame) -> np.ndarray:
    if frame.number is not None:
        return read_video_frame(frame.image, frame.number)
    return read_image(frame.image) if frame.lens is None else read_stored_color(frame.image)


def _depth(frame: Frame, size: tuple[int, int]) -> np.ndarray:
    """Resize depth to the size of the image by nearest neighbor. The aspect ratios must be equal."""
    depth = _of_size(read_depth(frame.depth, frame.depth_unit), size, frame.depth)
    if frame.mask is not None:
        depth = np.where(_of_size(read_mask(frame.mask), size, frame.mask) > 0, depth, 0)
    return depth


def _of_size(values: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:
    (height, width), (full_height, full_width) = values.shape, size
    if (height, width) == size:
        return values
    if abs(height * full_width / width - full_height) > 1 + full_height / height:
        raise DataError(
            f"{path}: expected the aspect ratio of the image, {full_width}×{full_height}, got {width}×{height}. "
            "Crop the image and the depth alike."
        )
    rows, columns = nearest_indices(height, full_height).numpy(), nearest_indices(width, full_width).numpy()
    return values[rows[:, None], columns]


def _unlabeled_view(image: np.ndarray, frame: Frame) -> View:
    height, width = image.shape[:2]
    focal = max(height, width) / 2 / np.tan(np.radians(UNKNOWN_FIELD_OF_VIEW) / 2)
    return make_view(
        frame.image,
        image=image,
        depth=np.zeros((height, width), np.float32),
        intrinsics=np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]),
        world_from_cam=np.eye(4),
        is_metric=False,
    )
