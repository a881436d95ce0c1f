"""Waymo Open Dataset, perception 1.4.2, training. RAW:

<segment>.tfrecord

The images are undistorted and become 512 pixels wide; depth is where points of the lasers' first return are. The list
`invalid_files.h5` is a download of its own: put it into the result before or after. Without it an empty one is made.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from streamvggt.data.decode import BadData, write_colour, write_exr
from streamvggt.data.prepare._tfrecord import frames, matrix, transform
from streamvggt.data.sources.waymo import INVALID, Waymo
from streamvggt.data.transforms import scale_intrinsics
from streamvggt.files import atomic_write

FOLDER = Waymo.folder
WIDTH = 512
TOP = 1
"""The laser that turns so slowly that the car moves meanwhile: every pixel of it has its own pose."""
OPENCV_FROM_WAYMO = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""Waymo's cameras look along x, with y to the left and z up."""


def scenes(raw: Path) -> list[str]:
    return sorted(file.name for file in raw.glob("*.tfrecord"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    """The world is the car of the first frame: where Waymo's begins, float32 has not much left for the street."""
    world_from_waymo = None
    for number, frame in enumerate(frames(raw / scene)):
        if world_from_waymo is None:
            world_from_waymo = np.linalg.inv(transform(frame.pose))
        points = laser_points(frame) @ world_from_waymo[:3, :3].T + world_from_waymo[:3, 3]
        calibrations = {calibration.name: calibration for calibration in frame.context.camera_calibrations}
        for image in frame.images:
            calibration = calibrations[image.name]
            pixels = cv2.imdecode(np.frombuffer(image.image, np.uint8), cv2.IMREAD_COLOR_RGB)
            if pixels is None or pixels.shape[:2] != (calibration.height, calibration.width):
                raise BadData(f"{raw / scene}: image {image.name} of frame {number} is damaged")
            pixels, intrinsics = straightened(pixels, np.array(calibration.intrinsic))
            waymo_from_cam = transform(image.pose) @ transform(calibration.extrinsic) @ OPENCV_FROM_WAYMO.T
            world_from_cam = world_from_waymo @ waymo_from_cam
            height, width = pixels.shape[:2]
            stem = folder / f"{number:05d}_{image.name}"
            write_colour(stem.with_suffix(".jpg"), pixels)
            write_exr(stem.with_suffix(".exr"), depth_of_points(points, world_from_cam, intrinsics, height, width))
            np.savez(stem.with_suffix(".npz"), intrinsics=intrinsics, cam2world=world_from_cam)
    if world_from_waymo is None:
        raise BadData(f"{raw / scene}: no frames in it")


def finish(raw: Path, out: Path) -> None:
    if not (out / INVALID).exists():
        with atomic_write(out / INVALID) as unfinished, h5py.File(unfinished, "w"):
            pass


def straightened(pixels: np.ndarray, calibration: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image without its lens's distortion, `WIDTH` wide, and its intrinsics.

    Args:
        calibration: fx, fy, cx, cy, k1, k2, p1, p2, k3; the first pixel's outer corner is (0, 0).
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
    """Depth at the pixels where points are seen, the nearest of each pixel; 0 elsewhere. (N, 3) → (H, W)"""
    cam_from_world = np.linalg.inv(world_from_cam)
    x, y, z = cam_from_world[:3, :3] @ points.T + cam_from_world[:3, 3:]
    x, y, z = x[z > 0], y[z > 0], z[z > 0]
    column = np.round(intrinsics[0, 0] * x / z + intrinsics[0, 2]).astype(int)
    row = np.round(intrinsics[1, 1] * y / z + intrinsics[1, 2]).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    depth = np.full((height, width), np.inf)
    np.minimum.at(depth, (row[inside], column[inside]), z[inside])
    return np.where(np.isfinite(depth), depth, 0).astype(np.float32)


def laser_points(frame) -> np.ndarray:
    """The first returns of all lasers, in Waymo's world. (N, 3)"""
    calibrations = {calibration.name: calibration for calibration in frame.context.laser_calibrations}
    points = []
    for laser in frame.lasers:
        calibration = calibrations[laser.name]
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
    """Directions of the pixels of a range image, in the laser's axes; of length 1. (h, w, 3)

    Rows go from the highest beam to the lowest; columns once around, from behind over the left (as the car has it) to
    behind again, so that the middle one looks ahead.
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
