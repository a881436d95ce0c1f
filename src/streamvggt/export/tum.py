"""Export trajectories as text: `time tx ty tz qx qy qz qw` of world-from-camera, one line per frame."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.export.options import ExportOptions
from streamvggt.export.result import ReconstructionResult
from streamvggt.files import atomic_write


def tum_line(time: float, cam_from_world: np.ndarray) -> str:
    """Format the line of one frame, including the newline. The pose has shape (3, 4)."""
    from scipy.spatial.transform import Rotation

    rotation = cam_from_world[:, :3].T
    center = -rotation @ cam_from_world[:, 3]
    quaternion = Rotation.from_matrix(rotation).as_quat(canonical=True)
    return " ".join([f"{time:.6f}", *(f"{value:.9f}" for value in (*center, *quaternion))]) + "\n"


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
