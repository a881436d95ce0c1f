"""Export a COLMAP model with images, for Gaussian splatting and other tools.

In COLMAP the corner of the image is (0, 0). In this repository the center of the first pixel is (0, 0). The export
adds 0.5 to the principal point and to image points.

Points are unprojected depth, and observations are their projections. The reprojection error is near zero by
construction, so bundle adjustment does not improve the model. `streamvggt.export.refined` refines the cameras on tracks
of the images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from streamvggt.choices import PointSource
from streamvggt.export.check import image_problem
from streamvggt.export.options import ExportOptions
from streamvggt.export.points import NothingLeft, PointCloud, merged_points
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import FrameCamera, ResultFrame
from streamvggt.extras import require
from streamvggt.files import atomic_directory, link_or_copy
from streamvggt.geometry.pointmap import project

if TYPE_CHECKING:
    import pycolmap

NUM_NEIGHBORS = 2
"""Number of frames before and after the source frame that are tested for observations of a point."""

DEPTH_TOLERANCE = 0.03
"""Maximum relative difference between projected and predicted depth of an observation."""

MIN_OBSERVATIONS = 2
"""Minimum number of observations per point. Bundle adjustment rejects points with fewer."""

READABLE = re.compile(r"[!-~]+")
"""Image names that all readers support: ASCII without spaces."""

OBSERVATION_DTYPE = np.dtype(
    [("point", np.int64), ("position", np.int64), ("pixel", np.float64, 2), ("point2D", np.int64)]
)


def export_colmap(
    result: ReconstructionResult, folder: Path, options: ExportOptions, num_points: int = 100_000
) -> Path:
    """Write `colmap/` with `sparse/0` and `images`: PINHOLE cameras in pixels of the originals.

    Each point is observed in its source frame, and in neighboring frames whose depth agrees. Images are renamed if
    their names are not `READABLE`. Then `image_names.json` maps new to old names: {"new.jpg": "old.jpg"}.

    Args:
        result: The result to export.
        folder: Output folder.
        options: Selection of points and frames.
        num_points: Maximum number of points.

    Returns:
        The path of `colmap/`.

    Raises:
        FileNotFoundError: If an image of the result is missing or damaged. Nothing is written.
        NothingLeft: If no point is observed in two frames. The model then has only cameras and images.
    """
    if options.bundle_adjust:
        from streamvggt.export.refined import refined

        result = refined(result, options)
    cameras = {position: result.camera(position) for position in options.positions(result)}
    names = checked_image_names(result, cameras)
    cloud = merged_points(result, options)
    with atomic_directory(folder / "colmap", marker="sparse/0") as temporary:
        model = reconstruction(result, cloud.sample(num_points), options, names)
        (temporary / "sparse" / "0").mkdir(parents=True)
        model.write(temporary / "sparse" / "0")
        (temporary / "images").mkdir()
        for position, camera in cameras.items():
            link_or_copy(result.folder / "images" / f"{camera.name}.jpg", temporary / "images" / names[position])
        renamed = {names[position]: f"{camera.name}.jpg" for position, camera in cameras.items()}
        if any(new != old for new, old in renamed.items()):
            table = json.dumps(renamed, indent=1, ensure_ascii=False) + "\n"
            (temporary / "image_names.json").write_text(table, encoding="utf-8")
    if model.num_points3D() == 0:
        reason = "no point is seen by two frames" if len(cloud) else options.nothing_left()
        raise NothingLeft(f"{reason}. colmap/ contains only cameras and images", folder / "colmap")
    return folder / "colmap"


def checked_image_names(result: ReconstructionResult, cameras: Mapping[int, FrameCamera]) -> dict[int, str]:
    """Return the file names of the images of frames by stream position, see `readable_names`.

    Raises:
        FileNotFoundError: If an image is missing or damaged.
    """
    problems = [problem for camera in cameras.values() if (problem := image_problem(result.folder, camera))]
    if problems:
        raise FileNotFoundError(f"{len(problems)} of {len(cameras)} images cannot be used; the first: {problems[0]}")
    return dict(zip(cameras, readable_names([camera.name for camera in cameras.values()]), strict=True))


def readable_names(stems: Sequence[str]) -> list[str]:
    """Return the file names of images: unchanged if they are `READABLE`, else unique numbers."""
    taken = set(stems)
    names = []
    for number, stem in enumerate(stems):
        if not READABLE.fullmatch(stem):
            stem = f"image_{number:06d}"
            while stem in taken:
                stem += "_"
            taken.add(stem)
        names.append(f"{stem}.jpg")
    return names


def reconstruction(
    result: ReconstructionResult, cloud: PointCloud, options: ExportOptions, names: dict[int, str]
) -> pycolmap.Reconstruction:
    """Build the model of the frames that the options select. Camera and image ids are stream positions + 1.

    Args:
        result: The result.
        cloud: Candidate points. Points with fewer than `MIN_OBSERVATIONS` observations are removed.
        options: Selection of frames.
        names: Image names by stream position.
    """
    seen = observations(result, cloud, options)
    is_kept = np.bincount(seen["point"], minlength=len(cloud)) >= MIN_OBSERVATIONS
    seen = seen[is_kept[seen["point"]]]
    seen["point"] = (np.cumsum(is_kept) - 1)[seen["point"]]
    model = require("pycolmap", "export").Reconstruction()
    for position, name in names.items():
        own = slice(*np.searchsorted(seen["position"], (position, position + 1)))
        seen["point2D"][own] = np.arange(own.stop - own.start)
        add_image(model, position + 1, name, result.camera(position), seen["pixel"][own])
    add_points(model, cloud.points[is_kept], cloud.colors[is_kept], seen)
    return model


def observations(result: ReconstructionResult, cloud: PointCloud, options: ExportOptions) -> np.ndarray:
    """Return the observations of points as rows of `OBSERVATION_DTYPE` without `point2D`, frame by frame. (M,)"""
    positions = options.positions(result)
    first = np.searchsorted(cloud.frame_index, positions)  # the points of a frame are contiguous
    last = np.searchsorted(cloud.frame_index, positions, side="right")
    found = []
    for order, (position, frame) in enumerate(result.frames("colmap", positions)):
        near = slice(first[max(order - NUM_NEIGHBORS, 0)], last[min(order + NUM_NEIGHBORS, len(positions) - 1)])
        own = cloud.frame_index[near] == position
        pixels, seen = find_observations(frame, cloud.points[near], options.point_source)
        pixels[own] = cloud.pixel[near][own]  # exact source pixel, without rounding
        seen |= own
        rows = np.empty(seen.sum(), OBSERVATION_DTYPE)
        rows["point"], rows["position"] = np.flatnonzero(seen) + near.start, position
        rows["pixel"] = colmap_pixels(pixels[seen], frame)
        found.append(rows)
    return np.concatenate(found)


def find_observations(frame: ResultFrame, points: np.ndarray, source: PointSource) -> tuple[np.ndarray, np.ndarray]:
    """Project points into a frame and test their visibility.

    Args:
        frame: The frame.
        points: World points. (N, 3)
        source: Head whose depth must agree.

    Returns:
        (x, y) in pixels of the processed image, float64 (N, 2), and visibility, bool (N,).
    """
    pixels, depth = (values.numpy() for values in project(torch.from_numpy(points).double(), frame.camera))
    height, width = frame.image.shape[:2]
    nearest = np.nan_to_num(pixels, nan=-1, posinf=-1, neginf=-1).round().clip(-1, (width, height)).astype(int)
    x, y = nearest.T
    seen = (depth > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = np.where(seen, x, 0), np.where(seen, y, 0)
    measured = frame.camera_depth(source)[y, x]
    agrees = np.abs(measured - depth) < DEPTH_TOLERANCE * np.abs(depth)
    return pixels, seen & frame.valid_mask(source)[y, x] & agrees


def colmap_pixels(pixels: np.ndarray, frame: FrameCamera) -> np.ndarray:
    """Convert pixels of the processed image to COLMAP pixels of the original. (N, 2) to (N, 2)"""
    return pixels @ frame.original_from_image[:2, :2].T + frame.original_from_image[:2, 2] + 0.5


def add_image(model: pycolmap.Reconstruction, id: int, name: str, frame: FrameCamera, points2D: np.ndarray) -> None:
    """Add a frame. A frame shares the camera and rig of the frame before if size and intrinsics are equal."""
    pycolmap = require("pycolmap", "export")
    K = frame.original_intrinsics
    height, width = frame.original_size
    params = np.array([K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5])
    camera = model.camera(max(model.cameras)) if model.cameras else None
    is_known = camera is not None and (camera.height, camera.width) == (height, width)
    if not is_known or not np.allclose(camera.params, params, rtol=0, atol=1e-6):
        camera = pycolmap.Camera(camera_id=id, model="PINHOLE", width=width, height=height, params=params)
        model.add_camera_with_trivial_rig(camera)
    image = pycolmap.Image(name=name, keypoints=points2D, camera_id=camera.camera_id, image_id=id)
    model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(frame.cam_from_world))


def add_points(model: pycolmap.Reconstruction, points: np.ndarray, colors: np.ndarray, seen: np.ndarray) -> None:
    """Add points with their tracks and mean reprojection errors.

    Args:
        model: The model, modified in place.
        points: World points. (N, 3)
        colors: RGB. (N, 3)
        seen: Rows of `OBSERVATION_DTYPE`. (M,)
    """
    pycolmap = require("pycolmap", "export")
    seen = seen[np.argsort(seen["point"], kind="stable")]
    ends = np.searchsorted(seen["point"], np.arange(len(points)), side="right")
    pairs = zip((seen["position"] + 1).tolist(), seen["point2D"].tolist(), strict=True)
    elements = [pycolmap.TrackElement(image_id, point2D) for image_id, point2D in pairs]
    start = 0
    for xyz, color, end in zip(points, colors, ends.tolist(), strict=True):
        model.add_point3D(xyz, pycolmap.Track(elements[start:end]), color)
        start = end
    model.update_point_3d_errors()
