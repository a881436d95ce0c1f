"""Export colored points and cameras as one glTF scene for GLB viewers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from streamvggt.export.gltf import Shape, glb_bytes
from streamvggt.export.options import ExportOptions
from streamvggt.export.points import NothingLeft, merged_points
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import FrameCamera
from streamvggt.files import atomic_write

if TYPE_CHECKING:
    import trimesh

GLTF_FROM_OPENCV = np.array([1, -1, -1], np.float32)
"""Rotation by 180° about x from OpenCV (z forward, y down) to glTF (z backward, y up)."""

FRUSTUM_SIZE = 0.03
"""Frustum depth as a ratio of the scene diagonal."""


def export_glb(result: ReconstructionResult, folder: Path, options: ExportOptions) -> Path:
    """Write `scene.glb`: the points and one frustum per frame, colored over time from blue to red.

    Raises:
        NothingLeft: If the options remove all points. The scene then has only the cameras.
    """
    cloud = merged_points(result, options)
    cameras = [result.camera(position) for position in options.positions(result)]
    size = FRUSTUM_SIZE * scene_extent(cloud.points, cameras)
    shapes = [camera_frusta(cameras, size)]
    if len(cloud):
        shapes.append(Shape("points", cloud.points * GLTF_FROM_OPENCV, cloud.colors))
    path = folder / "scene.glb"
    with atomic_write(path) as temporary:
        temporary.write_bytes(glb_bytes(shapes))
    if not len(cloud):
        raise NothingLeft(f"{options.nothing_left()}. scene.glb contains only the cameras", path)
    return path


def scene_extent(points: np.ndarray, cameras: list[FrameCamera]) -> float:
    """Return the diagonal of the box around all cameras and all points except outliers, or 1 if it is zero."""
    corners = np.stack([-c.cam_from_world[:, :3].T @ c.cam_from_world[:, 3] for c in cameras])
    if len(points):
        corners = np.concatenate([corners, np.percentile(points, [5, 95], axis=0)])
    return float(np.linalg.norm(np.ptp(corners, axis=0))) or 1.0


def camera_frusta(cameras: list[FrameCamera], size: float) -> Shape:
    """Create wire frusta of depth `size` for all cameras as one mesh in glTF axes.

    The edges are thin prisms, because viewers draw lines one pixel wide. The vertices are in the order of `cameras`.
    """
    wire = unit_frustum()
    vertices = [wire.vertices @ frustum_matrix(camera, size).T for camera in cameras]
    vertices = np.stack(
        [
            (v - c.cam_from_world[:, 3]) @ c.cam_from_world[:, :3]  # Rᵀ(v - t), in rows
            for v, c in zip(vertices, cameras, strict=True)
        ]
    )  # (S, V, 3)
    faces = wire.faces + len(wire.vertices) * np.arange(len(cameras))[:, None, None]  # (S, F, 3)
    time = np.linspace(0, 255, len(cameras)).astype(np.uint8)
    colors = cv2.applyColorMap(time[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]  # (S, 3)
    return Shape(
        "cameras",
        (vertices.reshape(-1, 3) * GLTF_FROM_OPENCV).astype(np.float32),
        colors.repeat(len(wire.vertices), axis=0),
        faces.reshape(-1, 3),
    )


def unit_frustum() -> trimesh.Trimesh:
    """Create eight bars: from (0, 0, 0) to the corners (±1, ±1, 1), and between the corners."""
    import trimesh

    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    edges = [(np.zeros(3), corner) for corner in corners] + list(zip(corners, np.roll(corners, -1, 0), strict=True))
    return trimesh.util.concatenate([trimesh.creation.cylinder(0.02, segment=edge, sections=4) for edge in edges])


def frustum_matrix(camera: FrameCamera, size: float) -> np.ndarray:
    """Return the matrix from the unit frustum to the frustum of the original image with depth `size`. (3, 3)"""
    height, width = camera.original_size
    pixels = np.array([[width / 2, 0, width / 2 - 0.5], [0, height / 2, height / 2 - 0.5], [0, 0, 1]])
    return size * np.linalg.inv(camera.original_intrinsics) @ pixels
