"""Hypersim (Roberts et al., arXiv 2011.02523): rendered rooms.

ROOT/hypersim/ai_VVV_NNN/cam_XX/%06d_rgb.png
                                %06d_depth.npy   float32, meters along the optical axis; NaN where there is nothing
                                %06d_cam.npz     intrinsics (3, 3), pose (4, 4) world-from-camera

RAW  metadata_camera_parameters.csv     from the data set's code: contrib/mikeroberts3000
     ai_VVV_NNN/_detail/metadata_scene.csv
                _detail/cam_XX/camera_keyframe_orientations.hdf5, camera_keyframe_positions.hdf5
                images/scene_cam_XX_final_hdf5/frame.%04d.color.hdf5
                images/scene_cam_XX_geometry_hdf5/frame.%04d.depth_meters.hdf5
                                                 frame.%04d.render_entity_id.hdf5   if there

The lens of most scenes is tilted or shifted, which is a pinhole camera that is rotated against the camera that the
poses mean. Intrinsics and rotation come from the table; poses and depth follow the rotation. Scenes whose pinhole
camera is skewed by half a pixel or more are skipped.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
from scipy.linalg import rq

from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import DataError, decoding, read_hdf5, write_rgb
from streamvggt.data.encode import depth_array
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.view import View
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips
from streamvggt.datasets._prepare import SkipScene

FOLDER = "hypersim"
FILES = FrameFiles("{}_rgb.png", "{}_depth.npy", CameraFile("{}_cam.npz"))
CAMERAS = "metadata_camera_parameters.csv"
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])
MAX_SKEW_ERROR = 0.5
"""Pixels, anywhere in the image, by which a skew may be ignored."""
GAMMA = 2.2
TARGET_BRIGHTNESS = 0.8
"""What the 90th percentile of brightness becomes."""
OUTDOORS = True


class Hypersim(DatasetReader):
    """Hypersim. A scene is one camera trajectory. Empty folders mark scenes that the preparation skipped."""

    name, folder, is_metric = "Hypersim", FOLDER, True
    view_sampler = ClipSampler(max_interval=4, video_prob=0.5, fix_interval_prob=0.5, block_shuffle=16)

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        return {
            f"{scene}/{camera}": FILES.names(listing, self.root / scene / camera)
            for scene in listing.folders(self.root)
            for camera in listing.folders(self.root / scene)
            if listing.files(self.root / scene / camera, "")
        }

    def read(self, scene: str, frame: str) -> View:
        return FILES.read(self.root / scene, frame).view(self.is_metric)


@dataclass(frozen=True)
class PinholeCamera:
    """The pinhole camera that takes a scene's images, in OpenCV axes.

    intrinsics: In pixels, with skew. (3, 3)
    rotation: From the pinhole camera to the camera that the poses mean. (3, 3)
    size: Height and width.
    """

    intrinsics: np.ndarray
    rotation: np.ndarray
    size: tuple[int, int]

    @classmethod
    def of(cls, row: Mapping[str, str]) -> PinholeCamera:
        """Decode a row of the table.

        `M_cam_from_uv` takes image coordinates from -1 to 1, with v upwards, to the direction of their ray in OpenGL
        axes. With pixels it is invertible, so that its inverse is K·R: an upper triangular matrix and a rotation.
        """
        width, height = (round(float(row[f"settings_output_img_{side}"])) for side in ("width", "height"))
        cam_from_uv = np.array([[float(row[f"M_cam_from_uv_{i}{j}"]) for j in range(3)] for i in range(3)])
        uv_from_pixel = np.array([[2 / width, 0, 1 / width - 1], [0, -2 / height, 1 - 1 / height], [0, 0, 1]])
        intrinsics, rotation = rq(np.linalg.inv(OPENCV_FROM_OPENGL @ cam_from_uv @ uv_from_pixel))
        signs = np.sign(np.diag(intrinsics))
        intrinsics, rotation = intrinsics * signs, rotation * signs[:, None]
        if np.linalg.det(rotation) < 0:  # rays have no sign as a whole
            rotation = -rotation
        return cls(intrinsics / intrinsics[2, 2], rotation.T, (height, width))

    @property
    def skew_error(self) -> float:
        """Pixels by which a pixel moves at most if the skew is ignored."""
        height = self.size[0]
        cy = self.intrinsics[1, 2]
        return abs(self.intrinsics[0, 1] / self.intrinsics[1, 1]) * max(cy, height - 1 - cy)

    def without_skew(self) -> np.ndarray:
        """Return the intrinsics without skew, which moves no pixel of the row of the principal point. (3, 3)

        Raises:
            SkipScene: If other pixels move too far.
        """
        if self.skew_error >= MAX_SKEW_ERROR:
            raise SkipScene(f"its camera is skewed: pixels are off by up to {self.skew_error:.1f} without the skew")
        return self.intrinsics * [[1, 0, 1], [0, 1, 1], [0, 0, 1]]


def raw_scenes(raw: Path) -> list[str]:
    folders = sorted(raw.glob("ai_*/images/scene_cam_*_final_hdf5"))
    return [f"{folder.parents[1].name}/{folder.name[6:-11]}" for folder in folders]


def prepare(raw: Path, scene: str, folder: Path) -> None:
    name, camera_name = scene.split("/")
    camera = get_camera(raw / CAMERAS, name)
    intrinsics = camera.without_skew()
    meters = meters_per_unit(raw / name / "_detail" / "metadata_scene.csv")
    detail = raw / name / "_detail" / camera_name
    poses = read_poses(detail, meters)
    images = raw / name / "images"
    for path in sorted((images / f"scene_{camera_name}_final_hdf5").glob("frame.*.color.hdf5")):
        number = path.name.split(".")[1]
        geometry = images / f"scene_{camera_name}_geometry_hdf5" / f"frame.{number}"
        distance = read_hdf5(Path(f"{geometry}.depth_meters.hdf5"), "dataset").astype(np.float64)
        if distance.shape != camera.size:
            raise DataError(
                f"{geometry}.depth_meters.hdf5: {camera.size} pixels were expected, it has {distance.shape}"
            )
        entities = Path(f"{geometry}.render_entity_id.hdf5")
        valid = read_hdf5(entities, "dataset") != -1 if entities.exists() else np.isfinite(distance)
        frame = f"{int(number):06d}"
        write_rgb(FILES.image_path(folder, frame), tone_map(read_hdf5(path, "dataset"), valid))
        FILES.write_depth(folder, frame, planar_depth(distance, camera.intrinsics))
        with decoding(detail, f"poses of frame {int(number)}"):
            pose = poses[int(number)].copy()
        pose[:3, :3] = pose[:3, :3] @ OPENCV_FROM_OPENGL @ camera.rotation
        FILES.camera.write(folder, frame, intrinsics, pose)


def read_poses(detail: Path, meters: float) -> np.ndarray:
    """Read world-from-camera poses of all frames, OpenGL axes, in meters. (T, 4, 4)"""
    rotations = read_hdf5(detail / "camera_keyframe_orientations.hdf5", "dataset")
    positions = read_hdf5(detail / "camera_keyframe_positions.hdf5", "dataset")
    with decoding(detail, "orientations (T, 3, 3) and positions (T, 3) of the keyframes"):
        poses = np.tile(np.eye(4), (len(rotations), 1, 1))
        poses[:, :3, :3] = rotations
        poses[:, :3, 3] = positions * meters
    return poses


def tone_map(color: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Convert radiance to RGB. The 90th percentile of brightness of valid pixels becomes `TARGET_BRIGHTNESS`.

    Args:
        color: Linear radiance. (H, W, 3)
        valid: Valid pixels. (H, W) bool

    Returns:
        (H, W, 3) uint8
    """
    color = np.nan_to_num(color.astype(np.float64), posinf=np.finfo(np.float16).max).clip(min=0)
    brightness = color @ [0.3, 0.59, 0.11]
    bright = np.percentile(brightness[valid], 90) if valid.any() else 0
    exposure = TARGET_BRIGHTNESS**GAMMA / bright if bright > 1e-4 else 1  # black images are unchanged
    return (255 * (exposure * color).clip(max=1) ** (1 / GAMMA)).round().astype(np.uint8)


