"""Export a scene for nerfstudio and other readers of `transforms.json`.

    transforms.json     per frame: file_path, transform_matrix, fl_x, fl_y, cx, cy, w, h; mask_path with masks
    images/<name>.jpg   the original images
    masks/<name>.png    only with masks: 0 where the frame is left out of training
    points.ply          `ply_file_path`: initial points, in the world of transform_matrix

Poses are world-from-camera with OpenGL axes: x right, y up, z backward. The principal point counts from the corner of
the image, as in COLMAP.

Reference: nerfstudio, docs/quickstart/data_conventions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamvggt.export.colmap import checked_image_names
from streamvggt.export.masks import MaskFolder
from streamvggt.export.options import ExportOptions
from streamvggt.export.points import NothingLeft, merged_points
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import FrameCamera
from streamvggt.files import atomic_directory, link_or_copy

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])


def export_nerfstudio(
    result: ReconstructionResult, folder: Path, options: ExportOptions, num_points: int = 100_000
) -> Path:
    """Write `nerfstudio/`: cameras, images, points, and masks if the options have any.

    Args:
        result: The result to export.
        folder: Output folder.
        options: Selection of points and frames, and masks.
        num_points: Maximum number of points.

    Raises:
        FileNotFoundError: If an image of the result is missing or damaged. Nothing is written.
        NothingLeft: If no point is left. The scene then has only cameras and images.
    """
    import trimesh

    cameras = {position: result.camera(position) for position in options.positions(result)}
    names = checked_image_names(result, cameras)
    masks = None if options.adjustments.masks is None else MaskFolder(options.adjustments.masks)
    cloud = merged_points(result, options).sample(num_points)
    with atomic_directory(folder / "nerfstudio", marker="transforms.json") as temporary:
        (temporary / "images").mkdir()
        entries = []
        for position, camera in cameras.items():
            link_or_copy(result.folder / "images" / f"{camera.name}.jpg", temporary / "images" / names[position])
            entries.append({"file_path": f"images/{names[position]}", **camera_entry(camera)})
            if masks is not None:
                entries[-1]["mask_path"] = f"masks/{Path(names[position]).stem}.png"
                write_mask(temporary / entries[-1]["mask_path"], masks, camera)
        content = {"camera_model": "OPENCV", "frames": entries}
        if len(cloud):
            trimesh.PointCloud(cloud.points, cloud.colors).export(temporary / "points.ply")
            content["ply_file_path"] = "points.ply"
        (temporary / "transforms.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if not len(cloud):
        raise NothingLeft(f"{options.nothing_left()}. nerfstudio/ has none", folder / "nerfstudio")
    return folder / "nerfstudio"


def camera_entry(camera: FrameCamera) -> dict[str, Any]:
    """Return pose and intrinsics of a frame for transforms.json."""
    K = camera.original_intrinsics
    rotation = camera.cam_from_world[:, :3].T
    center = -rotation @ camera.cam_from_world[:, 3]
    pose = np.eye(4)
    pose[:3] = np.concatenate([rotation @ OPENCV_FROM_OPENGL, center[:, None]], 1)
    height, width = camera.original_size
    return {
        "transform_matrix": pose.tolist(),
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": K[0, 2] + 0.5,
        "cy": K[1, 2] + 0.5,
        "w": int(width),
        "h": int(height),
    }


def write_mask(path: Path, masks: MaskFolder, camera: FrameCamera) -> None:
    """Write the mask of a frame at the size of its image: 0 or 255."""
    path.parent.mkdir(exist_ok=True)
    mask = cv2.resize(masks.read(camera), camera.original_size[::-1], interpolation=cv2.INTER_NEAREST)
    path.write_bytes(cv2.imencode(".png", np.where(mask > 0, 255, 0).astype(np.uint8))[1].tobytes())
