"""Waymo Open Dataset, perception (Sun et al., arXiv 1912.04838): drives through towns.

ROOT/waymo/invalid_files.h5                  <segment>/invalid_pairs: "<camera>_<frame %05d>" of frames not to use
           <segment>/<frame %05d>_<camera>.jpg   512 pixels wide
                                          .exr   float32, meters; 0 except at laser points
                                          .npz   intrinsics (3, 3), cam2world (4, 4)

RAW  version 1.4.2, training
     <segment>.tfrecord

The images are undistorted. Pixels with a point of the first lidar return have depth. The list `invalid_files.h5` is a
separate download. Copy it into the result before or after the preparation. Without it, the preparation writes an empty
list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import DataError, open_hdf5, strings, write_rgb
from streamvggt.data.encode import depth_array
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.transforms import scale_intrinsics
from streamvggt.data.view import View
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene
from streamvggt.datasets._tfrecord import frames, matrix, transform
from streamvggt.files import atomic_write

FOLDER = "waymo"
FILES = FrameFiles("{}.jpg", "{}.exr", CameraFile("{}.npz", pose="cam2world", dtype=np.float64))
CAMERAS = {
    1: ClipSampler(max_interval=8, video_prob=0.9, fix_interval_prob=0.9, block_shuffle=16),  # front
    2: ClipSampler(max_interval=8, video_prob=0.9, fix_interval_prob=0.9, block_shuffle=16),  # front left
    3: ClipSampler(max_interval=8, video_prob=0.9, fix_interval_prob=0.9, block_shuffle=16),  # front right
    4: ClipSampler(
        max_interval=4, video_prob=0.9, fix_interval_prob=0.9, block_shuffle=16
    ),  # left: fast apparent motion
}
"""Cameras in use. The published training skips the fifth, which faces right."""
INVALID = "invalid_files.h5"
WIDTH = 512
TOP = 1
"""The rotating laser. The car moves during a turn, so every pixel has a pose."""
OPENCV_FROM_WAYMO = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""Waymo's camera axes: x forward, y left, z up."""
OUTDOORS = True


class Waymo(DatasetReader):
    """Waymo. A scene is one camera of a segment: "<segment>/<camera>"."""

    name, folder, is_metric = "Waymo", FOLDER, True
    view_sampler = CAMERAS[1]

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        if not listing.exists(self.root / INVALID):
            raise FileNotFoundError(
                f"Waymo: {self.root / INVALID} is missing. It lists unusable frames; docs/data.md describes "
                "its download"
            )
        scenes = {}
        with open_hdf5(self.root / INVALID) as file:
            for segment in listing.folders(self.root):
                if segment == "tmp":  # incomplete output of the published preparation
                    continue
                invalid = set(strings(file[segment]["invalid_pairs"])) if segment in file else set()
                names = [name.rpartition("_") for name in FILES.names(listing, self.root / segment)]
                for camera in map(str, CAMERAS):
                    frames = [frame for frame, _, of in names if of == camera and f"{camera}_{frame}" not in invalid]
                    if frames:
                        scenes[f"{segment}/{camera}"] = frames
        return scenes

    def view_sampler_for(self, scene: str) -> ClipSampler:
        return CAMERAS[int(scene.rpartition("/")[2])]

    def read(self, scene: str, frame: str) -> View:
        segment, _, camera = scene.rpartition("/")
        return FILES.read(self.root / segment, f"{frame}_{camera}").view(self.is_metric)


