"""Waymo: a car that drives through a box, written as Waymo writes it; the walls are where they are."""

import struct
import zlib
from dataclasses import dataclass
from functools import cache

import cv2
import h5py
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from streamvggt.datasets import prepare, waymo
from streamvggt.datasets._tfrecord import message
from streamvggt.datasets.waymo import INVALID, Waymo

HALF = np.array([30.0, 20.0, 8.0])
"""Of the box, in meters, about the world's origin."""
SEGMENT = "segment-1_with_camera_labels.tfrecord"
H, W = 64, 96
INTRINSIC = [70.0, 72.0, 50.0, 30.0]


def pose(x, y, z, yaw=0.0, pitch=0.0, roll=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("ZYX", [yaw, pitch, roll]).as_matrix()
    matrix[:3, 3] = x, y, z
    return matrix


def wall(origin, direction):
    """How far it is to the box from within. (..., 3), (..., 3) → (...)"""
    with np.errstate(divide="ignore"):
        return ((np.copysign(HALF, direction) - origin) / direction).min(-1)


@dataclass
class Laser:
    name: int
    vehicle_from_laser: np.ndarray
    beams: np.ndarray
    columns: int
    given: bool
    """Whether the beams are listed, or only the first and the last."""


LASERS = [
    Laser(
        1,
        pose(1.4, 0, 2.2, yaw=2.6, pitch=0.02),
        np.linspace(-0.3, 0.2, 24) ** 3 + np.linspace(-0.3, 0.1, 24),
        400,
        True,
    ),
    Laser(2, pose(4.0, 0.2, 0.7, yaw=0.1), np.linspace(-0.5, 0.4, 10), 80, False),
]
CAMERAS = {1: pose(1.5, 0, 2.1, yaw=0.02), 5: pose(1.4, -0.3, 2.1, yaw=-1.5, pitch=0.05)}


def vehicle(time):
    """Moves and turns; also within a frame, while the top laser goes round and before the cameras look."""
    return pose(3 * time - 5, 2 * np.sin(time), 0.1 * time, yaw=0.3 * time, pitch=0.02 * time, roll=-0.03 * time)


def packed(values):
    matrix = message("MatrixFloat")(data=values.astype(np.float32).ravel().tolist())
    matrix.shape.dims.extend(values.shape)
    return zlib.compress(matrix.SerializeToString())


def scan(laser, time):
    """A range image, and for the top laser the pose of the car at every pixel."""
    h, w = len(laser.beams), laser.columns
    times = np.full((h, w), float(time))
    if laser.name == waymo.TOP:
        times = time + np.broadcast_to(np.linspace(-0.05, 0.05, w), (h, w))
    beams = laser.beams[::-1, None]
    # Waymo's convention: the middle column is straight ahead of the car, whichever way the laser is mounted.
    mounted = np.arctan2(laser.vehicle_from_laser[1, 0], laser.vehicle_from_laser[0, 0])
    around = (1 - 2 * (np.arange(w) + 0.5) / w) * np.pi - mounted
    rays = np.stack(
        np.broadcast_arrays(np.cos(beams) * np.cos(around), np.cos(beams) * np.sin(around), np.sin(beams)), -1
    )
    distance, poses = np.empty((h, w)), np.empty((h, w, 6))
    for column in range(w):
        world_from_laser = vehicle(times[0, column]) @ laser.vehicle_from_laser
        distance[:, column] = wall(world_from_laser[:3, 3], rays[:, column] @ world_from_laser[:3, :3].T)
        matrix = vehicle(times[0, column])
        poses[:, column, 2::-1][:, :] = Rotation.from_matrix(matrix[:3, :3]).as_euler("ZYX")
        poses[:, column, 3:] = matrix[:3, 3]
    distance[::5, ::7] = -1  # no return
    image = np.stack([distance, *np.zeros((3, h, w))], -1)
    return packed(image), packed(poses) if laser.name == waymo.TOP else b""


@cache
def frame_at(time):
    frame = message("Frame")()
    frame.pose.transform.extend(vehicle(time).ravel())
    for laser in LASERS:
        calibration = frame.context.laser_calibrations.add(name=laser.name)
        calibration.extrinsic.transform.extend(laser.vehicle_from_laser.ravel())
        if laser.given:
            calibration.beam_inclinations.extend(laser.beams)
        else:
            half_step = (laser.beams[1] - laser.beams[0]) / 2
            calibration.beam_inclination_min = laser.beams[0] - half_step
            calibration.beam_inclination_max = laser.beams[-1] + half_step
        ranges, poses = scan(laser, time)
        written = frame.lasers.add(name=laser.name)
        written.ri_return1.range_image_compressed = ranges
        written.ri_return1.range_image_pose_compressed = poses
    for name, vehicle_from_cam in CAMERAS.items():
        calibration = frame.context.camera_calibrations.add(name=name, width=W, height=H)
        calibration.intrinsic.extend([*INTRINSIC, 0, 0, 0, 0, 0])
        calibration.extrinsic.transform.extend(vehicle_from_cam.ravel())
        image = frame.images.add(
            name=name, image=cv2.imencode(".jpg", np.full((H, W, 3), 40 * name, np.uint8))[1].tobytes()
        )
        image.pose.transform.extend(vehicle(time + 0.02).ravel())
    return frame.SerializeToString()


def write(raw, *frames):
    raw.mkdir()
    content = b"".join(struct.pack("<Q", len(frame)) + bytes(4) + frame + bytes(4) for frame in frames)
    (raw / SEGMENT).write_bytes(content)
    return content


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(waymo, "WIDTH", 48)


def test_points_lie_on_the_walls(tmp_path, small):
    write(tmp_path / "raw", *(frame_at(time) for time in (0.0, 1.0)))
    assert prepare("waymo", tmp_path / "raw", tmp_path).prepared == [SEGMENT]
    source = Waymo(tmp_path / Waymo.folder)
    assert source.scenes == [f"{SEGMENT}/1"], "the fifth camera is prepared, but not used"
    assert (source.root / SEGMENT / "00001_5.exr").exists()
    assert source.frames(f"{SEGMENT}/1") == ["00000", "00001"]
    for time, frame in enumerate(source.frames(f"{SEGMENT}/1")):
        view = source.read(f"{SEGMENT}/1", frame)
        assert view.image.shape == (3, 32, 48)
        assert (view.image - 40 / 255).abs().max() < 0.02
        torch.testing.assert_close(view.intrinsics[:2, :2], torch.tensor([[35.0, 0], [0, 36]]))
        torch.testing.assert_close(
            view.intrinsics[:2, 2], torch.tensor([24.5, 14.5])
        )  # 50 and 30 from the corner, halved
        # The world is the first frame's car.
        world = vehicle(0) @ np.vstack([view.cameras.world_from_cam.numpy(), [0, 0, 0, 1]])
        true = vehicle(time + 0.02) @ CAMERAS[1]
        np.testing.assert_allclose(world[:3, 3], true[:3, 3], atol=1e-4)
        np.testing.assert_allclose(world[:3, 2], true[:3, 0], atol=1e-5)  # forward
        np.testing.assert_allclose(world[:3, 0], -true[:3, 1], atol=1e-5)  # right
        # Seen from here, the walls are as far as the laser says, but for half a pixel to each side.
        assert 100 < view.valid.sum() < 1200
        rows, columns = view.valid.nonzero(as_tuple=True)
        K = view.intrinsics.double()
        depths = []
        for dx in (-0.51, 0, 0.51):
            for dy in (-0.51, 0, 0.51):
                x, y = (columns + dx - K[0, 2]) / K[0, 0], (rows + dy - K[1, 2]) / K[1, 1]
                rays = torch.stack([x, y, torch.ones_like(x)], -1).numpy() @ world[:3, :3].T
                depths.append(wall(world[:3, 3], rays))
        measured = view.depth[view.valid].numpy()
        assert (measured > np.min(depths, 0) * 0.9999 - 1e-3).all() and (
            measured < np.max(depths, 0) * 1.0001 + 1e-3
        ).all()
    with h5py.File(source.root / INVALID) as file:
        assert not len(file), "without the published list nothing is invalid"


def test_images_are_straightened():
    """Every pixel of a distorted image says through which ray it looks; of the straightened one it is its own."""
    calibration = np.array([70.0, 72.0, 50.0, 30.0, 0.3, -0.1, 0.01, -0.01, 0.0])
    K = np.array([[70.0, 0, 49.5], [0, 72.0, 29.5], [0, 0, 1]])
    pixels = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1).reshape(-1, 1, 2).astype(float)
    rays = cv2.undistortPoints(pixels, K, calibration[4:]).reshape(H, W, 2)
    image = np.dstack([(rays * 100 + 128).round(), np.zeros((H, W))]).clip(0, 255).astype(np.uint8)
    small, small_K = waymo.undistort_image(image, calibration)
    height, width = small.shape[:2]
    assert (height, width) == (waymo.WIDTH * H // W, waymo.WIDTH)
    x, y = np.meshgrid(
        (np.arange(width) - small_K[0, 2]) / small_K[0, 0], (np.arange(height) - small_K[1, 2]) / small_K[1, 1]
    )
    inner = slice(height // 5, -height // 5), slice(width // 5, -width // 5)
    assert np.abs(small[..., 0] - (x * 100 + 128))[inner].mean() < 0.5
    assert np.abs(small[..., 1] - (y * 100 + 128))[inner].mean() < 0.5
    straight = np.abs(cv2.resize(image, (width, height))[..., 0] - (x * 100 + 128))[inner].mean()
    assert straight > 0.65, "left as it was, it would not be"


def test_of_two_points_in_a_pixel_the_nearer_counts():
    points = np.array([[0, 0, 5.0], [0.01, 0, 3], [0, 0, -2], [9, 0, 1]])
    depth = waymo.depth_of_points(points, np.eye(4), np.array([[10.0, 0, 2], [0, 10, 1], [0, 0, 1]]), 3, 5)
    assert depth[1, 2] == 3 and (depth > 0).sum() == 1


@pytest.mark.parametrize("end", [5, 11, 500, -1])
def test_a_segment_cut_off_is_reported(tmp_path, small, end):
    content = write(tmp_path / "raw", frame_at(0.0))
    (tmp_path / "raw" / SEGMENT).write_bytes(content[:end])
    report = prepare("waymo", tmp_path / "raw", tmp_path)
    assert f"{SEGMENT}: cut off; fetch it again" in report.failed[SEGMENT]


def test_what_is_no_segment_is_rejected(tmp_path, small):
    write(tmp_path / "raw", b"\xff" * 50)
    report = prepare("waymo", tmp_path / "raw", tmp_path)
    assert "a record is not a frame of the perception data set" in report.failed[SEGMENT]
    (tmp_path / "raw" / SEGMENT).write_bytes(b"")
    assert "no frames in it" in prepare("waymo", tmp_path / "raw", tmp_path).failed[SEGMENT]
