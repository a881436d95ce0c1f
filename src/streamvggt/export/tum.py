"""Export trajectories as text: `time tx ty tz qx qy qz qw` of world-from-camera, one line per frame."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.export.options import ExportOptions
from streamvggt.export.result import ReconstructionResult
from streamvggt.files import atomic_write


def tum_line(time: float, cam_from_world: np.ndarray) -> str:
    """Format the line of one frame, including the newline. The pose has shape (3, 4)."""
    rotation = cam_from_world[:, :3].T
    center = -rotation @ cam_from_world[:, 3]
    return " ".join([f"{time:.6f}", *(f"{value:.9f}" for value in (*center, *quaternion(rotation)))]) + "\n"


def quaternion(rotation: np.ndarray) -> list[float]:
    """Return x, y, z, w with w ≥ 0 of one rotation, as `quaternion_from_matrix`, which is made for many. (3, 3)"""
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = rotation.tolist()
    products = (  # row i is 4·q_i·(x, y, z, w)
        (1 + m00 - m11 - m22, m01 + m10, m02 + m20, m21 - m12),
        (m01 + m10, 1 - m00 + m11 - m22, m12 + m21, m02 - m20),
        (m02 + m20, m12 + m21, 1 - m00 - m11 + m22, m10 - m01),
        (m21 - m12, m02 - m20, m10 - m01, 1 + m00 + m11 + m22),
    )
    best = products[max(range(4), key=lambda i: products[i][i])]
    length = math.copysign(math.hypot(*best), best[3])
    return [value / length for value in best]


def write_tum(path: Path, times: Sequence[float | None], cam_from_world: Sequence[np.ndarray]) -> None:
    """Write a trajectory.

    Args:
        path: Path of the text file.
        times: Seconds. None is replaced by the stream position. (S,)
        cam_from_world: Camera-from-world poses. The file contains the inverse. (S, 3, 4)
    """
    lines = [
        tum_line(position if time is None else time, pose)
        for position, (time, pose) in enumerate(zip(times, cam_from_world, strict=True))
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def export_tum(result: ReconstructionResult, folder: Path, options: ExportOptions) -> Path:
    """Write `trajectory.txt` of all frames. The options do not apply."""
    cameras = result.cameras()
    path = folder / "trajectory.txt"
    write_tum(path, [camera.time for camera in cameras], [camera.cam_from_world for camera in cameras])
    return path
