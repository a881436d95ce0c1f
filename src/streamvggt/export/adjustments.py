"""Adjust a result to facts that the network did not have: the camera, one distance, and masks.

The frame files are unchanged. `adjusted` returns a result that applies the facts when it reads a frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from streamvggt.export.frame_file import FrameT
from streamvggt.export.masks import MaskFolder
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import FrameCamera, ResultFrame
from streamvggt.geometry.similarity import Sim3

Size = tuple[int, int]


@dataclass(frozen=True)
class KnownDistance:
    """Distance between the points of two pixels of the first frame.

    Attributes:
        first, second: (x, y) in pixels of the original image. The center of the first pixel is (0, 0).
        meters: Distance > 0.
    """

    first: tuple[float, float]
    second: tuple[float, float]
    meters: float

    def __post_init__(self):
        if not 0 < self.meters < math.inf:
            raise ValueError(f"--known-distance: expected a distance above 0 meters, got {self.meters:g}")
        if self.first == self.second:
            raise ValueError("--known-distance: expected two different pixels, got one")


@dataclass(frozen=True)
class Adjustments:
    """Known facts. The defaults change nothing.

    Attributes:
        intrinsics: fx, fy, cx, cy in pixels of the original images. The center of the first pixel is (0, 0).
        fov: Field of view over the longer side of the original images in degrees. The principal point is the center.
        shared_intrinsics: Use one camera for all images of one size: the median of the predicted intrinsics.
        scale: Factor on all lengths.
        known_distance: Determines the factor on all lengths.
        masks: Folder of masks, see `MaskFolder`.

    Raises:
        ValueError: If facts contradict each other, or are out of range.
    """

    intrinsics: tuple[float, float, float, float] | None = None
    fov: float | None = None
    shared_intrinsics: bool = False
    scale: float = 1.0
    known_distance: KnownDistance | None = None
    masks: Path | None = None

    def __post_init__(self):
        if (self.intrinsics is not None) + (self.fov is not None) + self.shared_intrinsics > 1:
            raise ValueError("--intrinsics, --fov and --shared-intrinsics: expected one of them, got several")
        if self.intrinsics is not None and not min(self.intrinsics[:2]) > 0:
            raise ValueError(f"--intrinsics: expected focal lengths above 0, got {self.intrinsics[:2]}")
        if self.fov is not None and not 0 < self.fov < 180:
            raise ValueError(f"--fov: expected degrees between 0 and 180, got {self.fov:g}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"--scale: expected a factor above 0, got {self.scale:g}")
        if self.scale != 1 and self.known_distance is not None:
            raise ValueError("--scale and --known-distance: expected one of them, got both")

    @property
    def has_one_camera(self) -> bool:
        """Whether images of one size have equal intrinsics."""
        return self.intrinsics is not None or self.fov is not None or self.shared_intrinsics


@dataclass(frozen=True)
class FrameChange:
    """Change of each frame on reading.

    Attributes:
        intrinsics: Intrinsics in pixels of the original, by height and width of the original. Empty: as predicted.
        scale: Factor on all lengths.
        masks: None: no masks.
    """

    intrinsics: Mapping[Size, np.ndarray]
    scale: float = 1.0
    masks: MaskFolder | None = None

    def __call__(self, frame: FrameT) -> FrameT:
        if self.intrinsics:
            K = np.linalg.inv(frame.original_from_image) @ self.intrinsics[frame.original_size]
            frame = replace(frame, intrinsics=K)
        if self.scale != 1:
            frame = frame.transform(replace(Sim3.identity(), scale=torch.tensor(self.scale, dtype=torch.float64)))
        if self.masks is not None and isinstance(frame, ResultFrame):
            frame = replace(frame, valid=self.masks.valid_mask(frame))
        return frame


def adjusted(result: ReconstructionResult, adjustments: Adjustments) -> ReconstructionResult:
    """Return the result with the adjustments applied on reading.

    Raises:
        ValueError: If --intrinsics is given for images of several sizes, a pixel of the known distance has no point, or
            the mask of a frame is missing.
    """
    if adjustments == Adjustments():
        return result
    masks = None
    if adjustments.masks is not None:
        masks = MaskFolder(adjustments.masks)
        masks.check(result.cameras())
    change = FrameChange(known_intrinsics(result, adjustments), adjustments.scale, masks)
    if adjustments.known_distance is not None:
        change = replace(change, scale=metric_scale(change(result[0]), adjustments.known_distance))
    return result.with_change(change)


def known_intrinsics(result: ReconstructionResult, adjustments: Adjustments) -> dict[Size, np.ndarray]:
    """Return the intrinsics of each image size in pixels of the original. Empty: as predicted. (3, 3) each"""
    if not adjustments.has_one_camera:
        return {}
    by_size: dict[Size, list[FrameCamera]] = {}
    for camera in result.cameras():
        by_size.setdefault(camera.original_size, []).append(camera)
    if adjustments.shared_intrinsics:
        return {
            size: np.median([camera.original_intrinsics for camera in cameras], axis=0)
            for size, cameras in by_size.items()
        }
    return given_intrinsics(adjustments, by_size)


def given_intrinsics(adjustments: Adjustments, sizes: Collection[Size]) -> dict[Size, np.ndarray]:
    """Return the intrinsics of `adjustments.intrinsics` or `adjustments.fov` for image sizes. (3, 3) each

    Raises:
        ValueError: If intrinsics in pixels are given for several sizes.
    """
    if adjustments.fov is not None:
        return {size: intrinsics_from_fov(adjustments.fov, size) for size in sizes}
    if len(sizes) > 1:
        raise ValueError(
            f"--intrinsics: expected images of one size, got {len(sizes)} sizes (height, width): "
            f"{', '.join(map(str, sorted(sizes)[:3]))}. Use --fov."
        )
    fx, fy, cx, cy = adjustments.intrinsics
    return {size: np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]) for size in sizes}


def camera_change(adjustments: Adjustments) -> Callable[[ResultFrame], ResultFrame]:
    """Return the change of frames to known intrinsics, one by one, for streams whose later frames are unknown.

    The change raises ValueError if intrinsics in pixels are given and the images have several sizes.

    Args:
        adjustments: Known intrinsics, a known field of view, or neither. Other facts are ignored.
    """
    if adjustments.intrinsics is None and adjustments.fov is None:
        return lambda frame: frame
    sizes: set[Size] = set()

    def change(frame: ResultFrame) -> ResultFrame:
        sizes.add(frame.original_size)
        return FrameChange(given_intrinsics(adjustments, sizes))(frame)

    return change


def intrinsics_from_fov(degrees: float, size: Size) -> np.ndarray:
    """Return the intrinsics of an image of height and width `size` from the field of view of its longer side. (3, 3)"""
    height, width = size
    focal = max(size) / 2 / math.tan(math.radians(degrees) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def metric_scale(frame: ResultFrame, known: KnownDistance) -> float:
    """Return the factor from the unit of a frame to meters.

    Raises:
        ValueError: If a pixel is outside the processed image, or at a depth discontinuity, or has no depth.
    """
    points, _ = frame.world_points("depth")
    usable = frame.valid_mask("depth") & ~frame.edge_mask("depth")
    height, width = usable.shape
    ends = []
    for pixel in (known.first, known.second):
        x, y = (np.linalg.inv(frame.original_from_image) @ [*pixel, 1])[:2].round().astype(int)
        if not (0 <= x < width and 0 <= y < height and usable[y, x]):
            raise ValueError(
                f"--known-distance: expected a pixel with a depth in image {frame.name} "
                f"({frame.original_size[1]}×{frame.original_size[0]}), got ({pixel[0]:g}, {pixel[1]:g}), which is "
                "outside, masked or at the border of an object. Choose a pixel inside a surface."
            )
        ends.append(points[y, x].astype(np.float64))
    distance = np.linalg.norm(ends[1] - ends[0])
    if distance == 0:
        raise ValueError("--known-distance: expected two different points, got one. Choose pixels farther apart.")
    return float(known.meters / distance)
