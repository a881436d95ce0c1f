"""Hypersim. RAW:

metadata_camera_parameters.csv     from the data set's code: contrib/mikeroberts3000
ai_VVV_NNN/_detail/metadata_scene.csv
           _detail/cam_XX/camera_keyframe_orientations.hdf5, camera_keyframe_positions.hdf5
           images/scene_cam_XX_final_hdf5/frame.%04d.color.hdf5
           images/scene_cam_XX_geometry_hdf5/frame.%04d.depth_meters.hdf5
                                            frame.%04d.render_entity_id.hdf5   if there

Scenes whose lens is tilted or shifted so that depth has no plane to be measured from are left out.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np

from streamvggt.data.decode import BadData, read_hdf5, write_colour
from streamvggt.data.prepare._runner import Skip
from streamvggt.data.sources.hypersim import Hypersim

FOLDER = Hypersim.folder
CAMERAS = "metadata_camera_parameters.csv"
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])
GAMMA = 2.2
BRIGHT = 0.8
"""What the 90th percentile of brightness becomes."""


def scenes(raw: Path) -> list[str]:
    folders = sorted(raw.glob("ai_*/images/scene_cam_*_final_hdf5"))
    return [f"{folder.parents[1].name}/{folder.name[6:-11]}" for folder in folders]


def prepare(raw: Path, scene: str, folder: Path) -> None:
    name, camera = scene.split("/")
    intrinsics, size = camera_of(raw / CAMERAS, name)
    metres = metres_per_unit(raw / name / "_detail" / "metadata_scene.csv")
    detail = raw / name / "_detail" / camera
    rotations = read_hdf5(detail / "camera_keyframe_orientations.hdf5", "dataset")  # (T, 3, 3) world-from-camera
    positions = read_hdf5(detail / "camera_keyframe_positions.hdf5", "dataset") * metres  # (T, 3)
    images = raw / name / "images"
    for path in sorted((images / f"scene_{camera}_final_hdf5").glob("frame.*.color.hdf5")):
        number = path.name.split(".")[1]
        geometry = images / f"scene_{camera}_geometry_hdf5" / f"frame.{number}"
        distance = read_hdf5(Path(f"{geometry}.depth_meters.hdf5"), "dataset").astype(np.float64)
        if distance.shape != size:
            raise BadData(f"{geometry}.depth_meters.hdf5: {size} pixels were expected, it has {distance.shape}")
        entities = Path(f"{geometry}.render_entity_id.hdf5")
        something = read_hdf5(entities, "dataset") != -1 if entities.exists() else np.isfinite(distance)
        frame = f"{int(number):06d}"
        write_colour(folder / f"{frame}_rgb.png", tone_map(read_hdf5(path, "dataset"), something))
        np.save(folder / f"{frame}_depth.npy", planar_depth(distance, intrinsics).astype(np.float32))
        pose = np.eye(4)
        pose[:3, :3] = rotations[int(number)] @ OPENCV_FROM_OPENGL
        pose[:3, 3] = positions[int(number)]
        np.savez(folder / f"{frame}_cam.npz", intrinsics=intrinsics.astype(np.float32), pose=pose.astype(np.float32))


def tone_map(colour: np.ndarray, something: np.ndarray) -> np.ndarray:
    """Light as an image: as bright as `BRIGHT` says, where there is something.

    Args:
        colour: linear. (H, W, 3)
        something: (H, W) bool

    Returns:
        (H, W, 3) uint8
    """
    colour = np.nan_to_num(colour.astype(np.float64), posinf=np.finfo(np.float16).max).clip(min=0)
    brightness = colour @ [0.3, 0.59, 0.11]
    bright = np.percentile(brightness[something], 90) if something.any() else 0
    exposure = BRIGHT**GAMMA / bright if bright > 1e-4 else 1  # a picture without light stays as it is
    return (255 * (exposure * colour).clip(max=1) ** (1 / GAMMA)).round().astype(np.uint8)


def planar_depth(distance: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Depth along the optical axis of distances along the rays. (H, W), (3, 3) → (H, W)"""
    height, width = distance.shape
    x = (np.arange(width) - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(height) - intrinsics[1, 2]) / intrinsics[1, 1]
    return distance / np.sqrt(1 + x**2 + y[:, None] ** 2)


def camera_of(path: Path, scene: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Intrinsics (3, 3) and size (height, width) of a scene's images.

    Raises:
        Skip: no pinhole camera takes such images.
    """
    row = _rows(path).get(scene)
    if row is None:
        raise BadData(f"{path}: no row for {scene}")
    projection = np.array([[float(row[f"M_proj_{i}{j}"]) for j in range(4)] for i in range(4)])
    width, height = int(row["settings_output_img_width"]), int(row["settings_output_img_height"])
    tilt = [projection[0, 1], projection[0, 3], projection[1, 0], projection[1, 3], *(projection[3] - [0, 0, -1, 0])]
    if np.abs(tilt).max() > 1e-6:
        raise Skip("its lens is tilted or shifted; no pinhole camera takes such images")
    # OpenGL's normalised coordinates go from -1 to 1 between the outer edges of the first and the last pixel.
    return np.array(
        [
            [projection[0, 0] * width / 2, 0, (1 - projection[0, 2]) * width / 2 - 0.5],
            [0, projection[1, 1] * height / 2, (1 + projection[1, 2]) * height / 2 - 0.5],
            [0, 0, 1],
        ]
    ), (height, width)


@lru_cache(maxsize=1)
def _rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return {row["scene_name"]: row for row in csv.DictReader(file)}


def metres_per_unit(path: Path) -> float:
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if row and row[0] == "meters_per_asset_unit":
                return float(row[1])
    raise BadData(f"{path}: no meters_per_asset_unit in it")