def planar_depth(distance: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Convert distances along rays (H, W) to depth along the optical axis (H, W), with intrinsics (3, 3)."""
    height, width = distance.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(intrinsics).T  # (H, W, 3), 1 along the axis
    return distance / np.linalg.norm(rays, axis=-1)


def get_camera(path: Path, scene: str) -> PinholeCamera:
    """Read the camera of a scene from the table.

    Raises:
        DataError: If the table has no such scene.
    """
    row = _rows(path).get(scene)
    if row is None:
        raise DataError(f"{path}: no row for {scene}")
    with decoding(path, "numbers in the columns settings_output_img_width, …_height and M_cam_from_uv_00 to _22"):
        return PinholeCamera.of(row)


@lru_cache(maxsize=1)
def _rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file, decoding(path, "a table with the column scene_name"):
        return {row["scene_name"]: row for row in csv.DictReader(file)}


def meters_per_unit(path: Path) -> float:
    with open(path, encoding="utf-8", newline="") as file, decoding(path, "the number meters_per_asset_unit"):
        for row in csv.reader(file):
            if row and row[0] == "meters_per_asset_unit":
                return float(row[1])
    raise DataError(f"{path}: no meters_per_asset_unit in it")


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures. Sky pixels are NaN."""
    scenes = (f"ai_001_{number:03d}/cam_00" for number in count(1))
    return write_clips(FILES, out / FOLDER, clips, scenes, "{:06d}", depth=with_holes)


def with_holes(view: View) -> np.ndarray:
    return np.where(view.valid, depth_array(view), np.nan)