def raw_scenes(raw: Path) -> list[str]:
    return sorted(file.name for file in raw.glob("*.tfrecord"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    """Write a segment. The world is the first vehicle pose, because float32 is too coarse for Waymo's world."""
    world_from_waymo = None
    for number, frame in enumerate(frames(raw / scene)):
        where = f"{raw / scene}: frame {number}"
        if world_from_waymo is None:
            world_from_waymo = np.linalg.inv(transform(frame.pose))
        points = laser_points(frame, where) @ world_from_waymo[:3, :3].T + world_from_waymo[:3, 3]
        for image in frame.images:
            calibration = get_calibration(frame.context.camera_calibrations, image.name, f"{where}, camera")
            pixels = cv2.imdecode(np.frombuffer(image.image, np.uint8), cv2.IMREAD_COLOR_RGB)
            if pixels is None or pixels.shape[:2] != (calibration.height, calibration.width):
                raise DataError(f"{where}: image {image.name} is damaged")
            pixels, intrinsics = undistort_image(pixels, np.array(calibration.intrinsic))
            waymo_from_cam = transform(image.pose) @ transform(calibration.extrinsic) @ OPENCV_FROM_WAYMO.T
            world_from_cam = world_from_waymo @ waymo_from_cam
            height, width = pixels.shape[:2]
            name = f"{number:05d}_{image.name}"
            write_rgb(FILES.image_path(folder, name), pixels)
            FILES.write_depth(folder, name, depth_of_points(points, world_from_cam, intrinsics, height, width))
            FILES.camera.write(folder, name, intrinsics, world_from_cam)
    if world_from_waymo is None:
        raise DataError(f"{raw / scene}: no frames in it")


def finish(raw: Path, out: Path) -> None:
    if not (out / INVALID).exists():
        with atomic_write(out / INVALID) as unfinished, h5py.File(unfinished, "w"):
            pass


def undistort_image(pixels: np.ndarray, calibration: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undistort an image and resize it to a width of `WIDTH`. Returns the image and its intrinsics.

    Args:
        calibration: fx, fy, cx, cy, k1, k2, p1, p2, k3 in pixels. The outer corner of the first pixel is (0, 0).
    """
    fx, fy, cx, cy = calibration[:4]
    intrinsics = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    pixels = cv2.undistort(pixels, intrinsics, calibration[4:])
    height, width = pixels.shape[:2]
    new_height = WIDTH * height // width
    small = cv2.resize(pixels, (WIDTH, new_height), interpolation=cv2.INTER_AREA)
    return small, scale_intrinsics(torch.from_numpy(intrinsics), WIDTH / width, new_height / height).numpy()


def depth_of_points(
    points: np.ndarray, world_from_cam: np.ndarray, intrinsics: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Project points (N, 3) into a depth map, 0 where no point falls. The nearest point of a pixel counts. (H, W)"""
    cam_from_world = np.linalg.inv(world_from_cam)
    x, y, z = cam_from_world[:3, :3] @ points.T + cam_from_world[:3, 3:]
    x, y, z = x[z > 0], y[z > 0], z[z > 0]
    column = np.round(intrinsics[0, 0] * x / z + intrinsics[0, 2]).astype(int)
    row = np.round(intrinsics[1, 1] * y / z + intrinsics[1, 2]).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    depth = np.full((height, width), np.inf)
    np.minimum.at(depth, (row[inside], column[inside]), z[inside])
    return np.where(np.isfinite(depth), depth, 0).astype(np.float32)


def get_calibration(calibrations: Iterable, name: int, what: str):
    """Return the calibration of a camera or laser.

    Raises:
        DataError: If the frame has none.
    """
    by_name = {calibration.name: calibration for calibration in calibrations}
    if name not in by_name:
        raise DataError(f"{what} {name}: expected a calibration, got those of {sorted(by_name)}. Download it again.")
    return by_name[name]


def laser_points(frame, where: str) -> np.ndarray:
    """Return the first returns of all lasers in Waymo's world, in meters. (N, 3)

    Args:
        where: File and frame, for error messages.

    Raises:
        DataError: If the frame has no range images.
    """
    lasers = [laser for laser in frame.lasers if laser.ri_return1.range_image_compressed]
    if not lasers:
        raise DataError(
            f"{where}: expected range images of lasers, got none. Download Perception 1.4.2 with its lidar."
        )
    points = []
    for laser in lasers:
        calibration = get_calibration(frame.context.laser_calibrations, laser.name, f"{where}, laser")
        distance = matrix(laser.ri_return1.range_image_compressed)[..., 0]  # (h, w)
        hit = distance > 0
        vehicle_from_laser = transform(calibration.extrinsic)
        rays = laser_rays(calibration, vehicle_from_laser, *distance.shape)
        in_laser = distance[hit, None] * rays[hit]  # (N, 3)
        in_vehicle = in_laser @ vehicle_from_laser[:3, :3].T + vehicle_from_laser[:3, 3]
        if laser.name == TOP:
            pose = matrix(laser.ri_return1.range_image_pose_compressed)[hit]  # roll, pitch, yaw, x, y, z
            turned = Rotation.from_euler("ZYX", pose[:, 2::-1]).apply(in_vehicle)
            points.append(turned + pose[:, 3:])
        else:
            waymo_from_vehicle = transform(frame.pose)
            points.append(in_vehicle @ waymo_from_vehicle[:3, :3].T + waymo_from_vehicle[:3, 3])
    return np.concatenate(points)


def laser_rays(calibration, vehicle_from_laser: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the unit directions of the pixels of a range image, in the axes of the laser. (h, w, 3)

    Rows go from the highest beam to the lowest. Columns start behind the vehicle and turn over its left, so that the
    center column looks ahead.
    """
    beams = np.array(calibration.beam_inclinations)
    if not len(beams):
        low, high = calibration.beam_inclination_min, calibration.beam_inclination_max
        beams = low + (np.arange(height) + 0.5) / height * (high - low)
    beams = beams[::-1, None]
    around = np.pi - 2 * np.pi * (np.arange(width) + 0.5) / width
    around = around - np.arctan2(vehicle_from_laser[1, 0], vehicle_from_laser[0, 0])
    flat = np.cos(beams)
    return np.stack([flat * np.cos(around), flat * np.sin(around), np.sin(beams) + 0 * around], -1)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures: four clips per segment, one for each of the cameras 1 to 4.

    The last frame of the first camera exists twice and is marked as invalid. The fifth camera equals the first.
    """
    root = out / FOLDER
    written, invalid = [], {}
    for number, clip in enumerate(clips):
        segment, camera = f"segment-{number // 4:020d}_with_camera_labels.tfrecord", number % 4 + 1
        names = [f"{frame:05d}_{camera}" for frame in range(len(clip))]
        views = dict(zip(names, clip, strict=True))
        if camera == 1:
            views |= {f"{name[:-1]}5": view for name, view in views.items()} | {f"{len(clip):05d}_1": clip[-1]}
            invalid[segment] = [f"1_{len(clip):05d}"]
        for name, view in views.items():
            FILES.write(root / segment, name, view, laser_lines(view), distortion=np.zeros(5))
        written.append(WrittenScene(f"{segment}/{camera}", [name[:-2] for name in names]))
    with h5py.File(root / INVALID, "w") as file:
        for segment, pairs in invalid.items():
            file[f"{segment}/invalid_pairs"] = np.array(pairs, "S")
    return written


def laser_lines(view: View) -> np.ndarray:
    """Return depth at the rows of laser beams: two rows out of four. (H, W)"""
    depth = depth_array(view).copy()
    depth[np.arange(len(depth)) % 4 >= 2] = 0
    return depth
