"""ScanNet v2 (Dai et al., CVPR 2017): rooms scanned by hand, the test scenes as prepared.

scannetv2/<scene>/color_90/frame_%04d.jpg
scannetv2/<scene>/depth_90/frame_%04d.png    uint16, millimetres, 0 unknown
scannetv2/<scene>/pose_90.txt                16 numbers a line, world-from-camera; for camera trajectories only
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from streamvggt.evaluation.depth_metrics import Rules
from streamvggt.evaluation.readers.depth_set import DepthSet, Pair, files, pair_by_name, read_fixed_point, subfolders
from streamvggt.evaluation.readers.trajectory_set import TrajectorySet, from_world_from_cam, poses_of_table


class ScanNet(DepthSet):
    """No published program reads it; what counts is as for Bonn and KITTI."""

    name = "ScanNet"
    folders = ("scannetv2",)
    rules = Rules()
    num_published = (100, None)

    def list_scenes(self) -> dict[str, list[Pair]]:
        return {
            folder.name: pair_by_name(files(folder / "color_90", ".jpg"), files(folder / "depth_90", ".png"))
            for folder in subfolders(self.root)
            if (folder / "color_90").is_dir()
        }

    def read_depth(self, path: Path) -> np.ndarray:
        return read_fixed_point(path, 1000)


class ScanNetTrajectories(TrajectorySet):
    name = "ScanNet"
    folder = "scannetv2"
    num_published = 100

    def list_scenes(self) -> list[str]:
        return [path.parent.name for path in self.root.glob("*/pose_90.txt")]

    def images(self, sequence: str) -> list[Path]:
        return files(self.root / sequence / "color_90", ".jpg")

    def poses(self, sequence: str) -> Tensor:
        table = poses_of_table(self.root / sequence / "pose_90.txt", 16)
        return from_world_from_cam(table.reshape(-1, 4, 4))
