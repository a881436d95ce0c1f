"""Trajectories as text: `time tx ty tz qx qy qz qw` of world-from-camera, one line per frame."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from streamvggt.export.points import PointFilter
from streamvggt.export.result import Result
from streamvggt.files import atomic_write
from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.rotation import quaternion_from_matrix


def tum_line(time: float, cam_from_world: np.ndarray) -> str:
    """One frame's line, with its end; the pose is (3, 4)."""
    world_from_cam = invert_pose(torch.from_numpy(cam_from_world).double())
    pose = torch.cat([world_from_cam[:, 3], quaternion_from_matrix(world_from_cam[:, :3])])
    return " ".join([f"{time:.6f}", *(f"{value:.9f}" for value in pose.tolist())]) + "\n"


def write_tum(path: Path, times: Sequence[float | None], cam_from_world: Sequence[np.ndarray]) -> None:
    """Write a trajectory.

    Args:
        path: of the text file.
        times: seconds; None is replaced by the position in the stream. (S,)
        cam_from_world: camera-from-world; the file holds the inverse. (S, 3, 4)
    """
    lines = [
        tum_line(position if time is None else time, pose)
        for position, (time, pose) in enumerate(zip(times, cam_from_world, strict=True))
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(lines))


def export_tum(result: Result, folder: Path, filter: PointFilter) -> Path:
    """`trajectory.txt` of all frames; the filter is about points and has no say here."""
    cameras = result.cameras()
    path = folder / "trajectory.txt"
    write_tum(path, [camera.time for camera in cameras], [camera.cam_from_world for camera in cameras])
    return path
