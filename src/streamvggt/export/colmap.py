"""A COLMAP model with its images: the input of Gaussian splatting and other tools.

COLMAP counts pixels from the corner of the image, we count from the centre of its first pixel: 0.5 is added to the
principal point and to image points.
"""

from pathlib import Path

import numpy as np
import pycolmap
import torch

from streamvggt.export.points import PointCloud, PointFilter, merged_points
from streamvggt.export.result import FrameCamera, Result, ResultFrame, Source
from streamvggt.files import atomic_folder, link_or_copy
from streamvggt.geometry.pointmap import project

NEIGHBOURS = 2
"""How many frames before and after its own are asked whether they see a point, too."""

DEPTH_TOLERANCE = 0.03
"""A frame sees a point if its depth map says the same depth there, up to this fraction."""

OBSERVATION = np.dtype([("point", np.int64), ("image_id", np.int64), ("point2D", np.int64)])


def export_colmap(result: Result, folder: Path, filter: PointFilter, num_points: int = 100_000) -> Path:
    """`colmap/` with `sparse/0` and `images`: one PINHOLE camera per image, in pixels of the originals.

    Each point is observed where it was measured, and where frames next to its own agree that they see it.

    Raises:
        FileNotFoundError: an image of the result is missing.
    """
    cloud = merged_points(result, filter).sample(num_points)
    with atomic_folder(folder / "colmap", mark="sparse/0") as temporary:
        model = reconstruction(result, cloud, filter)
        (temporary / "sparse" / "0").mkdir(parents=True)
        model.write(temporary / "sparse" / "0")
        (temporary / "images").mkdir()
        for image in model.images.values():
            link_or_copy(result.folder / "images" / image.name, temporary / "images" / image.name)
    return folder / "colmap"


def reconstruction(result: Result, cloud: PointCloud, filter: PointFilter) -> pycolmap.Reconstruction:
    """The model of the frames that the filter selects; camera and image ids are stream positions + 1."""
    model = pycolmap.Reconstruction()
    positions = filter.positions(result)
    first = np.searchsorted(cloud.frame_id, positions)  # the points of a frame follow each other
    last = np.searchsorted(cloud.frame_id, positions, side="right")
    observations = []
    for order, (position, frame) in enumerate(result.frames("colmap", positions)):
        near = slice(first[max(order - NEIGHBOURS, 0)], last[min(order + NEIGHBOURS, len(positions) - 1)])
        own = cloud.frame_id[near] == position
        pixels, seen = observe(frame, cloud.points[near], filter.source)
        pixels[own] = cloud.pixel[near][own]  # where it was measured: not moved by rounding or by another head
        seen |= own
        add_image(model, position + 1, frame, colmap_pixels(pixels[seen], frame))
        found = np.empty(seen.sum(), OBSERVATION)
        found["point"], found["image_id"] = np.flatnonzero(seen) + near.start, position + 1
        found["point2D"] = np.arange(len(found))
        observations.append(found)
    add_points(model, cloud, np.concatenate(observations))
    return model


def observe(frame: ResultFrame, points: np.ndarray, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Where a frame sees points, and whether it does.

    Args:
        frame: the frame asked.
        points: world coordinates. (N, 3)
        source: whose depth has to agree.

    Returns:
        (x, y) in pixels of the processed image, float64 (N, 2), and bool (N,).
    """
    pixels, depth = (values.numpy() for values in project(torch.from_numpy(points).double(), frame.camera))
    height, width = frame.image.shape[:2]
    nearest = np.nan_to_num(pixels, nan=-1, posinf=-1, neginf=-1).round().clip(-1, (width, height)).astype(int)
    x, y = nearest.T
    seen = (depth > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = np.where(seen, x, 0), np.where(seen, y, 0)
    measured = frame.camera_depth(source)[y, x]
    agrees = np.abs(measured - depth) < DEPTH_TOLERANCE * np.abs(depth)
    return pixels, seen & frame.usable(source)[y, x] & agrees


def colmap_pixels(pixels: np.ndarray, frame: FrameCamera) -> np.ndarray:
    """Pixels of the processed image as COLMAP's pixels of the original. (N, 2) to (N, 2)"""
    return pixels @ frame.original_from_image[:2, :2].T + frame.original_from_image[:2, 2] + 0.5


def add_image(model: pycolmap.Reconstruction, id: int, frame: FrameCamera, points2D: np.ndarray) -> None:
    """Add a frame with a camera and a rig of its own: the network says other intrinsics for every frame."""
    K = frame.original_intrinsics
    height, width = frame.original_size
    params = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
    camera = pycolmap.Camera(camera_id=id, model="PINHOLE", width=width, height=height, params=params)
    image = pycolmap.Image(name=f"{frame.name}.jpg", keypoints=points2D, camera_id=id, image_id=id)
    model.add_camera_with_trivial_rig(camera)
    model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(frame.cam_from_world))


def add_points(model: pycolmap.Reconstruction, cloud: PointCloud, observations: np.ndarray) -> None:
    """Add the points with their tracks and their mean reprojection errors; observations are `OBSERVATION`s. (M,)"""
    observations = observations[np.argsort(observations["point"], kind="stable")]
    ends = np.searchsorted(observations["point"], np.arange(len(cloud)), side="right")
    elements = [pycolmap.TrackElement(image_id, point2D) for _, image_id, point2D in observations.tolist()]
    start = 0
    for xyz, color, end in zip(cloud.points, cloud.colors, ends.tolist(), strict=True):
        model.add_point3D(xyz, pycolmap.Track(elements[start:end]), color)
        start = end
    model.update_point_3d_errors()
