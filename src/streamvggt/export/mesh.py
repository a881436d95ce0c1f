"""Export a triangle mesh: the depth maps of all frames, triangulated and cut at depth discontinuities."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np

from streamvggt.export.glb import GLTF_FROM_OPENCV
from streamvggt.export.gltf import Shape, glb_bytes
from streamvggt.export.options import ExportOptions
from streamvggt.export.points import NothingLeft, confidence_threshold
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import ResultFrame
from streamvggt.files import atomic_write


def export_mesh(result: ReconstructionResult, folder: Path, options: ExportOptions) -> Path:
    """Write `mesh.glb`: one mesh per frame with vertex colors. The meshes of overlapping frames are not fused.

    Each vertex is a pixel. If all pixels exceed `options.max_points`, the vertices are every n-th pixel.

    Raises:
        NothingLeft: If no triangle is left. Nothing is written.
    """
    positions = options.positions(result)
    height, width = result[positions[0]].image.shape[:2]
    step = max(math.ceil(math.sqrt(len(positions) * height * width / options.max_points)), 1)
    threshold = confidence_threshold(result, options)
    of_frame = partial(frame_mesh, options=options, threshold=threshold, step=step)
    shapes = [shape for _, shape in result.mapped("mesh", of_frame, positions) if len(shape.triangles)]
    if not shapes:
        raise NothingLeft(f"{options.nothing_left('triangles')}. mesh.glb is not written")
    path = folder / "mesh.glb"
    with atomic_write(path) as temporary:
        temporary.write_bytes(glb_bytes(shapes))
    return path


def frame_mesh(frame: ResultFrame, options: ExportOptions, threshold: float, step: int) -> Shape:
    """Triangulate the pixels of a frame that pass the options, in glTF axes.

    Args:
        frame: The frame.
        options: Selection of pixels.
        threshold: Minimum confidence.
        step: Distance of neighboring vertices in pixels.
    """
    points, conf = frame.world_points(options.point_source)
    keeps = options.candidate_mask(frame) & (conf >= threshold)
    used, triangles = grid_triangles(keeps, step)
    y, x = np.divmod(used, frame.image.shape[1])
    return Shape(frame.name, points[y, x] * GLTF_FROM_OPENCV, frame.image[y, x], triangles)


def grid_triangles(keeps: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangulate a pixel grid. Each cell of step×step pixels whose pixels are all kept becomes two triangles.

    Args:
        keeps: Usable pixels. Cells across a removed line of pixels are cut, even if their corners are usable. (H, W)
        step: Distance of neighboring vertices in pixels.

    Returns:
        Row-major indices of the pixels that are vertices (N,), and vertex indices of the triangles, counterclockwise
        seen from the camera. (F, 3)
    """
    rows, columns = ((n - 1) // step for n in keeps.shape)
    corners = keeps[: rows * step + 1, : columns * step + 1]
    whole = np.ones((rows, columns), bool)
    for i in range(step + 1):
        for j in range(step + 1):
            whole &= corners[i : i + rows * step : step, j : j + columns * step : step][:rows, :columns]
    y, x = (index * step for index in np.nonzero(whole))
    width = keeps.shape[1]
    top, below = y * width + x, (y + step) * width + x
    # Image rows go down, so this order is counterclockwise in glTF axes for an observer at the camera.
    cells = np.stack([top, below, top + step, top + step, below, below + step], -1).reshape(-1, 3)  # (F, 3)
    used, triangles = np.unique(cells, return_inverse=True)
    return used, triangles.reshape(cells.shape).astype(np.uint32)
